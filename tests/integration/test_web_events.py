"""POST /v1/events and DELETE /v1/messages/{id} over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flows import Flows, make_flows
from people import add_person
from sqlalchemy import Engine, text
from web_server import Answer, Web, serving

from dispatcher import api_keys
from dispatcher.instants import show_instant
from dispatcher.keys import KeyRing


@pytest.fixture
def flows(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Flows:
    flows = make_flows(database, key_ring, tmp_path)
    with database.begin() as connection:
        add_person(connection, key_ring, "ana")
    return flows


@pytest.fixture
def web(flows: Flows) -> Iterator[Web]:
    with serving(flows.database, flows.key_ring, flows.home) as web:
        yield web


@pytest.fixture
def key(flows: Flows) -> str:
    with flows.database.begin() as connection:
        return api_keys.create(connection, "shop", api_keys.SCOPES)


def cart(flows: Flows, **changes: Any) -> dict[str, Any]:
    body = {"source_key": "c-1", "contact": "ana", "name": "checkout.started", "occurred_at": show_instant(flows.now),
            "value": 15.3, "properties": {"cart_id": "77"}}  # fmt: skip
    return body | changes


def tell(web: Web, key: str, body: Any) -> Answer:
    sent = body if isinstance(body, bytes) else json.dumps(body)
    return web.ask("POST", "/v1/events", sent, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})


def stop(web: Web, key: str, message: object) -> Answer:
    return web.ask("DELETE", f"/v1/messages/{message}", headers={"Authorization": f"Bearer {key}"})


def is_problem(answer: Answer, status: int, says: str) -> bool:
    assert answer.header("Content-Type") == "application/problem+json"
    assert (answer.status, answer.json["status"]) == (status, status)
    assert says in answer.json["detail"]
    return True


def test_an_event_is_taken_once_and_says_what_it_started(flows: Flows, web: Web, key: str) -> None:
    body = cart(flows)
    answer, again = tell(web, key, body), tell(web, key, body)

    assert answer.status == again.status == 202
    [step] = answer.json["triggers"]
    assert (answer.json["new"], answer.json["same"], answer.json["refused"]) == (1, 0, [])
    assert (step["trigger"], step["outcome"], step["source_key"]) == ("abandoned-cart", "started", "c-1")
    assert again.json == {"new": 0, "same": 1, "refused": [], "triggers": []}
    told = web.ask("GET", f"/v1/messages/{step['message']}", headers={"Authorization": f"Bearer {key}"}).json
    assert (told["trigger"], told["template"], told["status"]) == ("abandoned-cart", "cart", "pending")


def test_its_key_with_another_body_is_409(flows: Flows, web: Web, key: str) -> None:
    body = cart(flows)
    tell(web, key, body)

    assert is_problem(tell(web, key, body | {"value": 16}), 409, "another body")
    assert tell(web, key, body | {"source": "pos", "value": 16}).status == 202


def test_a_list_is_taken_as_far_as_it_goes(flows: Flows, web: Web, key: str) -> None:
    first = cart(flows)
    tell(web, key, first)
    answer = tell(web, key, [first | {"value": 1}, cart(flows, source_key="c-2", contact="new"), {"x": 1}, first])

    assert answer.status == 202
    assert (answer.json["new"], answer.json["same"]) == (1, 1)
    assert [(one["index"], one["source_key"]) for one in answer.json["refused"]] == [(0, "c-1"), (2, None)]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 422, "not JSON"),
        (b'{"name": "a", "name": "b"}', 422, "twice"),
        (b"[]", 422, "1 to 500"),
        (b'[{"x": 1}]', 422, "none of these"),
        (b"7", 422, "not an object"),
        ({"contact": None}, 422, "contact is missing"),
        ({"occurred_at": "yesterday"}, 422, "not an instant"),
        ({"surprise": 1}, 422, "surprise"),
        (b'{"value": NaN}', 422, "NaN"),
    ],
)
def test_what_is_no_event_is_named(flows: Flows, web: Web, key: str, body: Any, status: int, says: str) -> None:
    assert is_problem(tell(web, key, body if isinstance(body, bytes) else cart(flows, **body)), status, says)
    with flows.database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM event")) == 0


def test_more_than_500_events_are_refused(flows: Flows, web: Web, key: str) -> None:
    one = {"source_key": "x", "contact": "ana", "name": "a", "occurred_at": "2026-01-01T00:00:00Z"}

    assert is_problem(tell(web, key, [one] * 501), 422, "1 to 500")


def test_events_need_their_scope(flows: Flows, web: Web) -> None:
    with flows.database.begin() as connection:
        other = api_keys.create(connection, "reader", ["messages:read"])

    assert is_problem(tell(web, other, cart(flows)), 403, "events:write")
    assert tell(web, "dsp_wrong", cart(flows)).status == 401


def test_racing_requests_with_one_event_start_one_message(flows: Flows, web: Web, key: str) -> None:
    body = cart(flows)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: tell(web, key, body), range(16)))

    assert {answer.status for answer in answers} == {202}
    assert sum(answer.json["new"] for answer in answers) == 1
    assert len(flows.messages()) == 1


def test_the_description_names_events_and_how_to_stop_a_message(web: Web) -> None:
    paths = web.ask("GET", "/openapi.json").json["paths"]

    schema = paths["/v1/events"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["anyOf"][1]["maxItems"] == 500
    assert "409" in paths["/v1/messages/{message_id}"]["delete"]["responses"]


def test_a_pending_message_is_stopped_and_stays_so(flows: Flows, web: Web, key: str) -> None:
    message = tell(web, key, cart(flows)).json["triggers"][0]["message"]
    answer, again = stop(web, key, message), stop(web, key, message)

    assert (answer.status, again.status) == (200, 200)
    assert (answer.json["status"], answer.json["reason"]) == ("cancelled", "OPERATOR")
    flows.wait(timedelta(hours=2))
    flows.send()
    assert flows.mails() == []
    assert flows.became() == {"OPERATOR": 1}


def test_what_has_left_cannot_be_stopped(flows: Flows, web: Web, key: str) -> None:
    order = cart(flows, name="order.placed", source_key="o-1")
    message = tell(web, key, order).json["triggers"][0]["message"]
    flows.send()

    assert is_problem(stop(web, key, message), 409, "is sent")
    assert is_problem(stop(web, key, uuid4()), 404, "no message")
