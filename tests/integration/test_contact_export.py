"""The export of a person: complete, opened, plain JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from people import add_person
from sqlalchemy import Connection, Engine, text

from dispatcher import clock, consent, identity, messages
from dispatcher.consent import ConsentChange
from dispatcher.errors import NotFound
from dispatcher.events import Event, Item, record_events
from dispatcher.feedback.recording import record
from dispatcher.feedback.report import Kind, Report
from dispatcher.keys import KeyRing
from dispatcher.rights import erase, export_contact
from dispatcher.rights.data_map import DATA_MAP
from dispatcher.rights.exporting import OWN_COLUMNS, SECTIONS
from dispatcher.tables import contact, metadata

THEN = datetime(2026, 1, 1, tzinfo=UTC)
#: Columns that say whose a row is.
WHOSE = {"contact_id", "address_id", "contact_ids"}


@pytest.fixture
def ana(database: Engine, key_ring: KeyRing) -> int:
    with database.begin() as connection:
        contact_id = add_person(connection, key_ring, "ana", email="ana@people.example", phone="+447700900123")
        item = Item(("christmas",), Decimal(2), Decimal("15.30"), {"colour": "red"})
        order = Event("536365", "ana", "order.placed", THEN, Decimal("15.30"), {"gift": True}, (item,))
        record_events(connection, key_ring, [order])
        seen = ConsentChange(
            contact_id, "email", "news", "granted", "person", "form", THEN, address_of(connection, contact_id),
            sealed={"ip": "192.0.2.7", "user_agent": "Firefox"},
        )  # fmt: skip
        consent.record(connection, key_ring, [seen], now=clock.read_now(connection))
    return contact_id


def address_of(connection: Connection, contact_id: int) -> int:
    query = text("SELECT email_address_id FROM contact WHERE id = :id")
    return int(connection.execute(query, {"id": contact_id}).scalar_one())


def export(database: Engine, key_ring: KeyRing, contact_id: int) -> dict[str, Any]:
    with database.connect() as connection:
        told: dict[str, Any] = json.loads(orjson.dumps(export_contact(connection, key_ring, contact_id)))
    return told


def test_every_table_is_accounted_for() -> None:
    """Who adds a table says in `data_map` what of it a person is shown, and what an erasure leaves."""
    assert set(DATA_MAP) == set(metadata.tables), "dispatcher/rights/data_map.py must name every table"


@pytest.mark.parametrize("name", sorted(metadata.tables))
def test_a_table_is_exported_or_says_why_not(name: str) -> None:
    holding = DATA_MAP[name]

    assert set(holding.exported_as) <= set(SECTIONS)
    assert bool(holding.exported_as) != bool(holding.not_exported), f"is {name} exported, or why not?"
    if WHOSE & set(metadata.tables[name].columns.keys()):
        assert holding.not_exported != "it names no person", f"{name} says whose its rows are"


def test_every_column_of_a_contact_is_exported(database: Engine, key_ring: KeyRing, ana: int) -> None:
    told = export(database, key_ring, ana)["contact"]

    assert set(told) >= set(contact.columns.keys()) - OWN_COLUMNS


def test_it_shows_who_they_are_and_what_they_did(database: Engine, key_ring: KeyRing, ana: int) -> None:
    told = export(database, key_ring, ana)

    assert (told["format"], told["version"]) == ("dispatcher contact export", 1)
    assert list(told)[4:] == list(SECTIONS)
    assert told["contact"]["email"] == "ana@people.example"
    assert told["contact"]["phone"] == "+447700900123"
    assert told["contact"]["known_as"][0]["external_id"] == "ana"
    assert {(a["channel"], a["address"], a["present"]) for a in told["addresses"]} == {
        ("email", "ana@people.example", True), ("sms", "+447700900123", True),
    }  # fmt: skip
    assert told["places"][0]["zone"] == "Europe/London"
    assert {(held["topic"], held["state"]) for held in told["consent"]} == {("offers", "granted"), ("news", "granted")}
    assert told["consent_evidence"][-1]["seen"] == {"ip": "192.0.2.7", "user_agent": "Firefox"}
    [event] = told["events"]
    assert (event["name"], event["value"], event["properties"]) == ("order.placed", 15.3, {"gift": True})
    assert event["items"] == [
        {"interests": ["christmas"], "quantity": 2, "value": 15.3, "properties": {"colour": "red"}}
    ]
    assert told["interests"][0]["interest"] == "christmas"
    assert told["erasure"] is None


def test_it_opens_what_was_sealed_with_messages_and_feedback(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.begin() as connection:
        connection.execute(
            text("""INSERT INTO template (hash, channel, name, files)
                    VALUES ('h', 'email', 'order', '{"meta.yaml": "class: transactional"}')""")
        )
        wish = messages.Wish("order", "email", "ana", {"total": "15.30"})
        message_id = messages.submit(connection, key_ring, wish, client="shop", idempotency_key="k")
    raw = {"why": "no such box"}
    bounce = Report("sendgrid", "email", "1", raw, Kind.BOUNCED, message_id=message_id, address="ana@people.example")
    record(database, key_ring, [bounce])

    told = export(database, key_ring, ana)

    [message] = told["messages"]
    assert (message["template"], message["asked_by"], message["data"]) == ("order", "shop", {"total": "15.30"})
    [feedback] = told["feedback"]
    assert feedback["as_it_came"] == {"event": {"why": "no such box"}}


def test_it_covers_what_was_merged_into_them(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.begin() as connection:
        other = add_person(connection, key_ring, "ana-2", email="old@people.example")
        identity.merge(connection, key_ring, ana, other)

    told = export(database, key_ring, other)

    assert [one["external_id"] for one in told["merged_contacts"]] == ["ana-2"]
    assert {one["external_id"] for one in told["contact"]["known_as"]} == {"ana", "ana-2"}
    assert len(told["consent_evidence"]) == 3
    assert [entry["action"] for entry in told["audit"]] == ["contact.merge"]


def test_nobody_elses_data_is_in_it(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.begin() as connection:
        add_person(connection, key_ring, "bea", email="bea@people.example", phone="+447700900123")

    assert "bea" not in json.dumps(export(database, key_ring, ana))


def test_of_the_erased_it_shows_what_is_left(database: Engine, key_ring: KeyRing, ana: int) -> None:
    erase(database, key_ring, ana, by="test")

    told = export(database, key_ring, ana)

    assert told["contact"]["email"] is None
    assert told["erasure"]["state"] == "done"
    assert {event["action"] for event in told["consent_evidence"]} == {"granted", "withdrawn"}
    assert told["consent_evidence"][1]["seen"] is None
    assert (told["events"][0]["properties"], told["events"][0]["items"], told["interests"]) == ({}, [], [])


def test_there_is_no_export_of_nobody(connection: Connection, key_ring: KeyRing) -> None:
    with pytest.raises(NotFound):
        export_contact(connection, key_ring, 17)
