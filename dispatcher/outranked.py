"""Messages that wait behind a more important one of the same person: due at once when that one is out of the way.

Whoever moves a winner holds its contact and wakes what waits (`wake`), or wakes it right after the commit (`let_go`).
Who finds a winner in the way writes so under the same lock, so no wake is lost; planning, which judges without locks,
looks again under them (`look_again`).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from dispatcher import clock, db
from dispatcher.locks import lock_contacts

#: So many contacts are held at once.
_PAGE = 500
#: So many contacts behind paused and cancelled runs are let go in one round.
_ROUND = 5_000

# One that is in a batch already is due, and asked afresh when its turn comes.  Nobody is due before their local time.
# Found by contact: OFFSET 0, and the odd way to ask again what may have changed since, keep the planner from reading
# all that is outranked instead, which looks cheap to it while a young table has no statistics.
_DUE_NOW = """
    UPDATE message m SET due_at = GREATEST(:now, m.first_due_at), deferred_reason = NULL, facts = NULL
    FROM unnest(CAST(:contact_ids AS bigint[])) AS c(id) CROSS JOIN LATERAL (
        SELECT o.id, o.run_id, o.facts, o.batch_id, o.deferred_reason FROM message o
        WHERE o.contact_id = c.id AND o.status = 'pending' OFFSET 0) o
    WHERE o.batch_id IS NULL AND o.deferred_reason = 'OUTRANKED' AND m.id = o.id AND m.batch_id IS NULL
        AND m.status IS NOT DISTINCT FROM 'pending' AND m.deferred_reason IS NOT DISTINCT FROM 'OUTRANKED'"""
_WAKE = text(_DUE_NOW)
_WAKE_BEHIND = text(f"{_DUE_NOW} AND o.facts->>'winner' = ANY(:winners)")
_WAKE_UNLESS_THE_WINNER_WAITS = text(f"""{_DUE_NOW} AND o.run_id = :run AND (
        c.id <> ALL(:held) OR NOT COALESCE(
            (SELECT w.status = 'pending' AND r.state IN ('planning', 'running')
             FROM message w JOIN run r ON r.id = w.run_id WHERE w.id = CAST(o.facts->>'winner' AS uuid)), false))
""")  # noqa: S608 - constants
_HOLD_WHO_IS_FREE = text("""
    SELECT id FROM contact WHERE id = ANY(:contact_ids) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
""")

# A run that is paused or cancelled is nobody's rival; its rows, which may be many, are not touched for that.
_BEHIND_STOPPED_RUNS = text("""
    SELECT m.contact_id FROM run r CROSS JOIN LATERAL (
        SELECT m.contact_id, m.batch_id FROM message m
        WHERE m.status = 'pending' AND m.deferred_reason = 'OUTRANKED' AND m.facts->>'run' = CAST(r.id AS text)
        LIMIT :most) m
    WHERE r.state IN ('paused', 'cancelled') AND r.finished_at IS NULL AND m.batch_id IS NULL LIMIT :most
""")


def wake(connection: Connection, contact_ids: Collection[int], now: datetime) -> None:
    """Make what waits for a winner of these contacts, whom the caller has locked, due now: the winner has moved."""
    if contact_ids and connection.execute(_WAKE, {"now": now, "contact_ids": list(contact_ids)}).rowcount:
        db.notify(connection, "due")


def wake_behind(connection: Connection, winners: dict[int, UUID], now: datetime) -> None:
    """As `wake`, for what waits for these messages alone (by contact), which give way to a third themselves.

    That one may be of no concern to who waits.  It goes down in rank only, so nobody wakes each other in turn.
    """
    if winners:
        behind = {"contact_ids": list(winners), "winners": [str(winner) for winner in winners.values()], "now": now}
        if connection.execute(_WAKE_BEHIND, behind).rowcount:
            db.notify(connection, "due")


def look_again(connection: Connection, run_id: UUID, contact_ids: Collection[int], now: datetime) -> None:
    """Make what this transaction has just written as outranked due, where its winner moved while it was judged.

    From here on the contacts are held, so whoever moves a winner later finds what waits for it.  Of those whom somebody
    else holds nothing is known: they are asked again at once, as nobody may be waited for who may wait for this page.
    More than a bulk writer may hold otherwise, but nothing is left to do but this and the commit.
    """
    if contact_ids:
        held = connection.scalars(_HOLD_WHO_IS_FREE, {"contact_ids": list(contact_ids)}).all()
        waiting = {"run": run_id, "contact_ids": list(contact_ids), "held": list(held), "now": now}
        connection.execute(_WAKE_UNLESS_THE_WINNER_WAITS, waiting)


def let_go(database: Engine, contact_ids: Collection[int]) -> None:
    """As `wake`, where messages of these contacts have ended, committed, without their locks.

    The locks come now: whoever found the winner in the way has written so by then, or will find it gone.
    """
    ids = sorted(set(contact_ids))
    for start in range(0, len(ids), _PAGE):
        with database.begin() as connection:
            lock_contacts(connection, ids[start : start + _PAGE])
            wake(connection, ids[start : start + _PAGE], clock.read_now(connection))


def behind_stopped_runs(connection: Connection) -> list[int]:
    """Return contacts whose messages wait behind one of a run that no longer runs; some of them, if they are many."""
    return list(connection.scalars(_BEHIND_STOPPED_RUNS, {"most": _ROUND}))
