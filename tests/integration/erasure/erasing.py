"""What the tests of erasure look at."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

THEN = datetime(2026, 1, 1, tzinfo=UTC)
EMAIL, PHONE = "ana.pop@people.example", "+447700900123"


def address(connection: Connection, contact_id: int, channel: str = "email") -> int:
    query = text(f"SELECT {channel}_address_id FROM contact WHERE id = :id")
    return int(connection.execute(query, {"id": contact_id}).scalar_one())


def value(database: Engine, query: str, **parameters: Any) -> Any:
    with database.connect() as connection:
        return connection.scalar(text(query), parameters)


def everything(database: Engine) -> str:
    """Return every row of every table, as one text."""
    with database.connect() as connection:
        tables = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        return "\n".join(row for table in tables for row in connection.scalars(text(f"SELECT t::text FROM {table} t")))
