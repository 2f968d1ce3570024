"""Reports into the ledger: legal moves only, one row an event, and no order that matters."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from uuid import uuid4

import pytest
from feedback_rows import AT, EMAIL, HARD, SPAM, add_left, flaws, left, report, row_of, state_of, suppressions
from ledger_rows import add_contact, add_message
from sqlalchemy import Engine, text

from dispatcher.feedback.recording import NEVER_LEFT, NO_MESSAGE, TOO_LATE, record
from dispatcher.feedback.report import Kind
from dispatcher.keys import KeyRing


@pytest.mark.parametrize(
    ("start", "kind", "end"),
    [
        ("sent", Kind.DELIVERED, ("delivered", None)),
        ("sent", Kind.BOUNCED, ("bounced", None)),
        ("sent", Kind.DROPPED, ("bounced", "PROVIDER_DROPPED")),
        ("sent", Kind.OPENED, ("sent", None)),
        ("sent", Kind.DELAYED, ("sent", None)),
        ("sending", Kind.ACCEPTED, ("sent", None)),
        ("sending", Kind.DELIVERED, ("delivered", None)),
        ("unknown", Kind.ACCEPTED, ("sent", None)),
        ("unknown", Kind.DELAYED, ("sent", None)),
        ("unknown", Kind.CLICKED, ("sent", None)),
        ("unknown", Kind.DELIVERED, ("delivered", None)),
        ("unknown", Kind.BOUNCED, ("bounced", None)),
        ("failed", Kind.DELIVERED, ("delivered", None)),
        ("delivered", Kind.BOUNCED, ("bounced", None)),
        ("delivered", Kind.ACCEPTED, ("delivered", None)),
        ("bounced", Kind.DELIVERED, ("bounced", None)),
    ],
)
def test_a_report_moves_a_message(
    database: Engine, key_ring: KeyRing, start: str, kind: Kind, end: tuple[str, str | None]
) -> None:
    message_id = left(database, key_ring, status=start, reason="REJECTED" if start == "failed" else None)

    tally = record(database, key_ring, [report(message_id, kind)])

    assert state_of(database, message_id) == end
    assert (tally.recorded, tally.flawed) == (1, 0)
    assert row_of(database, message_id).settled_at is not None


STORY = [(Kind.ACCEPTED, {}), (Kind.DELIVERED, {}), (Kind.BOUNCED, HARD), (Kind.COMPLAINED, SPAM)]


@pytest.mark.parametrize("order", list(permutations(range(len(STORY)))))
def test_no_order_and_no_repetition_changes_the_end(
    database: Engine, key_ring: KeyRing, order: tuple[int, ...]
) -> None:
    message_id = left(database, key_ring, status="unknown")
    told = [report(message_id, STORY[n][0], identity=str(n), **STORY[n][1]) for n in order]  # type: ignore[arg-type]

    for one in (*told, told[0]):
        record(database, key_ring, [one])
    again = record(database, key_ring, [*told, *reversed(told)])

    assert state_of(database, message_id) == ("bounced", None)
    assert suppressions(database) == [("complaint", "marketing"), ("hard_bounce", "all")]
    assert (again.recorded, again.moved, again.known) == (0, 0, 8)
    assert flaws(database) == [None] * 4


def test_dropped_and_bounced_end_the_same_whichever_comes_first(database: Engine, key_ring: KeyRing) -> None:
    for kinds in ((Kind.DROPPED, Kind.BOUNCED), (Kind.BOUNCED, Kind.DROPPED)):
        name = str(uuid4())
        message_id = left(database, key_ring, external_id=name, email=f"{name}@people.example")
        for kind in kinds:
            record(database, key_ring, [report(message_id, kind, address=None)])
        assert state_of(database, message_id) == ("bounced", None)


def test_one_event_under_another_id_and_one_id_for_another_telling_are_both_known(
    database: Engine, key_ring: KeyRing
) -> None:
    message_id = left(database, key_ring)
    first = report(message_id, Kind.DELIVERED, identity="same", event_id="e1")

    record(database, key_ring, [first, report(message_id, Kind.DELIVERED, identity="same", event_id="e2")])
    tally = record(database, key_ring, [report(message_id, Kind.DELIVERED, identity="told again", event_id="e1")])

    assert (tally.recorded, tally.known) == (0, 1)
    assert len(flaws(database)) == 1


def test_a_page_with_everything_wrong_in_it_still_moves_its_neighbours(database: Engine, key_ring: KeyRing) -> None:
    message_id, other = left(database, key_ring), left(database, key_ring, external_id="c2", email="bo@people.example")
    page = [
        report(None, None, address=None, flaw="malformed: not an object", raw={"item": "\ud800"}),
        report(uuid4(), Kind.DELIVERED, address=None),
        report(message_id, Kind.DELIVERED, event_id="with\0nul", code="\0", raw={1: object()}),
        report(other, Kind.BOUNCED, address="somebody@else.example"),
        report(other, Kind.DELIVERED, address=None, occurred_at=AT + timedelta(days=10_000)),
    ]

    tally = record(database, key_ring, page)

    assert state_of(database, message_id) == ("delivered", None)
    assert state_of(database, other) == ("delivered", None)
    assert (tally.recorded, tally.flawed, tally.unmatched) == (5, 3, 1)
    assert sorted(filter(None, flaws(database))) == [
        "it went to another address", "malformed: not an object", NO_MESSAGE,
    ]  # fmt: skip
    with database.connect() as connection:
        assert connection.scalar(text("SELECT max(occurred_at) <= max(received_at) FROM feedback"))


def test_a_message_is_found_by_the_providers_id_and_its_address(database: Engine, key_ring: KeyRing) -> None:
    """One request carries many people, so the provider's id alone is not enough."""
    one = left(database, key_ring, ref="req1")
    two = left(database, key_ring, external_id="c2", email="bo@people.example", ref="req1")

    record(database, key_ring, [report(None, Kind.DELIVERED, provider_ref="req1", address="bo@people.example")])

    assert (state_of(database, one)[0], state_of(database, two)[0]) == ("sent", "delivered")


