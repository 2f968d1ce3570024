"""Workers that die, only seem dead, or say goodbye: what they held goes on once, and is rescued by one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from racing import PEOPLE, before_authorise, ready, send_all, started, statuses
from sqlalchemy import Engine, text

from dispatcher import release, rescue
from dispatcher.errors import NotFound, Refused
from dispatcher.registration import Registration, prove, register, this_host, unregister
from dispatcher.sending import Hands, send_batch


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
