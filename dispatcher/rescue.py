"""Free what a dead worker held: its untouched messages go on, what may have left becomes `unknown`.

Death is proved first (`registration.prove`).  A worker of this host that has outlived its lease is wedged or paused:
it is killed, and only what the kernel then says counts.  Across hosts nothing can be proved, and nothing is touched.
"""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Row, text

from dispatcher import clock
from dispatcher.registration import prove, this_host

log = structlog.get_logger()

#: How long past its lease a worker of this host may be before it counts as wedged.
PATIENCE = timedelta(seconds=60)


def rescue(database: Engine) -> int:
    """Rescue the batches of every worker that is certainly dead; return how many batches were freed."""
    with database.connect() as connection:
        suspects = connection.execute(
            text("SELECT id, kind, host, pid, lock_path FROM worker WHERE ended_at IS NULL")
        ).all()
    freed = 0
    for worker in suspects:
        if prove(worker) == "alive" and _is_wedged(database, worker):
            log.warning("worker.wedged", worker=str(worker.id), pid=worker.pid)
            os.kill(worker.pid, signal.SIGKILL)  # the next round finds its lock free
        elif prove(worker) == "dead":
            freed += _bury(database, worker)
    return freed


def _is_wedged(database: Engine, worker: Row[Any]) -> bool:
    if worker.host != this_host() or worker.pid == os.getpid():
        return False
    with database.connect() as connection:
        return bool(
            connection.scalar(
                text("""SELECT EXISTS (SELECT FROM batch WHERE worker_id = :id AND state = 'claimed'
                        AND lease_until < clock_timestamp() - :patience)"""),
                {"id": worker.id, "patience": PATIENCE},
            )
        )


def _bury(database: Engine, worker: Row[Any]) -> int:
    with database.begin() as connection:
        again = connection.scalar(
            text("SELECT ended_at IS NULL FROM worker WHERE id = :id FOR UPDATE"), {"id": worker.id}
        )
        if not again:
            return 0
        batches = connection.scalars(
            text("SELECT id FROM batch WHERE worker_id = :id AND state = 'claimed' FOR UPDATE"), {"id": worker.id}
        ).all()
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
        text("""UPDATE message m SET status = 'unknown', settled_at = :now FROM batch b
                WHERE b.worker_id = :worker AND m.run_id = b.run_id AND m.batch_id = b.id
                AND m.status = 'sending' AND m.worker_id = :worker"""),
        {"now": clock.read_now(connection), "worker": worker.id},
    ).rowcount
    mine = """FROM batch b WHERE b.id = ANY(:batches) AND m.run_id = b.run_id AND m.batch_id = b.id"""
    pending = connection.execute(
        text(f"UPDATE message m SET batch_id = NULL {mine} AND m.status = 'pending'"),  # noqa: S608 - a fixed clause
        {"batches": batches},
    ).rowcount
    connection.execute(
        text("UPDATE batch SET state = 'done', lease_until = NULL WHERE id = ANY(:batches)"), {"batches": batches}
    )
    return int(unknown), int(pending)
