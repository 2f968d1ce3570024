"""From due messages to tickets: gather what is due into batches, and say which batches want a worker now."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from dispatcher import clock, db, outranked, runs
from dispatcher.plan import BATCH_SIZE
from dispatcher.rates.line import held_by_a_probe

GATHER_PAGE = 5_000
_BORN = "born"
#: A ticket that no worker has taken after this long is taken for lost; a second one does no harm.
TICKET_OVERDUE = timedelta(seconds=10)
#: How long the batches of a run that cannot be read are left alone.
PUT_ASIDE = timedelta(minutes=1)
#: So many tickets a worker slot may wait in a lane's queue: enough to keep busy, few enough to change one's mind.
TICKETS_PER_SLOT = 4

_DUE = text("""
SELECT m.id, m.run_id, r.lane, r.priority FROM message m JOIN run r ON r.id = m.run_id
WHERE m.status = 'pending' AND m.batch_id IS NULL AND m.due_at <= :now AND r.state IN ('planning', 'running')
  AND r.lane <> ALL(:held)
ORDER BY m.due_at LIMIT :page FOR UPDATE OF m SKIP LOCKED
""")

_TICKETS = text("""
WITH lane_slots AS (
    SELECT queue, sum(slots) AS slots FROM worker, unnest(queues) AS queue
    WHERE ended_at IS NULL AND heartbeat_at > clock_timestamp() - interval '10 s' GROUP BY queue
), waiting AS (
    SELECT b.id, b.lane, b.ticketed_at IS NOT NULL AND b.ticketed_at > clock_timestamp() - :overdue AS ticketed,
           row_number() OVER (PARTITION BY b.lane ORDER BY b.id) AS place
    FROM batch b JOIN run r ON r.id = b.run_id
    WHERE b.state = 'ready' AND r.state IN ('planning', 'running')
      AND (b.lease_until <= clock_timestamp()) IS NOT FALSE
)
UPDATE batch SET ticketed_at = clock_timestamp()
FROM waiting LEFT JOIN lane_slots ON lane_slots.queue = waiting.lane
WHERE batch.id = waiting.id AND NOT waiting.ticketed AND waiting.place <= :per_slot * COALESCE(lane_slots.slots, 1)
  AND batch.state = 'ready'
RETURNING batch.id, batch.lane
""")


@dataclass(frozen=True, slots=True)
class Ticket:
    """A batch that wants a worker of its lane."""

    batch_id: int
    lane: str


def announce(connection: Connection, batch_id: int, lane: str) -> None:
    """Tell the clock, at commit, of a batch that is born due: it hands out the ticket without looking for more."""
    db.notify(connection, f"{_BORN} {batch_id} {lane}")


def ticket_of(note: str) -> Ticket | None:
    """Return the ticket that `announce` told of, or None if the note says something else."""
    word, _, rest = note.partition(" ")
    number, _, lane = rest.partition(" ")
    return Ticket(int(number), lane) if word == _BORN and number.isdecimal() and len(number) < 19 else None


def release(database: Engine) -> list[Ticket]:
    """Gather due messages into batches and return the tickets to hand out, oldest batch first."""
    with database.begin() as connection:
        cancelled = runs.sweep(connection, clock.read_now(connection))
        behind = outranked.behind_stopped_runs(connection)
    outranked.let_go(database, [*cancelled, *behind])
    with database.begin() as connection:
        now = clock.read_now(connection)
        runs.finish(connection, now)
        if _stopped(connection):
            return []
        gather(connection, now)
    with database.begin() as connection:
        rows = connection.execute(_TICKETS, {"overdue": TICKET_OVERDUE, "per_slot": TICKETS_PER_SLOT}).all()
    return [Ticket(row.id, row.lane) for row in sorted(rows)]


def put_aside(connection: Connection, batch_id: int) -> None:
    """Hand out no tickets of the run of a batch that nobody could claim for a while: its lane is other runs', too."""
    connection.execute(
        text("""UPDATE batch SET lease_until = clock_timestamp() + :aside, ticketed_at = NULL
                WHERE state = 'ready' AND run_id = (SELECT run_id FROM batch WHERE id = :id AND state = 'ready')"""),
        {"id": batch_id, "aside": PUT_ASIDE},
    )


def _stopped(connection: Connection) -> bool:
    return bool(connection.scalar(text("SELECT stopped_at IS NOT NULL FROM engine")))


def gather(connection: Connection, now: datetime) -> int:
    """Put up to a page of due messages without a batch into new ones; return how many.

    Not of a lane that waits for a probe: a large backlog would be looked at, in vain, every few seconds.
    """
    due: dict[UUID, list[Any]] = defaultdict(list)
    held = held_by_a_probe(connection, now)
    for row in connection.execute(_DUE, {"now": now, "page": GATHER_PAGE, "held": held}):
        due[row.run_id].append(row)
    messages: list[UUID] = []
    batches: list[int] = []
    for run_id, rows in due.items():
        for start in range(0, len(rows), BATCH_SIZE):
            some = rows[start : start + BATCH_SIZE]
            batch_id = connection.execute(
                text("INSERT INTO batch (run_id, lane, priority) VALUES (:run, :lane, :priority) RETURNING id"),
                {"run": run_id, "lane": some[0].lane, "priority": some[0].priority},
            ).scalar_one()
            messages += [row.id for row in some]
            batches += [batch_id] * len(some)
    if messages:
        connection.execute(
            text("""UPDATE message SET batch_id = x.batch
                    FROM unnest(CAST(:messages AS uuid[]), CAST(:batches AS bigint[])) AS x(id, batch)
                    WHERE message.id = x.id"""),
            {"messages": messages, "batches": batches},
        )
    return len(messages)
