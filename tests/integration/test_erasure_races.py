"""Erasure against everybody else who is at work at the same moment, and killed in the middle of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from at_work import AtWork, noon_ahead
from ledger_rows import wait_until
from people import add_person
from small_workspace import FILES
from sqlalchemy import Engine, text

from dispatcher import audit_chain, identity
from dispatcher.contacts import Particulars, save_contacts
from dispatcher.events import Event, record_events
from dispatcher.keys import KeyRing
from dispatcher.providers.sandbox import Sandbox
from dispatcher.rights import erase, erasure_state, finish_erasures, request_erasure
from dispatcher.sending import send_batch
from dispatcher.verify import verify

CROWD = 40


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> AtWork:
    return AtWork(database, key_ring, tmp_path / "home", FILES, starts=noon_ahead())


def holds(shop: AtWork) -> None:
    """Every invariant holds, and the provider's log agrees."""
    audit_chain.link_new(shop.database)
    log = shop.home / "sandbox" / "outbox.jsonl"
    with shop.database.connect() as connection:
        report = verify(connection, shop.key_ring, log if log.exists() else None)
    assert report.ok, [result for result in report.results if result.status == "broken"]


def readable(database: Engine) -> int:
    with database.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM contact WHERE data_key IS NOT NULL")).scalar_one())


def test_a_worker_sends_before_the_erasure_or_not_at_all(shop: AtWork, monkeypatch: pytest.MonkeyPatch) -> None:
    """People are erased while their batch is being sent, some of them before their slice and some behind it."""
    with shop.database.begin() as connection:
        people = [add_person(connection, shop.key_ring, f"p{number:02}") for number in range(CROWD)]
    monkeypatch.setattr(Sandbox, "slice_size", 1)
    run_id = shop.plan(shop.start("hello"))
    batches = shop.release()
    started = threading.Barrier(2)

    def send() -> None:
        started.wait()
        for batch_id in batches:
            send_batch(shop.hands, batch_id)

    with ThreadPoolExecutor(5) as pool:
        sending = pool.submit(send)
        started.wait()
        erasing = [pool.submit(erase, shop.database, shop.key_ring, one, by="test") for one in people]
        states = [future.result() for future in erasing]
        sending.result()
    finish_erasures(shop.database, shop.key_ring)
    shop.send()

    assert readable(shop.database) == 0
    assert set(shop.became(run_id)) <= {"sent", "SUPPRESSED", "NO_ADDRESS"}
    with shop.database.connect() as connection:
        late = connection.scalar(
            text("""SELECT count(*) FROM message m JOIN erasure e ON e.contact_id = m.contact_id
                    WHERE m.handed_over_at > e.done_at OR m.authorise_seq > e.order_seq""")
        )
    assert late == 0
    assert len(states) == CROWD
    holds(shop)


def test_who_is_erased_between_plan_and_send_gets_nothing(shop: AtWork) -> None:
    with shop.database.begin() as connection:
        gone, stays = (add_person(connection, shop.key_ring, name) for name in ("gone", "stays"))
    run_id = shop.plan(shop.start("hello"))

    erase(shop.database, shop.key_ring, gone, by="test")
    shop.send()

    assert shop.became(run_id) == {"SUPPRESSED": 1, "sent": 1}
    assert shop.sent() == {("stays", "hello")}
    assert stays != gone
    holds(shop)


def test_who_is_erased_before_the_plan_of_a_frozen_audience_is_a_row_all_the_same(shop: AtWork) -> None:
    with shop.database.begin() as connection:
        gone = add_person(connection, shop.key_ring, "gone")
    run_id = shop.start("hello")

    erase(shop.database, shop.key_ring, gone, by="test")
    shop.plan(run_id)
    shop.send()

    assert shop.became(run_id) == {"NO_ADDRESS": 1}
    holds(shop)


def test_merges_imports_and_events_of_the_same_people_leave_nobody_half_erased(
    database: Engine, key_ring: KeyRing
) -> None:
    with database.begin() as connection:
        pairs = [
            (add_person(connection, key_ring, f"a{n}"), add_person(connection, key_ring, f"b{n}")) for n in range(8)
        ]

    def merge(number: int) -> None:
        with database.begin() as connection:
            identity.merge(connection, key_ring, *pairs[number])

    def save(number: int) -> None:
        given = [Particulars(f"{letter}{number}", email=f"{letter}{number}@people.example", first_name="Zora")
                 for letter in "ab"]  # fmt: skip
        with database.begin() as connection:
            save_contacts(connection, key_ring, given)

    def order(number: int) -> None:
        event = Event(f"e{number}", f"b{number}", "order.placed", datetime.fromisoformat("2026-01-01T00:00:00Z"))
        with database.begin() as connection:
            record_events(connection, key_ring, [event])

    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(work, number) for number in range(8) for work in (merge, save, order)]
        erasing = [pool.submit(erase, database, key_ring, pair[1], by="test") for pair in pairs]
        assert {future.result().state for future in erasing} == {"done"}
        for future in others:
            future.exception()  # a merge that came too late is refused

    with database.connect() as connection:
        half_erased = connection.scalar(
            text("""SELECT count(*) FROM contact c JOIN erasure e ON e.contact_id IN (c.id, c.merged_into)
                    WHERE c.data_key IS NOT NULL OR c.erased_at IS NULL OR c.attributes <> '{}'""")
        )
        assert half_erased == 0
        assert all(erasure_state(connection, loser) for _, loser in pairs)


def test_one_that_is_killed_in_the_middle_is_undone_and_done_again(database: Engine, key_ring: KeyRing) -> None:
    with database.begin() as connection:
        ana = add_person(connection, key_ring, "ana")
        event = Event("1", "ana", "order.placed", datetime.fromisoformat("2026-01-01T00:00:00Z"), properties={"a": 1})
        record_events(connection, key_ring, [event])
        request_erasure(connection, key_ring, ana, by="test")

    with ThreadPoolExecutor(1) as pool, database.connect() as blocking:
        blocking.execute(text("SELECT FROM event FOR UPDATE"))  # the destruction comes this far and waits
        finishing = pool.submit(finish_erasures, database, key_ring)
        wait_until(lambda: _waiting_for_a_lock(database) is not None)
        with database.begin() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": _waiting_for_a_lock(database)})
        assert finishing.result() == 0

    with database.connect() as connection:
        state = erasure_state(connection, ana)
        assert state is not None
        assert state.state == "in progress"
    assert readable(database) == 1

    assert finish_erasures(database, key_ring) == 1
    assert readable(database) == 0


def _waiting_for_a_lock(database: Engine) -> int | None:
    with database.connect() as connection:
        found: int | None = connection.scalar(
            text("""SELECT pid FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock' LIMIT 1""")
        )
        return found
