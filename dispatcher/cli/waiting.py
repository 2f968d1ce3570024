"""Waiting for a run: until nothing of it is pending, with progress on stderr."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from dispatcher.cli import door
from dispatcher.errors import Refused
from dispatcher.registration import prove

if TYPE_CHECKING:
    from rich.progress import Progress

    from dispatcher.runtime import Runtime

LOOK_EVERY_SECONDS = 0.25
#: A room that has not shown a sign of life for this long counts as gone.
FRESH_SECONDS = 15

_STANDING = text("""
    SELECT r.state, r.audience, r.finished_at IS NOT NULL AS finished, count(m.id) AS rows,
           count(*) FILTER (WHERE m.status = 'pending' AND m.due_at > clock_timestamp() + e.clock_offset) AS deferred,
           count(*) FILTER (WHERE m.status = 'pending') AS pending,
           count(*) FILTER (WHERE m.status = 'sending') AS sending,
           min(m.due_at) FILTER (WHERE m.status = 'pending') AS next_due_at
    FROM engine e, run r LEFT JOIN message m ON m.run_id = r.id WHERE r.id = :run GROUP BY r.id
""")
_WORKERS = text(
    "SELECT kind, host, pid, lock_path FROM worker WHERE ended_at IS NULL "
    "AND heartbeat_at > clock_timestamp() - make_interval(secs => :fresh)"
)
#: Without any one of these a run does not come to its end.
_NEEDED = {"scheduler", "control", "marketing"}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands."""

    state: str
    audience: int
    finished: bool  # the clock has seen that nothing is open any more, and closed the run
    rows: int
    deferred: int  # pending, and due later than now
    pending: int
    sending: int
    next_due_at: datetime | None

    @property
    def finished_rows(self) -> int:
        return self.rows - self.pending - self.sending

    @property
    def line(self) -> str:
        """What a human wants to read of it."""
        parts = [f"{self.finished_rows:,} of {self.audience:,} done"]
        if self.deferred and self.next_due_at:
            parts.append(f"{self.deferred:,} deferred, the next until {self.next_due_at:%Y-%m-%d %H:%M} UTC")
        return ", ".join(parts)


def read_standing(connection: Connection, run_id: UUID) -> Standing:
    """Return where the run stands now."""
    return Standing(*connection.execute(_STANDING, {"run": run_id}).one())


def wait_until_done(runtime: Runtime, run_id: UUID, timeout_seconds: float | None) -> None:
    """Wait until nothing of the run is pending; start clock and workers for so long if none are at work.

    Refused once it cannot get there by itself (paused), or has not after `timeout_seconds`.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    with _rooms(runtime):
        standing = _watch(runtime.database, run_id, deadline)
    door.say(standing.line)
    if standing.finished:
        return
    if standing.state == "paused":
        raise Refused(f"run {run_id} is paused; dispatcher campaign resume {run_id} lets it go on")
    raise Refused(f"run {run_id} is not done after {timeout_seconds:g} s: {standing.line}; it goes on by itself")


def _watch(database: Engine, run_id: UUID, deadline: float | None) -> Standing:
    """Return where the run stands once it is done, paused, or out of time; shows a bar meanwhile."""
    with _bar() as bar:
        task = bar.add_task("", total=None)
        while True:
            with database.connect() as connection:
                standing = read_standing(connection, run_id)
            bar.update(task, total=standing.audience, completed=standing.finished_rows, description=standing.line)
            out_of_time = deadline is not None and time.monotonic() >= deadline
            if standing.finished or standing.state == "paused" or out_of_time:
                return standing
            time.sleep(LOOK_EVERY_SECONDS)


def _bar() -> Progress:
    import sys

    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=door.console(errors=True), transient=True, disable=not sys.stderr.isatty())


def _rooms(runtime: Runtime) -> AbstractContextManager[object]:
    """Return what keeps clock and workers running meanwhile; nothing if they are at work already."""
    with runtime.database.connect() as connection:
        workers = connection.execute(_WORKERS, {"fresh": FRESH_SECONDS}).all()
    if {worker.kind for worker in workers if prove(worker) != "dead"} >= _NEEDED:
        return nullcontext()
    from dispatcher.up import rooms_of, rooms_running

    door.say("no clock or no worker is running: starting them until this run is done")
    return rooms_running(runtime.settings, [room for room in rooms_of(workers=1) if room.name != "web"])
