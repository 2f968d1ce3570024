"""Messages that wait behind a more important one of the same person: due at once when that one is out of the way."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from dispatcher import clock, db
from dispatcher.locks import lock_contacts

#: So many contacts are held at once.
_PAGE = 500

# One that is in a batch already is due, and asked afresh when its turn comes.
_WAKE = text("""
    UPDATE message SET due_at = :now, deferred_reason = NULL, facts = NULL
    WHERE status = 'pending' AND batch_id IS NULL AND deferred_reason = 'OUTRANKED' AND contact_id = ANY(:contact_ids)
""")


def wake(connection: Connection, contact_ids: Collection[int], now: datetime) -> None:
    """Make what waits for a winner of these contacts, whom the caller has locked, due now: the winner has moved."""
    if contact_ids and connection.execute(_WAKE, {"now": now, "contact_ids": list(contact_ids)}).rowcount:
        db.notify(connection, "due")


def let_go(database: Engine, contact_ids: Collection[int]) -> None:
    """As `wake`, where messages of these contacts have ended, committed, without their locks.

    The locks come now: whoever found the winner in the way has written so by then, or will find it gone.
    """
    ids = sorted(set(contact_ids))
    for start in range(0, len(ids), _PAGE):
        with database.begin() as connection:
            lock_contacts(connection, ids[start : start + _PAGE])
            wake(connection, ids[start : start + _PAGE], clock.read_now(connection))
