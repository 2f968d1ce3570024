"""One clock: every decision uses one `now`, read from the database after the locks are held.

It is the database's own clock plus an offset that only the sandbox may have (the demo plays at a working day's noon).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from dispatcher.errors import Refused

_NOW = text("SELECT clock_timestamp() + clock_offset FROM engine")


def read_now(connection: Connection) -> datetime:
    """Return the engine's time, an aware UTC instant."""
    now: datetime = connection.execute(_NOW).scalar_one()
    return now


def shift(connection: Connection, offset: timedelta, *, sandbox_only: bool) -> None:
    """Set the clock `offset` ahead of the real one; refused if anything could really leave."""
    if offset and not sandbox_only:
        raise Refused("the clock can only be shifted while every provider is the sandbox")
    connection.execute(text("UPDATE engine SET clock_offset = :offset"), {"offset": offset})
