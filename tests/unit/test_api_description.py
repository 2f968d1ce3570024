"""/openapi.json says everything that one needs: ids, scopes, errors, examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from dispatcher.api_keys import SCOPES
from dispatcher.definitions import Campaign, Schedule, Utm
from dispatcher.web.app import V1
from dispatcher.web.v1.description import TAGS, describe


def described() -> dict[str, Any]:
    app = FastAPI(title="Dispatcher", version="1")
    for resource in V1:
        app.include_router(resource.router)
    describe(app)
    return app.openapi()


DESCRIPTION = described()


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in DESCRIPTION["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


OPERATIONS = dict(operations())


def errors_of(operation: dict[str, Any]) -> dict[str, Any]:
    return {status: answer for status, answer in operation["responses"].items() if status >= "400"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_has_a_name_a_scope_and_words(name: str) -> None:
    operation = OPERATIONS[name]

    assert operation["summary"]
    assert len(operation["description"]) > 40
    assert set(operation["tags"]) <= set(TAGS)
    assert operation["x-scope"] in SCOPES
    assert operation["security"] == [{"key": [operation["x-scope"]]}]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_error_of_an_operation_is_a_problem(name: str) -> None:
    errors = errors_of(OPERATIONS[name])

    assert {"401", "403", "422", "429", "503"} <= errors.keys()
    assert ("requestBody" in OPERATIONS[name]) == ({"413", "415"} <= errors.keys())
    assert ("{" in name) <= ("404" in errors or name.startswith("PUT"))
    for status, error in errors.items():
        assert list(error["content"]) == ["application/problem+json"], status
        assert error["content"]["application/problem+json"]["example"]["status"] == int(status)


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_sent_and_what_is_answered_has_an_example(name: str) -> None:
    operation = OPERATIONS[name]
    answers = {status: answer for status, answer in operation["responses"].items() if status < "300"}

    assert answers
    for status, answer in answers.items():
        assert status == "204" or "example" in answer["content"]["application/json"], status
    if "requestBody" in operation and not name.endswith(("/simulate", "/runs")):  # there nothing need be said
        sent = operation["requestBody"]["content"]["application/json"]
        schema = DESCRIPTION["components"]["schemas"].get(sent["schema"].get("$ref", "").rpartition("/")[2], {})
        assert "examples" in sent or "examples" in schema


def test_names_of_operations_are_their_own_and_links_lead_to_some() -> None:
    names = Counter(operation["operationId"] for operation in OPERATIONS.values())
    answers = [answer for operation in OPERATIONS.values() for answer in operation["responses"].values()]

    assert set(names.values()) == {1}
    assert {link["operationId"] for answer in answers for link in answer.get("links", {}).values()} <= names.keys()


def test_a_campaign_is_described_field_by_field() -> None:
    sent = OPERATIONS["PUT /v1/campaigns/{name}"]["requestBody"]["content"]["application/json"]["schema"]
    told = sent["properties"]

    assert told.keys() == Campaign.model_fields.keys()
    assert told["schedule"]["anyOf"][0]["properties"].keys() == Schedule.model_fields.keys()
    assert told["utm"]["anyOf"][0]["properties"].keys() == Utm.model_fields.keys()


def test_every_scope_opens_something_and_is_described() -> None:
    used = {operation["x-scope"] for operation in OPERATIONS.values()}

    assert used == set(SCOPES) - {"metrics:read"}  # /metrics is for whoever watches us
    assert all(f"`{scope}`" in DESCRIPTION["info"]["description"] for scope in SCOPES)
