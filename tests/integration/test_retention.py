"""What is kept no longer: what can be read goes when its term is over, and what has to be proved stays."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from ledger_rows import add_message
from people import add_person
from sqlalchemy import Connection, Engine, text

from dispatcher import clock
from dispatcher.errors import Refused
from dispatcher.events import Event, Item, record_events
from dispatcher.feedback import inbox
from dispatcher.feedback.recording import record
from dispatcher.feedback.report import Kind, Report
from dispatcher.keys import KeyRing
from dispatcher.rights import erase, retention
from dispatcher.rights.retention import preview, sweep, sweep_if_due

THEN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def ana(database: Engine, key_ring: KeyRing) -> int:
    """Somebody with one of everything that can be read, all of it from today."""
    with database.begin() as connection:
        contact_id = add_person(connection, key_ring, "ana", email="ana@people.example")
        item = Item(("christmas",), Decimal(2), Decimal("15.30"), {"colour": "red"})
        record_events(
            connection, key_ring, [Event("1", "ana", "order.placed", THEN, Decimal(15), {"gift": 1}, (item,))]
        )
        address_id = connection.scalar(text("SELECT email_address_id FROM contact WHERE id = :id"), {"id": contact_id})
        message_id = add_message(connection, contact_id, address_id, status="sent", class_="transactional")
        connection.execute(
            text("UPDATE message SET sealed = 'x', settled_at = clock_timestamp() WHERE id = :id"), {"id": message_id}
        )
        connection.execute(
            text("""INSERT INTO reply (source, provider_event_id, address_id, contact_id, reading, received_at, sealed)
                    VALUES ('twilio', '1', :address, :contact, 'other', clock_timestamp(), 'x')"""),
            {"address": address_id, "contact": contact_id},
        )
        inbox.store(connection, key_ring, "sendgrid", b"broken")
        connection.execute(text("UPDATE feedback_inbox SET failures = 9"))
    record(
        database, key_ring, [Report("mail", "email", "1", {"why": "no"}, Kind.BOUNCED, address="ana@people.example")]
    )
    return contact_id


def later(database: Engine, by: timedelta) -> None:
    with database.begin() as connection:
        clock.shift(connection, by, sandbox_only=True)


def gone(swept: retention.Sweep) -> dict[str, int]:
    return {line.name: line.gone for line in swept.lines if line.gone}


def value(database: Engine, query: str) -> Any:
    with database.connect() as connection:
        return connection.scalar(text(query))


def test_nothing_goes_before_its_time(database: Engine, ana: int) -> None:
    later(database, timedelta(days=29))

    assert gone(sweep(database, by="test")) == {}


def test_each_goes_when_its_term_is_over(database: Engine, ana: int) -> None:
    later(database, timedelta(days=31))
    assert gone(sweep(database, by="test")) == {"inbox": 1}

    later(database, timedelta(days=401))
    assert gone(sweep(database, by="test")) == {"message_data": 1, "feedback": 1, "replies": 1}

    later(database, timedelta(days=1101))
    assert gone(sweep(database, by="test")) == {"events": 1}
    assert gone(sweep(database, by="test")) == {}


def test_what_has_to_be_proved_and_counted_stays(database: Engine, ana: int) -> None:
    counted = (
        "consent_event",
        "consent",
        "suppression",
        "message",
        "feedback",
        "reply",
        "event",
        "interest",
        "contact",
    )
    before = [value(database, f"SELECT count(*) FROM {table}") for table in counted]
    later(database, timedelta(days=5_000))

    sweep(database, by="test")

    assert [value(database, f"SELECT count(*) FROM {table}") for table in counted] == before
    assert value(database, "SELECT value FROM event") == 15
    assert value(database, "SELECT count(*) FROM event_item") == 0
    assert value(database, "SELECT properties FROM event") == {}


def test_a_dry_run_says_what_would_go_and_takes_nothing(database: Engine, ana: int) -> None:
    later(database, timedelta(days=5_000))

    with database.connect() as connection:
        told = gone(preview(connection))

    assert told == {"message_data": 1, "feedback": 1, "inbox": 1, "replies": 1, "events": 1}
    assert gone(sweep(database, by="test")) == told


def test_the_shop_says_how_long(database: Engine, ana: int) -> None:
    shop = {
        "shop": {"name": "Shop", "from_email": "a@b.example", "postal_address": "here"},
        "retention": {"inbox": "14d", "feedback": "for good"},
    }
    with database.begin() as connection:
        connection.execute(text("UPDATE engine SET shop = CAST(:shop AS jsonb)"), {"shop": json.dumps(shop)})
    later(database, timedelta(days=15))
    assert gone(sweep(database, by="test")) == {"inbox": 1}

    later(database, timedelta(days=5_000))
    assert "feedback" not in gone(sweep(database, by="test"))


def test_rows_are_taken_in_small_bites_however_many_there_are(
    database: Engine, key_ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BITE", 3)
    with database.begin() as connection:
        add_person(connection, key_ring, "ana")
        record_events(
            connection, key_ring, [Event(str(n), "ana", "seen", THEN, properties={"n": n}) for n in range(10)]
        )
        connection.execute(text("UPDATE event SET received_at = received_at - interval '2000 days' WHERE id <= 8"))

    assert gone(sweep(database, by="test")) == {"events": 8}
    assert gone(sweep(database, by="test")) == {}


def test_a_sweep_that_runs_out_of_time_goes_on_where_it_stopped(
    database: Engine, key_ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BITE", 3)
    monkeypatch.setattr(retention, "LONGEST_SECONDS", 0.0)
    with database.begin() as connection:
        add_person(connection, key_ring, "ana")
        record_events(connection, key_ring, [Event(str(n), "ana", "seen", THEN, properties={"n": n}) for n in range(7)])
    later(database, timedelta(days=5_000))

    swept = [sweep_if_due(database) for _ in range(4)]

    assert [one and gone(one).get("events", 0) for one in swept] == [3, 3, 1, None]
    assert value(database, "SELECT count(*) FROM event WHERE properties <> '{}'") == 0


def test_it_is_due_once_a_day(database: Engine, ana: int) -> None:
    assert sweep_if_due(database) is not None
    assert sweep_if_due(database) is None

    with database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE audit SET at = at - interval '25 hours' WHERE action = 'retention.swept'"))
    assert sweep_if_due(database) is not None


def test_the_report_is_in_the_audit(database: Engine, ana: int) -> None:
    later(database, timedelta(days=31))
    sweep(database, by="cli:root")

    with database.connect() as connection:
        row = connection.execute(text("SELECT actor, details FROM audit WHERE action = 'retention.swept'")).one()
    assert row.actor == "cli:root"
    assert row.details["complete"] is True
    assert row.details["rules"]["inbox"]["gone"] == 1


def test_two_sweeps_at_once_are_one(database: Engine, connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": retention._LOCK})

    with pytest.raises(Refused, match="at work already"):
        sweep(database, by="test")


def test_what_came_in_at_the_moment_of_an_erasure_goes_too(database: Engine, key_ring: KeyRing, ana: int) -> None:
    erase(database, key_ring, ana, by="test")
    _, wrapped = key_ring.new_data_key()
    with database.begin() as connection:
        connection.execute(
            text("""INSERT INTO feedback (source, event_key, address_id, occurred_at, received_at, data_key, sealed)
                    SELECT 'mail', 'k', address_id, clock_timestamp(), clock_timestamp(), :key, 'x'
                    FROM suppression WHERE reason = 'erasure'"""),
            {"key": wrapped},
        )

    assert gone(sweep(database, by="test")) == {"erased": 1}
