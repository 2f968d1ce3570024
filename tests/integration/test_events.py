"""Recording events: once by key, for whoever the contact is by now."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Connection, Engine, text

from dispatcher.clock import read_now
from dispatcher.events import Event, Item, Recorded, record_events
from dispatcher.interests import recompute
from dispatcher.keys import KeyRing

AT = datetime(2011, 12, 1, 8, 26, tzinfo=UTC)
ORDER = Event(
    source_key="536365",
    contact="17850",
    name="order.placed",
    occurred_at=AT,
    value=Decimal("15.3"),
    properties={"basket": "b1"},
    items=(Item(("christmas",), Decimal(6), Decimal("15.3"), {"product": "85123A"}), Item()),
)


def count(connection: Connection, table: str) -> int:
    found: int = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
    return found


def test_an_event_is_kept_as_it_was_told(connection: Connection, key_ring: KeyRing) -> None:
    recorded = record_events(connection, key_ring, [ORDER])

    assert recorded == Recorded(new=1, same=0, refused=(), items=2, contacts_created=1)
    event = connection.execute(text("SELECT * FROM event")).one()
    assert (event.source, event.source_key, event.name) == ("shop", "536365", "order.placed")
    assert (event.occurred_at, event.value, event.properties) == (AT, Decimal("15.3"), {"basket": "b1"})
    items = connection.execute(text("SELECT * FROM event_item ORDER BY position")).all()
    assert [(item.interests, item.quantity, item.value, item.properties) for item in items] == [
        (["christmas"], Decimal(6), Decimal("15.3"), {"product": "85123A"}),
        ([], Decimal(1), Decimal(0), {}),
    ]


def test_an_event_arrives_when_the_engine_says_so(connection: Connection, key_ring: KeyRing) -> None:
    connection.execute(text("UPDATE engine SET clock_offset = interval '3 days'"))
    before = read_now(connection)

    record_events(connection, key_ring, [ORDER])

    received_at = connection.execute(text("SELECT received_at FROM event")).scalar_one()
    assert before <= received_at <= read_now(connection)


def test_the_same_event_again_changes_nothing(connection: Connection, key_ring: KeyRing) -> None:
    record_events(connection, key_ring, [ORDER])
    tables = text("SELECT id, xmin::text FROM event UNION ALL SELECT contact_id, xmin::text || log2_mass FROM interest")
    before = connection.execute(tables).all()

    again = record_events(connection, key_ring, [ORDER, replace(ORDER, items=ORDER.items[::-1])])

    assert again == Recorded(new=0, same=2, refused=(), items=0, contacts_created=0)
    assert connection.execute(tables).all() == before


def test_the_same_key_with_another_body_is_refused_and_listed(connection: Connection, key_ring: KeyRing) -> None:
    record_events(connection, key_ring, [ORDER])
    other = replace(ORDER, value=Decimal(16), line=7)

    recorded = record_events(connection, key_ring, [other, replace(ORDER, source_key="2")])

    assert recorded.new == 1
    assert [(refusal.event.line, refusal.reason) for refusal in recorded.refused] == [
        (7, "source_key 536365 is already recorded with another body")
    ]
    assert connection.execute(text("SELECT value FROM event WHERE source_key = '536365'")).scalar_one() == Decimal(
        "15.3"
    )


def test_within_one_call_the_first_of_a_key_counts(connection: Connection, key_ring: KeyRing) -> None:
    other = replace(ORDER, contact="17851")

    recorded = record_events(connection, key_ring, [ORDER, other, ORDER])

    assert (recorded.new, recorded.same, len(recorded.refused)) == (1, 1, 1)
    assert count(connection, "event_item") == 2


def test_the_same_key_of_another_source_is_another_event(connection: Connection, key_ring: KeyRing) -> None:
    recorded = record_events(connection, key_ring, [ORDER, replace(ORDER, source="till")])

    assert recorded.new == 2


def test_an_event_goes_to_whom_the_contact_was_merged_into(connection: Connection, key_ring: KeyRing) -> None:
    record_events(
        connection, key_ring, [replace(ORDER, contact=str(number), source_key=f"k{number}") for number in (1, 2, 3)]
    )
    ids = connection.execute(text("SELECT contact_id FROM contact_alias ORDER BY external_id")).scalars().all()
    merge = text("UPDATE contact SET merged_into = :survivor WHERE id = :loser")
    connection.execute(merge, {"loser": ids[2], "survivor": ids[1]})
    connection.execute(merge, {"loser": ids[1], "survivor": ids[0]})

    record_events(connection, key_ring, [replace(ORDER, contact="3")])

    assert connection.execute(text("SELECT contact_id FROM event WHERE source_key = '536365'")).scalar_one() == ids[0]


def test_an_event_of_an_erased_contact_is_refused(connection: Connection, key_ring: KeyRing) -> None:
    record_events(connection, key_ring, [ORDER])
    connection.execute(text("UPDATE contact SET erased_at = clock_timestamp(), data_key = NULL"))

    recorded = record_events(
        connection, key_ring, [replace(ORDER, source_key="2"), replace(ORDER, contact="3", source_key="3")]
    )

    assert recorded.new == 1
    assert [refusal.reason for refusal in recorded.refused] == ["contact 17850 was erased"]


def test_nothing_to_record_is_no_error(connection: Connection, key_ring: KeyRing) -> None:
    assert record_events(connection, key_ring, []) == Recorded(0, 0, (), 0, 0)


@pytest.mark.parametrize("way", [1, -1])
def test_two_writers_of_the_same_events_record_each_once(database: Engine, key_ring: KeyRing, way: int) -> None:
    events = [
        replace(ORDER, contact=str(number % 7), source_key=str(number), occurred_at=AT + timedelta(hours=number))
        for number in range(60)
    ]

    def record(given: list[Event]) -> Recorded:
        with database.begin() as connection:
            return record_events(connection, key_ring, given)

    with ThreadPoolExecutor(2) as writers:
        one, other = writers.map(record, [events, events[::way]])

    assert one.new + other.new == len(events)
    assert one.same + other.same == len(events)
    assert not one.refused
    assert not other.refused
    with database.connect() as connection:
        assert count(connection, "event_item") == 2 * len(events)
        masses = connection.execute(text("SELECT contact_id, name, log2_mass FROM interest ORDER BY 1, 2")).all()
        recompute(connection, timedelta(days=90))
        again = connection.execute(text("SELECT contact_id, name, log2_mass FROM interest ORDER BY 1, 2")).all()
    assert [row.log2_mass for row in masses] == pytest.approx([row.log2_mass for row in again], rel=1e-12)
