"""Reports beside authorisations, merges, unsubscribes and each other."""

from __future__ import annotations

import json
import threading
from typing import Any

from feedback_rows import EMAIL, HARD, SPAM, add_left, flaws, left, report, row_of, state_of, suppressions
from ledger_rows import add_contact, add_message, wait_until, waiting_for_a_lock
from sqlalchemy import Engine, text
from unsubscribing import consent_state, grant

from dispatcher import identity, locks, unsubscribe
from dispatcher.feedback import inbox
from dispatcher.feedback.recording import Tally, record
from dispatcher.feedback.report import Kind
from dispatcher.keys import KeyRing
from dispatcher.tokens import WayOut


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
