"""POST /v1/contacts/{external_id}/consents: what the shop may say for a person, and what not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import WORKSPACE
from people import add_person, say
from small_workspace import FILES, write_workspace
from sqlalchemy import Engine, text
from web_server import Answer, Web, serving

from dispatcher import api_keys, consent
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.workspace import read_workspace

WORDING = {"id": "form-7", "language": "en", "text": "Yes, write me."}


@pytest.fixture
def web(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    toml = str(WORKSPACE["dispatcher.toml"]).replace(
        "[topics.offers]\n", '[topics.offers]\nbases = ["implied_purchase"]\n'
    )
    files = {**FILES, **WORKSPACE, "dispatcher.toml": toml}
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", files)), by="test")
        add_person(connection, key_ring, "anna", granted=())
        add_person(connection, key_ring, "mailless", email=None, granted=())
    with serving(database, key_ring, tmp_path / "home") as web:
        yield web


@pytest.fixture
def key(database: Engine) -> str:
    with database.begin() as connection:
        return api_keys.create(connection, "shop", ["consents:write"])


def change(web: Web, key: str, contact: str = "anna", **said: Any) -> Answer:
    body = {"channel": "email", "topic": "offers", "action": "grant", "source": "checkout"} | said
    sent = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return web.ask("POST", f"/v1/contacts/{contact}/consents", json.dumps(body), sent)


def test_a_grant_is_evidence_with_its_wording_and_its_time(database: Engine, web: Web, key: str) -> None:
    answer = change(
        web, key, by="person", wording=WORDING, occurred_at="2026-01-02T03:04:05Z", ip="192.0.2.7", user_agent="Firefox"
    )

    assert answer.status == 200
    assert (answer.json["state"], answer.json["basis"], answer.json["confirmed"]) == ("granted", "consent", False)
    assert answer.json["effective_at"] == "2026-01-02T03:04:05.000000Z"
    with database.connect() as connection:
        event = connection.execute(text("SELECT * FROM consent_event")).one()
        audited = connection.execute(text("SELECT actor FROM audit WHERE action = 'consent.grant'")).one()
    assert (event.actor, event.source, event.wording["id"], len(event.wording["hash"])) == (
        "person",
        "checkout",
        "form-7",
        64,
    )
    assert audited.actor == "key:shop"


def test_the_shops_records_do_not_pass_a_withdrawal_but_are_kept(
    database: Engine, key_ring: KeyRing, web: Web, key: str
) -> None:
    assert change(web, key, action="withdraw").json["state"] == "withdrawn"

    refused = change(web, key)

    assert (refused.status, refused.header("Content-Type")) == (409, "application/problem+json")
    assert "only their own later act can grant it again" in refused.json["detail"]
    with database.connect() as connection:
        actions = connection.scalars(text("SELECT action || ' ' || actor FROM consent_event ORDER BY id")).all()
    assert actions == ["withdrawn person", "granted shop"]
    assert change(web, key, by="person", wording=WORDING, occurred_at="2020-01-01T00:00:00Z").status == 409  # older
    assert change(web, key, by="person", wording=WORDING).json["state"] == "granted"


def test_a_purchase_grants_until_it_expires_where_the_topic_accepts_it(web: Web, key: str) -> None:
    bought = change(web, key, basis="implied_purchase", occurred_at="2026-01-31T00:00:00Z", source="order 7")

    assert (bought.status, bought.json["expires_at"]) == (200, "2028-01-31T00:00:00.000000Z")
    for said, why in (
        ({"basis": "implied_purchase"}, "needs the time"),
        ({"basis": "soft_opt_in", "occurred_at": "2026-01-31T00:00:00Z"}, "does not accept soft_opt_in"),
        ({"topic": "letters", "basis": "soft_opt_in", "occurred_at": "2026-01-31T00:00:00Z"}, "does not accept"),
        ({"basis": "implied_purchase", "by": "person", "wording": WORDING}, "a grant by the person is consent"),
    ):  # fmt: skip
        refused = change(web, key, **said)
        assert refused.status == 422, said
        assert why in refused.json["detail"], said


def test_a_purchase_of_long_ago_grants_nothing_any_more(web: Web, key: str) -> None:
    refused = change(web, key, basis="implied_purchase", occurred_at="2001-01-01T00:00:00Z")

    assert refused.status == 409
    assert "has expired on 2003-01-01" in refused.json["detail"]


@pytest.mark.parametrize(
    ("said", "status", "why"),
    [
        ({"topic": "nothing"}, 422, "is not a topic for email; there are offers, letters"),
        ({"channel": "fax"}, 422, "channel"),
        ({"action": "confirm"}, 422, "action"),
        ({"by": "person"}, 422, "needs the wording"),
        ({"by": "operator"}, 422, "by"),
        ({"action": "withdraw", "occurred_at": "2026-01-01T00:00:00Z"}, 422, "takes effect now"),
        ({"action": "request", "basis": "soft_opt_in"}, 422, "only a grant has a basis"),
        ({"occurred_at": "2026-01-01T00:00:00"}, 422, "timezone"),
        ({"occurred_at": "0001-01-01T00:00:00+14:00"}, 422, "before the year 1"),
        ({"occurred_at": "9999-12-31T23:59:59-14:00", "basis": "implied_purchase"}, 422, "after 9999"),
        ({"source": "a\u0000b"}, 422, "cannot be printed"),
        ({"wording": {"id": "x", "text": "a\u0000b"}}, 422, "NUL"),
        ({"opt_in_level": "confirmed_opt_in"}, 422, "opt_in_level"),
        ({"contact": "nobody"}, 404, "there is no contact"),
        ({"contact": "mailless"}, 422, "has no address for email"),
        ({"contact": "mailless", "action": "request", "topic": "letters"}, 422, "has no address for email"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    database: Engine, web: Web, key: str, said: dict[str, Any], status: int, why: str
) -> None:
    answer = change(web, key, **said)

    assert (answer.status, why in answer.text) == (status, True), answer.text
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM consent_event")) == 0


def test_who_has_no_address_can_still_withdraw(database: Engine, web: Web, key: str) -> None:
    answer = change(web, key, contact="mailless", action="withdraw")

    assert (answer.status, answer.json["state"], answer.json["on_the_wire"]) == (200, "withdrawn", False)


def test_a_request_of_somebody_who_said_no_waits_for_them(
    database: Engine, key_ring: KeyRing, web: Web, key: str
) -> None:
    with database.begin() as connection:
        anna = connection.execute(text("SELECT id FROM contact WHERE external_id = 'anna'")).scalar_one()
        say(connection, key_ring, anna, [("email", "letters", "withdrawn")])

    asked = change(web, key, action="request", topic="letters")

    assert (asked.status, asked.json["state"]) == (202, "withdrawn")
    assert asked.json["confirmation"]["message"]
    again = change(web, key, action="request", topic="letters").json["confirmation"]
    assert again["message"] is None
    assert again["again_at"] > "2026"
    assert (
        change(web, key, action="request", topic="letters", occurred_at="2020-01-01T00:00:00Z").json["confirmation"][
            "because"
        ]
        == "they have withdrawn it since they asked"
    )
    with database.connect() as connection:
        assert consent.verify_chain(connection) == []


def test_a_key_needs_the_scope(database: Engine, web: Web) -> None:
    with database.begin() as connection:
        other = api_keys.create(connection, "reader", ["messages:read"])

    assert change(web, other).status == 403
    assert change(web, "nothing").status == 401


def test_the_description_tells_of_it(web: Web) -> None:
    described = web.ask("GET", "/openapi.json").json
    post = described["paths"]["/v1/contacts/{external_id}/consents"]["post"]

    assert {"200", "202", "404", "409", "422"} <= set(post["responses"])
    assert set(described["components"]["schemas"]["NewConsent"]["required"]) == {"channel", "topic", "action", "source"}
