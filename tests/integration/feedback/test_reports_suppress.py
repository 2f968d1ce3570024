"""Bounces, complaints and stops end an address; soft bounces only many in a row."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from feedback_rows import AT, EMAIL, HARD, PHONE, SPAM, add_left, left, report, row_of, state_of, suppressions
from ledger_rows import add_contact, add_message
from sqlalchemy import Engine, text

from dispatcher.feedback.recording import SOFT_BOUNCES, record
from dispatcher.feedback.report import Kind
from dispatcher.keys import KeyRing


@pytest.mark.parametrize(
    ("more", "suppressed", "skipped"),
    [
        (HARD, ("hard_bounce", "all"), {"marketing", "transactional"}),
        ({"suppress": "invalid"}, ("invalid", "all"), {"marketing", "transactional"}),
        (SPAM, ("complaint", "marketing"), {"marketing"}),
        ({"suppress": "unsubscribe"}, ("unsubscribe", "marketing"), {"marketing"}),
    ],
)
def test_what_suppresses_skips_what_is_pending_in_its_scope(
    database: Engine, key_ring: KeyRing, more: dict[str, Any], suppressed: tuple[str, str], skipped: set[str]
) -> None:
    message_id = left(database, key_ring)
    row = row_of(database, message_id)
    with database.begin() as connection:
        waiting = {
            class_: add_message(connection, row.contact_id, row.address_id, class_=class_)
            for class_ in ("marketing", "transactional")
        }

    record(database, key_ring, [report(message_id, Kind.BOUNCED, **more)])

    assert suppressions(database) == [suppressed]
    for class_, pending in waiting.items():
        expected = ("skipped", "SUPPRESSED") if class_ in skipped else ("pending", None)
        assert state_of(database, pending) == expected


def test_an_address_without_a_message_is_suppressed_all_the_same(database: Engine, key_ring: KeyRing) -> None:
    record(database, key_ring, [report(None, Kind.COMPLAINED, address="new@people.example", **SPAM)])

    assert suppressions(database) == [("complaint", "marketing")]
    with database.connect() as connection:
        assert connection.scalar(text("SELECT hash FROM address")) == key_ring.address_hash(
            "email", "new@people.example"
        )


def bounce_softly(database: Engine, key_ring: KeyRing, times: int, *, over: timedelta, begin: int = 0) -> None:
    with database.begin() as connection:
        contact_id = connection.scalar(text("SELECT id FROM contact")) or add_contact(
            connection, key_ring, "c1", email=EMAIL
        )
        messages = [add_left(connection, key_ring, contact_id=contact_id) for _ in range(times)]
    for number, message_id in enumerate(messages):
        at = AT + timedelta(days=begin) + over * number / max(times - 1, 1)
        record(database, key_ring, [report(message_id, Kind.BOUNCED, hard=False, code="5.2.2", occurred_at=at)])


def test_soft_bounces_end_an_address_only_many_in_a_row_over_a_week(database: Engine, key_ring: KeyRing) -> None:
    bounce_softly(database, key_ring, SOFT_BOUNCES - 1, over=timedelta(days=20))
    assert suppressions(database) == []

    bounce_softly(database, key_ring, 1, over=timedelta(0), begin=21)
    assert suppressions(database) == [("hard_bounce", "all")]


def test_a_delivery_starts_the_row_of_soft_bounces_anew(database: Engine, key_ring: KeyRing) -> None:
    bounce_softly(database, key_ring, SOFT_BOUNCES - 1, over=timedelta(days=8))
    with database.begin() as connection:
        contact_id = connection.scalar(text("SELECT id FROM contact"))
        message_id = add_left(connection, key_ring, contact_id=contact_id)
    record(database, key_ring, [report(message_id, Kind.DELIVERED, occurred_at=AT + timedelta(days=9))])

    bounce_softly(database, key_ring, SOFT_BOUNCES - 1, over=timedelta(days=8), begin=10)
    assert suppressions(database) == []


def test_many_soft_bounces_on_one_bad_day_end_nothing(database: Engine, key_ring: KeyRing) -> None:
    bounce_softly(database, key_ring, SOFT_BOUNCES + 2, over=timedelta(hours=5))

    assert suppressions(database) == []


def test_an_event_is_sealed_under_the_persons_key_and_gone_with_it(database: Engine, key_ring: KeyRing) -> None:
    message_id = left(database, key_ring)
    record(database, key_ring, [report(message_id, Kind.OPENED, raw={"ip": "192.0.2.7"}),
                                report(None, Kind.OPENED, address=None, raw={"ip": "192.0.2.8"})])  # fmt: skip
    with database.begin() as connection:
        known, stranger = connection.execute(text("SELECT data_key, sealed FROM feedback ORDER BY id")).all()
        theirs = connection.scalar(text("SELECT data_key FROM contact"))
        connection.execute(text("UPDATE contact SET data_key = NULL, sealed = NULL"))

    assert known.data_key is None
    assert key_ring.open_data_key(theirs).open(known.sealed) == {"event": {"ip": "192.0.2.7"}}
    assert key_ring.open_data_key(stranger.data_key).open(stranger.sealed) == {"event": {"ip": "192.0.2.8"}}

    record(database, key_ring, [report(message_id, Kind.CLICKED, raw={"ip": "192.0.2.9"})])
    with database.connect() as connection:
        assert connection.scalar(text("SELECT sealed IS NULL FROM feedback WHERE kind = 'clicked'"))


def test_a_number_that_told_the_provider_to_stop_is_stopped(database: Engine, key_ring: KeyRing) -> None:
    message_id = left(database, key_ring, channel="sms", phone=PHONE)

    record(database, key_ring, [report(message_id, Kind.DROPPED, channel="sms", address=PHONE, suppress="stop")])

    assert state_of(database, message_id) == ("bounced", "PROVIDER_DROPPED")
    assert suppressions(database) == [("stop", "all")]
