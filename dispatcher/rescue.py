"""Free what a dead worker held: its untouched messages go on, what may have left becomes `unknown`.

Death is proved first (`registration.prove`).  A worker of this host that has outlived its lease is wedged or paused:
it is killed, and only what the kernel then says counts.  Across hosts nothing can be proved: what may have left is not
touched, and only what was not begun goes on once the lease is over, fenced off from a worker that is just slow.  A
person who knows that a machine is gone for good says so (`bury_host`).
"""

from __future__ import annotations

import math
import os
import signal
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic as _monotonic
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import DBAPIError

from dispatcher import audit, clock
from dispatcher.errors import NotFound, Refused
from dispatcher.locks import lock_pending_of
from dispatcher.registration import prove, this_host

log = structlog.get_logger()

#: How long past its lease a worker of this host may be before it counts as wedged.
PATIENCE = timedelta(seconds=60)
#: Whoever has not looked for so long cannot tell a wedged worker from one that, like itself, had no database.
_BLINK = timedelta(seconds=10)


@dataclass(slots=True)
class _Watch:
    """Since when this process has been looking without a break."""

    since: float = math.inf
    last: float = -math.inf

    def look(self, at: float) -> timedelta:
        """Return for how long, up to this look."""
        if at - self.last > _BLINK.total_seconds():
            self.since = at
        self.last = at
        return timedelta(seconds=at - self.since)


_watch = _Watch()


def rescue(database: Engine) -> int:
    """Free the batches of every worker that is dead, or unproven and past its lease; return how many were freed."""
    with database.connect() as connection:
        suspects = connection.execute(
            text("SELECT id, kind, host, pid, lock_path FROM worker WHERE ended_at IS NULL")
        ).all()
    watched = _watch.look(_monotonic())
    freed = 0
    for worker in suspects:
        try:
            freed += _look_after(database, worker, watched)
        except (OSError, DBAPIError) as error:  # the others need looking after, too
            log.error("worker.not_rescued", worker=str(worker.id), error=type(error).__name__)
    return freed


def _look_after(database: Engine, worker: Row[Any], watched: timedelta) -> int:
    match prove(worker):
        case "dead":
            return _bury(database, worker)
        case "unproven":
            return _let_go_on(database, worker)
        case "alive":
            if watched >= PATIENCE and _is_wedged(database, worker):
                log.warning("worker.wedged", worker=str(worker.id), pid=worker.pid)
                os.kill(worker.pid, signal.SIGKILL)  # the next round finds its lock free
            return 0


def bury_host(database: Engine, machine: str, *, by: str) -> tuple[int, int]:
    """Take a person's word that `machine` is switched off for good; return how many workers and batches that freed.

    What its workers may have sent becomes `unknown`, what they had not begun goes on.  Refused for this machine, whose
    workers can be looked at; NotFound names the machines that have silent workers.
    """
    with database.connect() as connection:
        workers = connection.execute(
            text("SELECT id, kind, host, pid, lock_path FROM worker WHERE ended_at IS NULL ORDER BY id")
        ).all()
    if machine == _machine(this_host()):
        raise Refused(f"{machine} is this machine: its dead workers are found without being told")
    lost = [worker for worker in workers if _machine(worker.host) == machine]
    if not lost:
        others = sorted({_machine(worker.host) for worker in workers} - {_machine(this_host())})
        known = f"there are {', '.join(others)}" if others else "no worker of another machine is left"
        raise NotFound(f"no worker of {machine} is left; {known}")
    batches = sum(_bury(database, worker) for worker in lost)
    with database.begin() as connection:
        audit.record(connection, by, "host.lost", machine, {"workers": len(lost), "batches": batches})
    return len(lost), batches


def _machine(host: str) -> str:
    """Return the machine of `machine/boot`."""
    return host.rpartition("/")[0]


def _is_wedged(database: Engine, worker: Row[Any]) -> bool:
    if worker.host != this_host() or worker.pid == os.getpid():
        return False
    with database.connect() as connection:
        return bool(connection.execute(_OVERDUE, {"id": worker.id, "patience": PATIENCE}).first())


_OVERDUE = text("""
SELECT id FROM batch WHERE worker_id = :id AND state = 'claimed' AND lease_until < clock_timestamp() - :patience
""")


def _let_go_on(database: Engine, worker: Row[Any]) -> int:
    """Free what an unproven worker has claimed and not begun, once its lease is long over; return how many batches.

    Should it live, its claim is gone, so it authorises nothing more of them.
    """
    with database.begin() as connection:
        late = {"id": worker.id, "patience": PATIENCE}
        lock_pending_of(connection, connection.scalars(_OVERDUE, late).all())
        batches = list(connection.scalars(text(f"{_OVERDUE.text} FOR UPDATE"), late))
        pending = _free_pending(connection, batches) if batches else 0
    if batches:
        log.warning("worker.overdue", worker=str(worker.id), kind=worker.kind, batches=len(batches), pending=pending)
    return len(batches)


def _bury(database: Engine, worker: Row[Any]) -> int:
    with database.begin() as connection:
        claimed = text("SELECT id FROM batch WHERE worker_id = :id AND state = 'claimed'")
        lock_pending_of(connection, connection.scalars(claimed, {"id": worker.id}).all())
        again = connection.scalar(
            text("SELECT ended_at IS NULL FROM worker WHERE id = :id FOR UPDATE"), {"id": worker.id}
        )
        if not again:
            return 0
        batches = connection.scalars(text(f"{claimed.text} FOR UPDATE"), {"id": worker.id}).all()
        unknown, pending = _free(connection, worker, list(batches))
        connection.execute(text("UPDATE worker SET ended_at = clock_timestamp() WHERE id = :id"), {"id": worker.id})
    Path(worker.lock_path).unlink(missing_ok=True)
    log.warning("worker.rescued", worker=str(worker.id), kind=worker.kind, batches=len(batches),
                unknown=unknown, pending=pending)  # fmt: skip
    return len(batches)


def _free(connection: Connection, worker: Row[Any], batches: list[int]) -> tuple[int, int]:
    """Settle the dead worker's messages; return how many are in doubt and how many go on."""
    unknown = connection.execute(
        # Of every batch it had: one that it closed may hold a message that it could not settle.
        text("""UPDATE message m SET status = 'unknown', settled_at = GREATEST(:now, m.authorised_at) FROM batch b
                WHERE b.worker_id = :worker AND m.run_id = b.run_id AND m.batch_id = b.id
                AND m.status = 'sending' AND m.worker_id = :worker"""),
        {"now": clock.read_now(connection), "worker": worker.id},
    ).rowcount
    return int(unknown), _free_pending(connection, batches)


def _free_pending(connection: Connection, batches: list[int]) -> int:
    """Close these batches and put what is pending of them back; return how many messages."""
    pending = connection.execute(
        text("""UPDATE message m SET batch_id = NULL FROM batch b
                WHERE b.id = ANY(:batches) AND m.run_id = b.run_id AND m.batch_id = b.id AND m.status = 'pending'"""),
        {"batches": batches},
    ).rowcount
    connection.execute(
        text("UPDATE batch SET state = 'done', lease_until = NULL WHERE id = ANY(:batches)"), {"batches": batches}
    )
    return int(pending)