@pytest.mark.parametrize("status", ["pending", "skipped", "cancelled"])
def test_a_report_of_what_never_left_is_kept_and_moves_nothing(
    database: Engine, key_ring: KeyRing, status: str
) -> None:
    with database.begin() as connection:
        contact_id = add_contact(connection, key_ring, "c1", email=EMAIL)
        message_id = add_message(connection, contact_id, None, status=status)

    record(database, key_ring, [report(message_id, Kind.DELIVERED, address=None)])

    assert state_of(database, message_id)[0] == status
    assert flaws(database) == [NEVER_LEFT]


def test_after_three_days_doubt_stays_and_the_evidence_is_kept(database: Engine, key_ring: KeyRing) -> None:
    message_id = left(database, key_ring, status="unknown")
    with database.begin() as connection:
        connection.execute(text("UPDATE message SET settled_at = settled_at - interval '73 h'"))

    record(database, key_ring, [report(message_id, Kind.DELIVERED), report(message_id, Kind.BOUNCED, **HARD)])

    assert state_of(database, message_id) == ("unknown", None)
    assert flaws(database) == [TOO_LATE] * 2
    assert suppressions(database) == [("hard_bounce", "all")]


def test_a_failed_message_whose_place_was_taken_stays_failed(database: Engine, key_ring: KeyRing) -> None:
    failed = left(database, key_ring, status="failed", reason="REJECTED")
    run_id = row_of(database, failed).run_id
    with database.begin() as connection:
        other = add_contact(connection, key_ring, "c2", email=EMAIL)
        add_left(connection, key_ring, contact_id=other, run_id=run_id)

    record(database, key_ring, [report(failed, Kind.DELIVERED)])

    assert state_of(database, failed) == ("failed", "REJECTED")
    assert flaws(database) == ["another message took its place"]
