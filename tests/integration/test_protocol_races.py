"""Interleavings that would lose mail, double it or stand still, each forced."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from people import add_person, say
from small_workspace import FILES, write_workspace
from sqlalchemy import Connection, Engine, text

from dispatcher import authorise as authorising
from dispatcher import clock, identity, locks, messages, release, rescue, runs, sending
from dispatcher.apply import apply
from dispatcher.authorise import Candidate, Claim
from dispatcher.contacts import Particulars, save_contacts
from dispatcher.errors import NotFound, Refused
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page, plan_round
from dispatcher.providers.protocol import Envelope, Moment, NotSent, Receipt
from dispatcher.providers.sandbox import Sandbox
from dispatcher.rates import accounts, taking
from dispatcher.registration import Registration, prove, register, this_host, unregister
from dispatcher.rendering import Sender
from dispatcher.schedules import fire_due
from dispatcher.sending import Hands, send_batch
from dispatcher.settle import settle
from dispatcher.workspace import read_workspace

PEOPLE = 6
SANDBOX = taking.Offer("sandbox", Sandbox.slice_size)
IMPORTANT = FILES["campaigns/hello.yaml"].replace("hello", "important") + "priority: 90\nexpires_after: 2h\n"


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Engine:
    """Six people who agreed, and campaigns for all of them; one mail a day at most."""
    more = {
        "campaigns/again.yaml": FILES["campaigns/hello.yaml"].replace("hello", "again"),
        "campaigns/important.yaml": IMPORTANT,
    }
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", more)), by="test")
        for number in range(PEOPLE):
            add_person(connection, key_ring, f"p{number}")
    return database


@pytest.fixture
def worker(shop: Engine, tmp_path: Path) -> Registration:
    return register(shop, tmp_path, kind="marketing", queues=["email.marketing", "email.transactional"], slots=2)


@pytest.fixture
def hands(shop: Engine, key_ring: KeyRing, worker: Registration, tmp_path: Path) -> Hands:
    sandbox = Sandbox(tmp_path / "sandbox", "email")
    return Hands(
        shop, Sender(key_ring, "https://shop.example"), {"email": sandbox}, worker.worker_id, threading.Event()
    )


def started(database: Engine, name: str = "hello") -> UUID:
    with database.begin() as connection:
        run_id = runs.start(connection, name, started_by="test", again=True)
    while plan_page(database, run_id):
        pass
    return run_id


def send_all(hands: Hands) -> None:
    release.release(hands.database)
    for batch_id in ready(hands.database):
        send_batch(hands, batch_id)


def ready(database: Engine) -> list[int]:
    with database.connect() as connection:
        return list(connection.scalars(text("SELECT id FROM batch WHERE state = 'ready' ORDER BY id")))


def statuses(database: Engine, run_id: UUID | None = None) -> dict[str, int]:
    with database.connect() as connection:
        rows = connection.execute(
            text("""SELECT COALESCE(reason, deferred_reason, status), count(*) FROM message
                    WHERE CAST(:run AS uuid) IS NULL OR run_id = :run GROUP BY 1"""),
            {"run": run_id},
        )
        return {row[0]: row[1] for row in rows}


def contact(connection: Connection, external_id: str) -> int:
    return int(
        connection.scalar(text("SELECT contact_id FROM contact_alias WHERE external_id = :x"), {"x": external_id})
    )


def before_authorise(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Let something happen once, after a batch was rendered and before its first slice is authorised."""
    authorise = sending.authorise
    pending = [happens]

    def meddled(*args: Any, **kwargs: Any) -> Any:
        if pending:
            pending.pop()()
        return authorise(*args, **kwargs)

    monkeypatch.setattr(sending, "authorise", meddled)


def test_one_contact_whose_data_cannot_be_opened_holds_nobody_up(hands: Hands) -> None:
    started(hands.database)
    with hands.database.begin() as connection:  # a torn backup, a flipped bit
        connection.execute(text("UPDATE contact SET sealed = 'not what was sealed' WHERE external_id = 'p2'"))
    send_all(hands)

    assert statuses(hands.database) == {"sent": PEOPLE - 1, "RENDER_FAILED": 1}


