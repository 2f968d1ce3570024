"""Double opt-in over HTTP, from the form to the next campaign."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from asking import TOPIC, House, refused
from people import say
from sqlalchemy import Connection, text
from unsubscribing import everything
from web_server import Web, serving

from dispatcher import api_keys, opt_in
from dispatcher.tokens import OptInTokens, UnsubscribeTokens, WayIn


@pytest.fixture
def web(house: House) -> Iterator[Web]:
    with serving(house.database, house.key_ring, house.shop.home) as web:
        yield web


@pytest.fixture
def key(house: House) -> dict[str, str]:
    with house.database.begin() as connection:
        secret = api_keys.create(connection, "shop", ["consents:write"])
    return {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}


def link_of(mail: dict[str, Any]) -> str:
    return "/d/" + str(mail["text"]).partition("/d/")[2].split(">")[0].split()[0]


def test_from_the_form_to_the_next_campaign(house: House, web: Web, key: dict[str, str]) -> None:
    asked = web.ask(
        "POST", "/v1/contacts/anna/consents",
        json.dumps({
            "channel": "email", "topic": TOPIC, "action": "request", "source": "newsletter form", "by": "person",
            "wording": {"id": "form-7", "language": "en", "text": "Yes, write me letters."}, "ip": "192.0.2.7",
        }), key,
    )  # fmt: skip
    assert (asked.status, asked.json["state"]) == (202, "pending")
    assert asked.json["confirmation"]["message"]
    house.shop.send()
    [mail] = house.mails()
    path = link_of(mail)
    before = everything(house.database)
    pages = [web.ask("HEAD" if number % 4 == 0 else "GET", path) for number in range(100)]
    assert {page.status for page in pages} == {200}
    assert pages[1].text.count("<button") == pages[1].text.count("<form") == 1
    assert "Letters" in pages[1].text
    assert everything(house.database) == before

    house.shop.campaign("letter")  # before the click
    assert (
        house.one(
            """SELECT m.reason || ' ' || (m.facts->>'because') FROM message m JOIN run r ON r.id = m.run_id
           WHERE r.name = 'letter'"""
        )
        == "NO_CONSENT not confirmed yet"
    )

    clicked = web.ask("POST", path, headers={"Accept": "text/html", "User-Agent": "Firefox", "Accept-Language": "de"})
    assert clicked.status == 200
    assert "Danke, das ist bestätigt" in clicked.text
    assert "Briefe" in clicked.text
    assert "a•••@p•••.example" in clicked.text
    assert "Thank you, it is confirmed" in web.ask("GET", path, headers={"Accept-Language": "en"}).text

    house.shop.campaign("letter")
    assert [each["subject"] for each in house.mails()] == ["Confirm Letters", "For you"]


def test_every_bad_link_gets_the_same_answer(house: House, web: Web) -> None:
    way_in = house.way_in(house.request())
    tokens = OptInTokens(house.key_ring)
    true, foreign = tokens.make(way_in), UnsubscribeTokens(house.key_ring).make(house.anna, "email", TOPIC, 1)
    house.withdraw()  # voids the true one
    bad = [true, foreign, true[:-1], "x", "a" * 400, tokens.make(replace(way_in, request_id=9_999))]

    for method in ("GET", "POST"):
        answers = [web.ask(method, f"/d/{token}", headers={"Accept": "text/html"}) for token in bad]
        assert {answer.status for answer in answers} == {404}
        assert len({answer.text for answer in answers}) == 1
        assert answers[0].text == web.ask(method, "/u/x", headers={"Accept": "text/html"}).text
    assert web.ask("GET", f"/u/{true}").status == 404  # each kind opens its own door only


def test_looking_cannot_write_even_if_it_wanted_to(house: House, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    token = OptInTokens(house.key_ring).make(house.way_in(house.request()))
    look = opt_in.look

    def write(connection: Connection, way_in: WayIn) -> opt_in.Offer:
        connection.execute(text("UPDATE contact SET locale = 'xx'"))
        return look(connection, way_in)

    monkeypatch.setattr(opt_in, "look", write)

    assert web.ask("GET", f"/d/{token}").status == 500


def test_an_unsubscribe_click_is_kept_with_where_it_came_from(house: House, web: Web) -> None:
    token = UnsubscribeTokens(house.key_ring).make(house.anna, "email", "offers", house.address(house.anna))

    assert web.ask("POST", f"/u/{token}", headers={"User-Agent": "Thunderbird"}).status == 200

    with house.database.connect() as connection:
        event = connection.execute(text("SELECT * FROM consent_event WHERE action = 'withdrawn'")).one()
        data_key = connection.scalar(text("SELECT data_key FROM contact WHERE id = :id"), {"id": house.anna})
    assert house.key_ring.open_data_key(data_key).open(event.sealed) == {"ip": "127.0.0.1", "user_agent": "Thunderbird"}


def test_the_person_said_before_is_not_undone_by_saying_it_for_them(house: House) -> None:
    """A grant of an operator or an import after the withdrawal does not revive a link either."""
    way_in = house.way_in(house.request())
    house.withdraw()
    with house.database.begin() as connection:
        say(connection, house.key_ring, house.anna, [("email", TOPIC, "requested")])

    refused(house, way_in)


def test_no_confirmation_token_is_ever_logged(house: House, web: Web, capfd: pytest.CaptureFixture[str]) -> None:
    token = OptInTokens(house.key_ring).make(house.way_in(house.request()))
    for method in ("GET", "POST", "GET"):
        web.ask(method, f"/d/{token}", headers={"User-Agent": "zqx-browser"})
    logged = "".join(capfd.readouterr())

    assert "/d/{token:path}" in logged
    assert token not in logged
    assert "zqx-browser" not in logged
