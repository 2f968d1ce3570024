"""Reports into the ledger: legal moves only, one row an event, suppressions with it, and no order that matters."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import pytest
from feedback_rows import AT, EMAIL, HARD, PHONE, SPAM, add_left, flaws, report, row_of, state_of, suppressions
from ledger_rows import add_contact, add_message, wait_until
from sqlalchemy import Engine, text
from unsubscribing import consent_state, grant, waiting_for_a_lock

from dispatcher import clock, identity, locks, unsubscribe
from dispatcher.feedback import inbox
from dispatcher.feedback.recording import NEVER_LEFT, NO_MESSAGE, SOFT_BOUNCES, TOO_LATE, Tally, record
from dispatcher.feedback.report import Kind
from dispatcher.keys import KeyRing
from dispatcher.providers.protocol import Accepted, Moment, NotSent, boot_seconds
from dispatcher.settle import settle
from dispatcher.tokens import WayOut
from dispatcher.verify import INVARIANTS, look_at
from dispatcher.verify.report import examine


def left(database: Engine, key_ring: KeyRing, **how: Any) -> UUID:
    with database.begin() as connection:
        return add_left(connection, key_ring, **how)


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


def test_late_proof_of_a_first_try_takes_back_the_second(database: Engine, key_ring: KeyRing) -> None:
    message_id = left(database, key_ring, status="unknown", class_="transactional", ref="req1")
    before = row_of(database, message_id)
    send_again(database, message_id)

    record(database, key_ring, [report(message_id, Kind.DELIVERED)])

    after = row_of(database, message_id)
    assert (after.status, after.provider_ref) == ("delivered", "req1")
    kept = ("authorised_at", "authorise_seq", "send_deadline", "handed_over_at", "provider", "attempts")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM attempt")) == 0


def test_late_proof_of_a_first_try_is_not_written_at_a_second_that_never_left(
    database: Engine, key_ring: KeyRing
) -> None:
    message_id = left(database, key_ring, status="unknown", class_="transactional", ref="req1")
    before = row_of(database, message_id)
    send_again(database, message_id)
    with database.begin() as connection:
        worker, moment = uuid4(), Moment(clock.read_now(connection), boot_seconds())
        connection.execute(
            text("""UPDATE message SET status = 'sending', authorised_at = :at, authorise_seq = nextval('order_seq'),
                           send_deadline = :at, worker_id = :worker, provider = 'sendgrid', attempts = attempts + 1"""),
            {"at": moment.at, "worker": worker},
        )
    settle(database, worker, [message_id], [NotSent("no connection", unreachable=True)], moment)

    record(database, key_ring, [report(message_id, Kind.DELIVERED)])

    after = row_of(database, message_id)
    assert (after.status, after.provider_ref, after.attempts) == ("delivered", "req1", 2)
    kept = ("authorised_at", "authorise_seq", "send_deadline", "handed_over_at", "provider")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    with database.connect() as connection:
        assert connection.execute(text("SELECT number, outcome FROM attempt")).all() == [(2, "not_sent")]
        [proof] = [invariant for invariant in INVARIANTS if invariant.name == "INV-13"]
        assert examine(proof, look_at(connection, key_ring, None, lambda _: None)).findings == ()


def send_again(database: Engine, message_id: UUID) -> None:
    from dispatcher.doubt import settle_doubt

    with database.begin() as connection:
        connection.execute(text("UPDATE message SET settled_at = settled_at - interval '11 min'"))
    assert settle_doubt(database, []) == (0, 1)
    assert state_of(database, message_id) == ("pending", None)


def in_thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_hard_bounce_waits_for_who_is_being_authorised_and_comes_after(database: Engine, key_ring: KeyRing) -> None:
    message_id = left(database, key_ring)
    row = row_of(database, message_id)
    with database.connect() as authorising:
        with authorising.begin():
            locks.lock_contacts(authorising, [row.contact_id])
            locks.lock_addresses(authorising, [row.address_id])
            seq = authorising.scalar(text("SELECT nextval('order_seq')"))
            thread = in_thread(lambda: record(database, key_ring, [report(message_id, Kind.BOUNCED, **HARD)]))
            wait_until(lambda: waiting_for_a_lock(database))
            assert suppressions(database) == []
        thread.join(timeout=20)

    with database.connect() as connection:
        assert connection.scalar(text("SELECT order_seq FROM suppression")) > seq


def test_a_complaint_during_a_merge_reaches_the_survivor(database: Engine, key_ring: KeyRing) -> None:
    with database.begin() as connection:
        survivor = add_contact(connection, key_ring, "c0", email=EMAIL)
        loser = add_contact(connection, key_ring, "c1", email=EMAIL)
        message_id = add_left(connection, key_ring, contact_id=loser)
        address_id = connection.scalar(text("SELECT email_address_id FROM contact WHERE id = :id"), {"id": loser})
        pending = add_message(connection, loser, address_id)
    with database.connect() as merging:
        with merging.begin():
            identity.merge(merging, key_ring, survivor, loser)
            thread = in_thread(lambda: record(database, key_ring, [report(message_id, Kind.COMPLAINED, **SPAM)]))
            wait_until(lambda: waiting_for_a_lock(database))
        thread.join(timeout=20)

    assert suppressions(database) == [("complaint", "marketing")]
    assert row_of(database, pending).contact_id == survivor
    assert state_of(database, pending) == ("skipped", "SUPPRESSED")


def test_a_bounce_during_an_unsubscribe_comes_after_it_and_both_stand(database: Engine, key_ring: KeyRing) -> None:
    message_id = left(database, key_ring)
    row = row_of(database, message_id)
    with database.begin() as connection:
        grant(connection, key_ring, row.contact_id, row.address_id)
        order = add_message(connection, row.contact_id, row.address_id, class_="transactional", topic=None)
    way_out = WayOut(row.contact_id, "email", "offers", row.address_id)
    with database.connect() as somebody:  # holds the person, so that both wait and then race
        with somebody.begin():
            locks.lock_contacts(somebody, [row.contact_id])
            clicks = [
                in_thread(lambda: unsubscribe.withdraw(database, key_ring, way_out, source="test")) for _ in range(3)
            ]
            bounces = [
                in_thread(lambda: record(database, key_ring, [report(message_id, Kind.BOUNCED, **HARD)]))
                for _ in range(3)
            ]
            wait_until(lambda: waiting_for_a_lock(database))
        for thread in (*clicks, *bounces):
            thread.join(timeout=30)
            assert not thread.is_alive()

    assert consent_state(database, row.contact_id) == "withdrawn"
    assert suppressions(database) == [("hard_bounce", "all")]
    assert state_of(database, message_id) == ("bounced", None)
    assert state_of(database, order) == ("skipped", "SUPPRESSED")


def test_a_receipt_that_feedback_overtook_still_says_when_the_first_byte_left(
    database: Engine, key_ring: KeyRing
) -> None:
    message_id, worker = left(database, key_ring, status="sending"), uuid4()
    with database.begin() as connection:
        connection.execute(text("UPDATE message SET worker_id = :worker"), {"worker": worker})
    record(database, key_ring, [report(message_id, Kind.DELIVERED)])
    assert row_of(database, message_id).handed_over_at is None

    moment = Moment(row_of(database, message_id).authorised_at, boot_seconds())
    settle(database, worker, [message_id], [Accepted("their id", moment.boot + 1)], moment)

    row = row_of(database, message_id)
    assert (row.status, row.provider_ref) == ("delivered", "their id")
    assert row.handed_over_at == moment.at + timedelta(seconds=1)


def test_two_sorters_at_once_sort_each_request_once(database: Engine, key_ring: KeyRing) -> None:
    message_id = left(database, key_ring)
    with database.begin() as connection:
        for number in range(40):
            event = {"event": "open", "dispatcher_message_id": str(message_id), "sg_event_id": f"e{number}",
                     "timestamp": 1_700_000_000 + number}  # fmt: skip
            inbox.store(connection, key_ring, "sendgrid", json.dumps([event, event]).encode())
    tallies: list[Tally] = []
    threads = [in_thread(lambda: tallies.append(inbox.sort_all(database, key_ring, lambda *_: None))) for _ in range(3)]
    for thread in threads:
        thread.join(timeout=60)

    assert sum(tally.recorded for tally in tallies) == len(flaws(database)) == 40
    with database.connect() as connection:
        assert inbox.waiting(connection) == (0, 0)


def test_many_tellers_at_once_record_each_event_once(database: Engine, key_ring: KeyRing) -> None:
    messages = [
        left(database, key_ring, external_id=f"c{n}", email=f"c{n}@people.example", status="unknown") for n in range(8)
    ]
    told = [
        report(message_id, kind, identity=f"{kind} {message_id}", address=None, **more)
        for message_id in messages
        for kind, more in ((Kind.DELIVERED, {}), (Kind.BOUNCED, {"hard": False}), (Kind.COMPLAINED, SPAM))
    ]
    threads = [in_thread(lambda n=n: record(database, key_ring, told[n::2] + told[::-1])) for n in range(4)]
    for thread in threads:
        thread.join(timeout=60)

    assert len(flaws(database)) == len(told)
    assert {state_of(database, message_id) for message_id in messages} == {("bounced", None)}
    assert suppressions(database) == [("complaint", "marketing")] * len(messages)


def test_a_number_that_told_the_provider_to_stop_is_stopped(database: Engine, key_ring: KeyRing) -> None:
    message_id = left(database, key_ring, channel="sms", phone=PHONE)

    record(database, key_ring, [report(message_id, Kind.DROPPED, channel="sms", address=PHONE, suppress="stop")])

    assert state_of(database, message_id) == ("bounced", "PROVIDER_DROPPED")
    assert suppressions(database) == [("stop", "all")]