def test_an_order_confirmation_survives_a_merge_between_rendering_and_authorising(
    hands: Hands, key_ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hands.database.begin() as connection:
        wish = messages.Wish("order", "email", "p1", {})
        messages.submit(connection, key_ring, wish, client="shop", idempotency_key="order-1")

    def merge() -> None:
        with hands.database.begin() as connection:
            identity.merge(connection, key_ring, contact(connection, "p0"), contact(connection, "p1"))

    before_authorise(monkeypatch, merge)
    send_all(hands)
    send_all(hands)

    assert statuses(hands.database) == {"sent": 1}


@pytest.fixture
def endless_slices(shop: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[UUID]:
    """A run for which at every moment one worker or another is in the middle of authorising a slice."""
    run_id = started(shop)
    with shop.connect() as connection:
        message = connection.execute(text("SELECT * FROM message ORDER BY contact_id LIMIT 1")).one()
    slice_ = [Candidate(message.id, message.contact_id, 0, message.expires_at, message.first_due_at)]
    claim = Claim(message.batch_id, 99, run_id, "email.marketing", uuid4())  # fenced off: nothing leaves
    enough = threading.Event()

    def take(*_: Any, **__: Any) -> taking.Taken:
        enough.wait(0.2)
        return taking.Taken(accounts.Account("sandbox"), going={message.id: 1})

    monkeypatch.setattr(authorising, "taking", SimpleNamespace(take=take))
    monkeypatch.setattr(authorising, "lock_contacts", lambda *_: None)  # each its own contacts, as in a large run
    monkeypatch.setattr(authorising, "lock_addresses", lambda *_: None)

    def work() -> None:
        while not enough.is_set():
            authorising.authorise(shop, claim, slice_, offers=[SANDBOX], urgent=False)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for each in workers:
        each.start()
        enough.wait(0.04)
    yield run_id
    enough.set()
    for each in workers:
        each.join()


def test_a_pause_does_not_wait_for_slices_that_never_stop_coming(shop: Engine, endless_slices: UUID) -> None:
    with shop.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = '3s'"))
        runs.pause(connection, endless_slices, by="test")


def test_stop_all_does_not_wait_for_slices_that_never_stop_coming(shop: Engine, endless_slices: UUID) -> None:
    with shop.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = '3s'"))
        runs.stop_all(connection, by="test")


def test_who_holds_the_row_of_the_engine_holds_up_no_order_confirmation(hands: Hands, key_ring: KeyRing) -> None:
    with hands.database.begin() as connection:
        wish = messages.Wish("order", "email", "p1", {})
        messages.submit(connection, key_ring, wish, client="shop", idempotency_key="order-1")
    [ticket] = release.release(hands.database)
    with hands.database.begin() as applying:  # a long one: new half-life, every score afresh
        applying.execute(text("SELECT shop FROM engine FOR UPDATE"))
        sender = threading.Thread(target=send_batch, args=(hands, ticket.batch_id), daemon=True)
        sender.start()
        sender.join(5)
        waiting = sender.is_alive()
    sender.join()

    assert not waiting
    assert statuses(hands.database) == {"sent": 1}


def test_what_a_vanished_host_had_not_begun_goes_on_when_its_lease_is_over(hands: Hands, tmp_path: Path) -> None:
    started(hands.database)
    vanished = register(hands.database, tmp_path, kind="marketing", queues=["email.marketing"], slots=2)
    with hands.database.begin() as connection:
        connection.execute(
            text("UPDATE worker SET host = 'elsewhere/its-boot' WHERE id = :id"), {"id": vanished.worker_id}
        )
        connection.execute(
            text("""UPDATE batch SET state = 'claimed', claim_token = 1, worker_id = :worker,
                           lease_until = clock_timestamp() + interval '1 min'"""),
            {"worker": vanished.worker_id},
        )
        connection.execute(
            text("""UPDATE message SET status = 'sending', worker_id = :worker, authorised_at = clock_timestamp()
                    WHERE id = (SELECT id FROM message ORDER BY contact_id LIMIT 1)"""),
            {"worker": vanished.worker_id},
        )
    rescue.rescue(hands.database)
    send_all(hands)
    assert statuses(hands.database) == {"sending": 1, "pending": PEOPLE - 1}  # it may only be slow

    with hands.database.begin() as connection:
        connection.execute(text("UPDATE batch SET lease_until = clock_timestamp() - interval '2 min'"))
    rescue.rescue(hands.database)
    send_all(hands)
    assert statuses(hands.database) == {"sending": 1, "sent": PEOPLE - 1}  # what may have left is not touched


def test_a_worker_that_only_seemed_lost_sends_nothing_of_what_went_on_without_it(
    hands: Hands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(hands.database)
    elsewhere = register(hands.database, tmp_path, kind="marketing", queues=["email.marketing"], slots=2)

    def time_passes() -> None:
        with hands.database.begin() as connection:
            connection.execute(
                text("UPDATE worker SET host = 'elsewhere/its-boot' WHERE id = :id"), {"id": elsewhere.worker_id}
            )
            connection.execute(text("UPDATE batch SET lease_until = clock_timestamp() - interval '2 min'"))
        rescue.rescue(hands.database)
        release.release(hands.database)

    before_authorise(monkeypatch, time_passes)
    [batch_id] = ready(hands.database)
    assert send_batch(replace(hands, worker_id=elsewhere.worker_id), batch_id) == 0
    send_all(hands)

    assert statuses(hands.database) == {"sent": PEOPLE}
    assert len((tmp_path / "sandbox" / "outbox.jsonl").read_text().splitlines()) == PEOPLE


def test_a_worker_that_cannot_be_looked_at_keeps_nobody_else_from_being_rescued(
    hands: Hands, worker: Registration, tmp_path: Path
) -> None:
    started(hands.database)
    odd, dead = (
        register(hands.database, tmp_path / name, kind="marketing", queues=["email.marketing"], slots=2)
        for name in ("odd", "dead")
    )
    with hands.database.begin() as connection:
        connection.execute(  # opening it fails as it does for a file of another user
            text("UPDATE worker SET lock_path = :path WHERE id = :id"),
            {"path": str(tmp_path / "odd"), "id": odd.worker_id},
        )
        connection.execute(
            text("UPDATE batch SET state = 'claimed', claim_token = 1, worker_id = :worker"),
            {"worker": dead.worker_id},
        )
    os.close(dead.descriptor)

    assert rescue.rescue(hands.database) == 1


def test_two_who_look_at_a_dead_worker_at_once_both_see_that_it_is_dead(
    shop: Engine, worker: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.close(worker.descriptor)
    with shop.connect() as connection:
        row = connection.execute(text("SELECT * FROM worker")).one()
    proofs: list[str] = []
    flock = fcntl.flock

    def meanwhile(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if not proofs:
            monkeypatch.undo()
            proofs.append(prove(row))

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    proofs.append(prove(row))
    assert proofs == ["dead", "dead"]  # "alive" and past its lease is killed, by a number that may be another's by now


def test_after_an_outage_workers_have_time_to_write_down_what_only_they_know(
    hands: Hands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescue, "_watch", rescue._Watch())
    started(hands.database)
    program = (
        "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); fcntl.flock(f, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    lock = tmp_path / "other.lock"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with hands.database.begin() as connection:
            connection.execute(
                text("UPDATE worker SET pid = :pid, lock_path = :path"), {"pid": other.pid, "path": str(lock)}
            )
            connection.execute(
                text("""UPDATE batch SET state = 'claimed', claim_token = 1, worker_id = (SELECT id FROM worker),
                               lease_until = clock_timestamp() - interval '5 min'""")
            )
        rescue.rescue(
            hands.database
        )  # the first look after a long silence: the leases ran out while nobody could write
        assert other.poll() is None
        patient_since = time.monotonic()
        monkeypatch.setattr(rescue, "_monotonic", lambda: patient_since + elapsed)
        elapsed, freed = 0.0, 0
        while not freed and elapsed < 600:
            elapsed += 1.0
            freed = rescue.rescue(hands.database)
            with suppress(subprocess.TimeoutExpired):
                other.wait(0.001)
    assert freed == 1
    assert rescue.PATIENCE.total_seconds() <= elapsed < 600


def test_saying_goodbye_leaves_what_was_not_finished_to_be_rescued(hands: Hands, worker: Registration) -> None:
    started(hands.database)
    with hands.database.begin() as connection:  # a batch that could not be closed, a receipt that could not be written
        connection.execute(
            text("UPDATE batch SET state = 'claimed', claim_token = 1, worker_id = :worker"),
            {"worker": worker.worker_id},
        )
        connection.execute(
            text("""UPDATE message SET status = 'sending', worker_id = :worker, authorised_at = clock_timestamp()
                    WHERE id = (SELECT id FROM message ORDER BY contact_id LIMIT 1)"""),
            {"worker": worker.worker_id},
        )
    unregister(hands.database, worker)
    rescue.rescue(hands.database)

    assert statuses(hands.database) == {"unknown": 1, "pending": PEOPLE - 1}


def test_a_machine_that_is_gone_for_good_is_given_up_when_somebody_says_so(hands: Hands, worker: Registration) -> None:
    started(hands.database)
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE worker SET host = 'mail-2.1f0c5a9be077/its-boot'"))
        connection.execute(
            text("UPDATE batch SET state = 'claimed', claim_token = 1, worker_id = :worker, lease_until = now()"),
            {"worker": worker.worker_id},
        )
        connection.execute(
            text("""UPDATE message SET status = 'sending', worker_id = :worker, authorised_at = clock_timestamp()
                    WHERE id = (SELECT id FROM message ORDER BY contact_id LIMIT 1)"""),
            {"worker": worker.worker_id},
        )
    rescue.rescue(hands.database)
    assert statuses(hands.database) == {"sending": 1, "pending": PEOPLE - 1}  # from here nobody can tell

    with pytest.raises(NotFound, match=r"there are mail-2\.1f0c5a9be077$"):
        rescue.bury_host(hands.database, "mail-3", by="an operator")
    with pytest.raises(Refused, match="is this machine"):
        rescue.bury_host(hands.database, this_host().rpartition("/")[0], by="an operator")
    assert rescue.bury_host(hands.database, "mail-2.1f0c5a9be077", by="an operator") == (1, 1)

    assert statuses(hands.database) == {"unknown": 1, "pending": PEOPLE - 1}
    with hands.database.connect() as connection:
        said = connection.execute(text("SELECT actor, action FROM audit ORDER BY id DESC LIMIT 1")).one()
    assert tuple(said) == ("an operator", "host.lost")


def test_a_cap_counts_what_either_of_two_merged_contacts_got_in_the_same_run(hands: Hands, key_ring: KeyRing) -> None:
    with hands.database.begin() as connection:
        say(connection, key_ring, contact(connection, "p0"), [("email", "offers", "withdrawn")])
    started(hands.database)
    send_all(hands)  # p1 got it, p0 did not
    with hands.database.begin() as connection:
        identity.merge(connection, key_ring, contact(connection, "p0"), contact(connection, "p1"))
        survivor = contact(connection, "p1")
        assert survivor == contact(connection, "p0")
        connection.execute(text("UPDATE consent SET state = 'granted' WHERE contact_id = :id"), {"id": survivor})
    again = started(hands.database, "again")
    send_all(hands)

    assert statuses(hands.database, again) == {"CAPPED": PEOPLE - 1}


def test_whoever_was_merged_after_one_got_it_gets_it_once(hands: Hands, key_ring: KeyRing) -> None:
    with hands.database.begin() as connection:
        run_id = runs.start(connection, "hello", started_by="test")
        p0, p1 = contact(connection, "p0"), contact(connection, "p1")
        connection.execute(text("UPDATE audience_page SET contact_ids = array_remove(contact_ids, :p0)"), {"p0": p0})
        connection.execute(
            text("INSERT INTO audience_page (run_id, page, contact_ids) VALUES (:run, 1, ARRAY[CAST(:p0 AS bigint)])"),
            {"run": run_id, "p0": p0},
        )
    assert plan_page(hands.database, run_id)
    send_all(hands)
    with hands.database.begin() as connection:
        identity.merge(connection, key_ring, p0, p1)
    assert plan_page(hands.database, run_id)
    send_all(hands)

    assert statuses(hands.database) == {"sent": PEOPLE - 1, "DUPLICATE_ADDRESS": 1}


def test_a_message_planned_while_its_contact_is_merged_goes_to_the_survivor(
    hands: Hands, key_ring: KeyRing, tmp_path: Path
) -> None:
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE contact SET country = 'DE' WHERE external_id = 'p0'"))  # not in the segment
    with hands.database.begin() as merging:
        identity.merge(merging, key_ring, contact(merging, "p0"), contact(merging, "p1"))
        started(hands.database)
    send_all(hands)
    send_all(hands)

    assert statuses(hands.database) == {"sent": PEOPLE - 1}
    assert '"to":"p0@people.example"' in (tmp_path / "sandbox" / "outbox.jsonl").read_text()


def test_a_message_that_comes_back_to_a_tombstone_is_surplus(hands: Hands, key_ring: KeyRing) -> None:
    started(hands.database)
    taken_back = text("""UPDATE message SET status = :status, authorised_at = NULL, batch_id = NULL
                         WHERE contact_id = (SELECT id FROM contact WHERE external_id = 'p1')""")
    with hands.database.begin() as connection:
        connection.execute(taken_back, {"status": "sending"})
    with hands.database.begin() as connection:
        identity.merge(connection, key_ring, contact(connection, "p0"), contact(connection, "p1"))
    with hands.database.begin() as connection:
        connection.execute(taken_back, {"status": "pending"})
    send_all(hands)

    assert statuses(hands.database) == {"sent": PEOPLE - 2, "DUPLICATE_ADDRESS": 2}


def test_who_asks_for_a_message_to_a_tombstone_holds_only_its_survivor(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        p0, p1 = contact(connection, "p0"), contact(connection, "p1")
        identity.merge(connection, key_ring, p0, p1)
        connection.execute(text("UPDATE contact_alias SET contact_id = :p1 WHERE external_id = 'p1'"), {"p1": p1})
    with shop.begin() as asking:
        wish = messages.Wish("order", "email", "p1", {})
        messages.submit(asking, key_ring, wish, client="shop", idempotency_key="order-1")
        with shop.begin() as other:
            free = text("SELECT id FROM contact WHERE id = ANY(:ids) FOR NO KEY UPDATE SKIP LOCKED")
            assert other.scalars(free, {"ids": [p0, p1]}).all() == [p1]


def waits_for_a_lock(database: Engine) -> None:
    """Return when somebody in this database waits for a lock."""
    deadline = time.monotonic() + 10
    waiting = text("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() "
                   "AND wait_event_type = 'Lock')")  # fmt: skip
    while time.monotonic() < deadline:
        with database.connect() as connection:
            if connection.scalar(waiting):
                return
    raise AssertionError("nobody waits")


def test_who_closes_a_batch_waits_with_no_message_in_its_hands(hands: Hands) -> None:
    started(hands.database)
    [batch_id] = ready(hands.database)
    hands.stopping.set()  # nothing is sent; the batch is closed and its messages go back
    with hands.database.begin() as merging:
        locks.lock_contacts(merging, [contact(merging, "p5")])
        merging.execute(text("UPDATE message SET facts = NULL WHERE contact_id = :p5"), {"p5": contact(merging, "p5")})
        closing = threading.Thread(target=send_batch, args=(hands, batch_id))
        closing.start()
        waits_for_a_lock(hands.database)
        merging.execute(text("SELECT FROM message FOR UPDATE NOWAIT"))  # as an import that merges others, too
    closing.join()

    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message WHERE batch_id IS NULL")) == PEOPLE


def test_an_import_holds_old_tombstones_in_their_order(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        identity.merge(connection, key_ring, contact(connection, "p1"), p2 := contact(connection, "p2"))
        p3 = contact(connection, "p3")
    given = [
        Particulars("p1", email="p0@people.example"),  # p1, with its tombstone, turns out to be p0
        Particulars("p3", first_name="Anna"),
    ]

    def take_in() -> None:
        with shop.begin() as connection:
            save_contacts(connection, key_ring, given)

    with shop.begin() as authorising_:
        locks.lock_contacts(authorising_, [p2])  # rendered before the merge
        importing = threading.Thread(target=take_in)
        importing.start()
        waits_for_a_lock(shop)
        authorising_.execute(text("SELECT FROM contact WHERE id = :p3 FOR NO KEY UPDATE NOWAIT"), {"p3": p3})
    importing.join()

    with shop.connect() as connection:
        survivor = connection.scalar(text("SELECT merged_into FROM contact WHERE id = :p2"), {"p2": p2})
        assert survivor == contact(connection, "p0")


def test_a_batch_of_a_finished_run_is_done(hands: Hands) -> None:
    run_id = started(hands.database)
    with hands.database.begin() as connection:
        runs.cancel(connection, run_id, by="test")
    release.release(hands.database)
    release.release(hands.database)

    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT finished_at IS NOT NULL FROM run"))
        assert connection.scalar(text("SELECT state FROM batch")) == "done"


@pytest.mark.parametrize("deferred", ["OUTRANKED", "OPERATOR"])
def test_what_is_cancelled_is_no_longer_put_off(shop: Engine, deferred: str) -> None:
    run_id = started(shop)
    with shop.begin() as connection:
        connection.execute(text("UPDATE message SET deferred_reason = :deferred"), {"deferred": deferred})
        runs.cancel(connection, run_id, by="test")
    release.release(shop)

    with shop.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message WHERE deferred_reason IS NULL")) == PEOPLE


def test_go_on_waits_for_nobody_who_holds_a_message(shop: Engine) -> None:
    run_id = started(shop)
    with shop.begin() as connection:
        runs.pause(connection, run_id, by="test")
        connection.execute(text("UPDATE message SET deferred_reason = 'OPERATOR', batch_id = NULL"))
    with shop.begin() as merging, shop.begin() as connection:
        merging.execute(text("SELECT FROM message ORDER BY contact_id LIMIT 1 FOR UPDATE"))
        connection.execute(text("SET LOCAL statement_timeout = '3s'"))
        runs.resume(connection, run_id, by="test")
    assert statuses(shop) == {"OPERATOR": 1, "pending": PEOPLE - 1}


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
def test_whatever_ends_the_winner_makes_the_loser_due_at_once(hands: Hands, key_ring: KeyRing, ends: str) -> None:
    winner = started(hands.database, "important")
    loser = started(hands.database, "hello")
    assert statuses(hands.database, loser) == {"OUTRANKED": PEOPLE}
    with hands.database.begin() as connection:
        if ends == "cancelled":
            runs.cancel(connection, winner, by="test")
        else:
            connection.execute(text("UPDATE contact SET sealed = NULL WHERE external_id = 'p3'"))
    send_all(hands)
    send_all(hands)

    if ends == "cancelled":
        assert statuses(hands.database, loser) == {"sent": PEOPLE}
    else:
        assert statuses(hands.database, loser) == {"CAPPED": PEOPLE - 1, "RENDER_FAILED": 1}


def test_the_run_of_a_transactional_template_cannot_be_cancelled(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        wish = messages.Wish("order", "email", "p1", {})
        messages.submit(connection, key_ring, wish, client="shop", idempotency_key="order-1")
        run_id = connection.scalar(text("SELECT run_id FROM message"))
    with shop.begin() as connection, pytest.raises(Refused, match="pause"):
        runs.cancel(connection, run_id, by="test")


def test_a_campaign_that_cannot_fire_holds_up_no_other(shop: Engine) -> None:
    with shop.begin() as connection:
        definition = text("""UPDATE campaign SET fires_after = clock_timestamp() - interval '1 min',
                                 next_fire_at = clock_timestamp() - interval '1 min' - :earlier * interval '1 s',
                                 definition = definition || CAST(:schedule AS jsonb) WHERE name = :name""")
        every_minute = '{"schedule": {"cron": "* * * * *", "zone": "UTC"}}'
        connection.execute(definition, {"name": "hello", "earlier": 1, "schedule": '{"schedule": {"cron": 7}}'})
        connection.execute(definition, {"name": "again", "earlier": 0, "schedule": every_minute})

    assert len(fire_due(shop)) == 1


def test_one_run_that_cannot_be_planned_holds_up_no_other(
    shop: Engine, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shop.begin() as connection:
        bad, good = (runs.start(connection, name, started_by="test") for name in ("important", "hello"))
        connection.execute(text("UPDATE run SET definition = '{}' WHERE id = :id"), {"id": bad})
    assert plan_round(shop)

    with shop.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message WHERE run_id = :id"), {"id": good}) == PEOPLE


class WritesTwice(Sandbox):
    """A provider that is not there at first; while it takes the mails, the first receipts are written once more.

    That is what `settle` does when the answer of its commit was lost: the database had it, and nobody knows.
    """

    hands: Hands
    first: tuple[list[UUID], Moment] | None = None

    def hand_over(self, slice_: Sequence[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        not_there = [NotSent("no connection", unreachable=True) for _ in slice_]
        if self.first is None:
            self.first = [envelope.message_id for envelope in slice_], moment
            return not_there
        settle(self.hands.database, self.hands.worker_id, self.first[0], not_there, self.first[1])
        return super().hand_over(slice_, moment, deadline)


def test_receipts_that_are_written_twice_say_nothing_of_the_next_try(hands: Hands, tmp_path: Path) -> None:
    provider = WritesTwice(tmp_path / "sandbox", "email")
    provider.hands = hands = replace(hands, providers={"email": provider})
    run_id = started(hands.database)
    send_all(hands)
    assert statuses(hands.database, run_id) == {"pending": PEOPLE}
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE message SET due_at = first_due_at"))

    send_all(hands)

    assert statuses(hands.database, run_id) == {"sent": PEOPLE}
    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM attempt")) == PEOPLE


def test_a_clock_set_back_frees_no_slot(hands: Hands) -> None:
    started(hands.database)
    send_all(hands)
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE engine SET clock_offset = interval '-1 hour'"))
    again = started(hands.database, "again")
    send_all(hands)

    assert statuses(hands.database, again) == {"CAPPED": PEOPLE}


def test_a_clock_set_back_does_not_stop_a_lane(hands: Hands) -> None:
    with hands.database.begin() as connection:
        connection.execute(
            text("""INSERT INTO lane (name, rate_per_second, burst, theoretical_arrival_at)
                    VALUES ('email.marketing', 100, 10, clock_timestamp() + interval '5 hours')""")
        )
        now = clock.read_now(connection)
        some = [taking.Wanted(uuid4()) for _ in range(6)]
        for wanted, at in ((some[:1], now), (some[1:], now + timedelta(seconds=1))):
            taken = taking.take(
                connection, "email.marketing", wanted, at, offers=[SANDBOX], speed=taking.Speed(sender="a@shop.example")
            )

    assert len(taken.going) == 5


def test_a_slice_that_makes_nobody_due_wakes_nobody(hands: Hands) -> None:
    started(hands.database)
    with hands.database.connect().execution_options(isolation_level="AUTOCOMMIT") as listener:
        driver = listener.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.execute("LISTEN dispatcher")
        send_all(hands)
        assert statuses(hands.database) == {"sent": PEOPLE}
        assert list(driver.notifies(timeout=0.2)) == []
