"""Messages that wait behind a more important one of the same person: due at once when that one is out of the way."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, text

from dispatcher import db

_WAKE = text("""
    UPDATE message SET due_at = :now, deferred_reason = NULL, facts = NULL
    WHERE status = 'pending' AND deferred_reason = 'OUTRANKED' AND contact_id = ANY(:contact_ids)
""")


def wake(connection: Connection, contact_ids: Collection[int], now: datetime) -> None:
    """Make what waits for a winner of these contacts due now; to be called when a winner was skipped."""
    if contact_ids:
        connection.execute(_WAKE, {"now": now, "contact_ids": list(contact_ids)})
        db.notify(connection, "due")
