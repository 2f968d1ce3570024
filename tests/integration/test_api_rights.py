"""Over HTTP: what we know of a person, and forgetting them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from people import add_person
from small_workspace import write_workspace
from sqlalchemy import Engine, text
from web_server import Answer, Web, serving

from dispatcher import api_keys, rights
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.workspace import read_workspace


@pytest.fixture
def web(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace")), by="test")
        add_person(connection, key_ring, "ana", email="ana@shop.example")
    with serving(database, key_ring, tmp_path / "home") as web:
        yield web


@pytest.fixture
def key(database: Engine) -> str:
    with database.begin() as connection:
        return api_keys.create(connection, "shop", api_keys.SCOPES)


def ask(web: Web, key: str, method: str, path: str, body: Any = None) -> Answer:
    sent = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return web.ask(method, path, None if body is None else json.dumps(body), sent)


def test_everything_known_of_a_person_is_handed_out_and_the_audit_says_to_whom(
    database: Engine, web: Web, key: str
) -> None:
    answer = ask(web, key, "GET", "/v1/contacts/ana/export")

    assert (answer.status, "ana@shop.example" in answer.text) == (200, True)
    assert ask(web, key, "GET", "/v1/contacts/nobody/export").status == 404
    with database.begin() as connection:
        audited = connection.execute(text("SELECT actor FROM audit WHERE action = 'contact.export'")).scalars().all()
        reader = api_keys.create(connection, "reader", ["contacts:read"])
    assert audited == ["key:shop"]
    assert ask(web, reader, "GET", "/v1/contacts/ana/export").status == 403


def test_an_erasure_is_asked_for_followed_and_final(database: Engine, key_ring: KeyRing, web: Web, key: str) -> None:
    asked = ask(web, key, "DELETE", "/v1/contacts/ana")
    again = ask(web, key, "DELETE", "/v1/contacts/ana")
    place = asked.header("Location") or ""

    assert (asked.status, again.status, asked.json, again.header("Location")) == (202, 202, again.json, place)
    assert ask(web, key, "GET", place).json["state"] == "in progress"
    rights.finish_erasures(database, key_ring)
    done = ask(web, key, "GET", place).json
    assert (done["state"], done["done_at"] is not None, bool(done["proof"])) == ("done", True, True)

    assert ask(web, key, "PUT", "/v1/contacts/ana", {"email": "ana@shop.example"}).status == 409
    assert ask(web, key, "PUT", "/v1/contacts/other", {"email": "ana@shop.example"}).status == 409
    shown = ask(web, key, "GET", "/v1/contacts/ana").json
    assert (shown["email"], shown["first_name"], shown["erased_at"] is not None) == (None, None, True)
    assert ask(web, key, "GET", "/v1/erasures/999").status == 404
    assert ask(web, key, "DELETE", "/v1/contacts/nobody").status == 404
