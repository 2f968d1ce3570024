"""Proof of death: certain, or none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from dispatcher import registration
from dispatcher.registration import Registration, prove, register, this_host, unregister


@pytest.fixture
def worker(database: Engine, tmp_path: Path) -> Registration:
    return register(database, tmp_path, kind="marketing", queues=["email.marketing"], slots=2)


def proof(database: Engine, **changes: object) -> str:
    with database.begin() as connection:
        for column, value in changes.items():
            connection.execute(text(f"UPDATE worker SET {column} = :value"), {"value": value})
        return prove(connection.execute(text("SELECT * FROM worker")).one())


def test_who_holds_the_lock_is_alive(database: Engine, worker: Registration) -> None:
    assert proof(database) == "alive"


def test_a_free_lock_is_death(database: Engine, worker: Registration) -> None:
    os.close(worker.descriptor)  # what the kernel does for a process that ends

    assert proof(database) == "dead"


def test_a_worker_of_this_machine_s_earlier_boot_is_dead(database: Engine, worker: Registration) -> None:
    machine = this_host().rpartition("/")[0]

    assert proof(database, host=f"{machine}/an-earlier-boot") == "dead"


def test_a_worker_elsewhere_is_neither_dead_nor_alive(database: Engine, worker: Registration) -> None:
    assert proof(database, host="elsewhere.0123456789ab/its-boot") == "unproven"


def test_where_nothing_tells_two_boots_apart_nothing_is_proved(
    database: Engine, worker: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = this_host().rpartition("/")[0]
    monkeypatch.setattr(registration, "this_host", lambda: f"{machine}/unknown")

    assert proof(database) == "unproven"


def test_without_its_lock_file_a_worker_is_dead_once_its_process_is_gone(
    database: Engine, worker: Registration
) -> None:
    worker.lock_path.unlink()
    assert proof(database) == "unproven"  # this process lives

    gone = subprocess.Popen(["true"])
    gone.wait()
    assert proof(database, pid=gone.pid) == "dead"


def test_who_says_goodbye_leaves_nothing_to_prove(database: Engine, worker: Registration) -> None:
    unregister(database, worker)

    with database.connect() as connection:
        assert connection.scalar(text("SELECT ended_at IS NOT NULL FROM worker"))
    assert not worker.lock_path.exists()
