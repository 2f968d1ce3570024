"""The ledger, counted whole: by status and reason, due and oldest due by lane, answers to unsubscribes.

No index makes this cheap and nobody keeps a tally: either would slow down every row that is planned or sent.  So one
connection counts in the background, and rests twenty times as long as counting took.  Who scrapes gets the newest
count there is, and when it was made.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from dispatcher import clock, db
from dispatcher.figures import BOUNDS
from dispatcher.reports import REASON

log = structlog.get_logger()

#: So many times as long as counting took it is left alone: at most a twentieth of one core of the database.
REST = 20
#: A small ledger is counted while the scrape waits.
PATIENCE_SECONDS = 0.05
FIRST_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Count:
    """The ledger at one instant.  Lanes as `email.marketing`, reasons as in the ledger, empty where there is none."""

    messages: Mapping[tuple[str, ...], int] = field(default_factory=dict)  #: by lane, status, reason
    due: Mapping[str, int] = field(default_factory=dict)  #: by lane: due, in runs that may go on, and not yet sending
    oldest_due_seconds: Mapping[str, float] = field(default_factory=dict)  #: by lane: for how long the oldest is due
    unsubscribes: Mapping[str, int] = field(default_factory=dict)  #: by answer: 200, 202; `none` where it was lost
    barrier: Mapping[str, int] = field(default_factory=dict)  #: answers by class of duration, as in `figures.BOUNDS`
    barrier_seconds: float = 0.0  #: all durations together
    counted_at: float = 0.0  #: seconds since 1970, by this machine
    seconds: float = 0.0  #: how long counting took


_MESSAGES = text(f"""
SELECT channel, class = 'marketing' AS marketing, status, COALESCE({REASON}, '') AS reason, count(*) AS number
FROM message m GROUP BY 1, 2, 3, 4
""")  # noqa: S608 - constants only
_DUE = text("""
SELECT r.lane, count(*) AS due, extract(epoch FROM :now - min(m.due_at)) AS oldest
FROM message m JOIN run r ON r.id = m.run_id
WHERE m.status = 'pending' AND m.due_at <= :now AND r.state IN ('planning', 'running') GROUP BY r.lane
""")
_UNSUBSCRIBES = text("""
SELECT COALESCE(CAST(answer AS text), 'none') AS answer, width_bucket(took, CAST(:bounds AS float8[])) AS place,
       count(*) AS number, COALESCE(sum(took), 0) AS seconds
FROM (SELECT answer, CAST(CASE WHEN answered_at IS NOT NULL
                               THEN GREATEST(extract(epoch FROM answered_at - committed_at), 0) END AS float8) AS took
      FROM unsubscribe) AS u
GROUP BY 1, 2
""")


def count(connection: Connection) -> Count:
    """Count the ledger, on a connection that sees one snapshot of it (`db.reading`)."""
    began, counted_at = time.monotonic(), time.time()
    connection.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))  # one core, whatever the server has
    messages: Counter[tuple[str, ...]] = Counter()
    for row in connection.execute(_MESSAGES):
        lane = f"{row.channel}.{'marketing' if row.marketing else 'transactional'}"
        messages[lane, row.status, row.reason] += row.number
    due = connection.execute(_DUE, {"now": clock.read_now(connection)}).all()
    unsubscribes: Counter[str] = Counter()
    barrier: Counter[str] = Counter()
    barrier_seconds = 0.0
    # width_bucket takes a class from its lower bound on, we up to its upper one: a hair below makes them agree
    for row in connection.execute(_UNSUBSCRIBES, {"bounds": [bound + 1e-9 for bound in BOUNDS]}):
        unsubscribes[row.answer] += row.number
        if row.place is not None:
            barrier[str(BOUNDS[row.place]) if row.place < len(BOUNDS) else "+Inf"] += row.number
            barrier_seconds += row.seconds
    return Count(
        messages=messages,
        due={row.lane: row.due for row in due},
        oldest_due_seconds={row.lane: float(row.oldest) for row in due},
        unsubscribes=unsubscribes,
        barrier=barrier,
        barrier_seconds=barrier_seconds,
        counted_at=counted_at,
        seconds=time.monotonic() - began,
    )


class Counting:
    """The newest count of a ledger, made anew when somebody asks for it and it has rested long enough."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._count: Count | None = None
        self._rests_until = 0.0
        self._done = threading.Event()
        self._done.set()

    def newest(self) -> Count | None:
        """Return the newest count, or None while the first one is still being made."""
        with self._lock:
            if self._done.is_set() and time.monotonic() >= self._rests_until:
                self._done = threading.Event()
                threading.Thread(target=self._work, args=(self._done,), name="counting", daemon=True).start()
            done, has_one = self._done, self._count is not None
        done.wait(PATIENCE_SECONDS if has_one else FIRST_PATIENCE_SECONDS)
        return self._count

    def _work(self, done: threading.Event) -> None:
        began = time.monotonic()
        try:
            with db.reading(self._database) as connection:
                self._count = count(connection)
        except DBAPIError as error:  # the database is away: what was counted last is what we know
            log.warning("metrics.not_counted", error=type(error.orig).__name__)
        finally:
            self._rests_until = time.monotonic() + REST * (time.monotonic() - began)
            done.set()
