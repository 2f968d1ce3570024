"""Which processes work here, and how another one can prove that one of them is dead.

Each holds an exclusive flock on a file of its own for life.  The kernel drops it when the process dies, however it
dies, and never while it is only paused: a free lock is proof of death, on the same host.  So is a boot of that host
since.
"""

from __future__ import annotations

import fcntl
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Engine, Row, text
from uuid_utils.compat import uuid7

Proof = Literal["dead", "alive", "unproven"]


def this_host() -> str:
    """Return `machine/boot`: a name for this machine, and for its life since it was switched on."""
    machine = f"{platform.node()}.{_read('/etc/machine-id')[:12]}"
    return f"{machine}/{_read('/proc/sys/kernel/random/boot_id')}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class Registration:
    """This process in the table of workers; its lock lives as long as the process."""

    worker_id: UUID
    lock_path: Path
    descriptor: int


def register(database: Engine, home: Path, *, kind: str, queues: list[str], slots: int) -> Registration:
    """Take the lock, then write the row: a row whose lock is free always means death."""
    worker_id = uuid7()
    folder = home / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    lock_path = folder / f"{worker_id}.lock"
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with database.begin() as connection:
        connection.execute(
            text("""INSERT INTO worker (id, kind, host, pid, lock_path, queues, slots)
                    VALUES (:id, :kind, :host, :pid, :lock_path, :queues, :slots)"""),
            {"id": worker_id, "kind": kind, "host": this_host(), "pid": os.getpid(), "lock_path": str(lock_path),
             "queues": queues, "slots": slots},
        )  # fmt: skip
    return Registration(worker_id, lock_path, descriptor)


def heartbeat(database: Engine, registration: Registration) -> None:
    with database.begin() as connection:
        connection.execute(
            text("UPDATE worker SET heartbeat_at = clock_timestamp() WHERE id = :id"), {"id": registration.worker_id}
        )


def unregister(database: Engine, registration: Registration) -> None:
    """Say goodbye if nothing of this worker is left to rescue; if something is, its free lock says that it is dead."""
    with database.begin() as connection:
        ended = connection.execute(_END, {"id": registration.worker_id}).rowcount
    if ended:
        registration.lock_path.unlink(missing_ok=True)
    os.close(registration.descriptor)


_END = text("""
UPDATE worker SET ended_at = clock_timestamp() WHERE id = :id AND NOT EXISTS (
    SELECT FROM batch b WHERE b.worker_id = :id AND (b.state = 'claimed' OR EXISTS (
        SELECT FROM message m
        WHERE m.run_id = b.run_id AND m.batch_id = b.id AND m.status = 'sending' AND m.worker_id = :id)))
""")


def prove(worker: Row[Any]) -> Proof:
    """Return whether this worker (a row with host, pid, lock_path) is certainly dead, certainly alive, or neither."""
    if worker.host != this_host():
        machine, _, boot = worker.host.rpartition("/")
        here, _, now = this_host().rpartition("/")
        rebooted = machine == here and boot != now and "unknown" not in (boot, now)
        return "dead" if rebooted else "unproven"
    try:
        descriptor = os.open(worker.lock_path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # somebody cleared HOME away: only that there is no such process proves anything
        return "unproven" if _runs(worker.pid) else "dead"
    except OSError:  # of another user, or not a file at all
        return "unproven"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look at once do not see each other
    except BlockingIOError:
        return "alive"
    else:
        return "dead"
    finally:
        os.close(descriptor)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
