"""Who did what through API, CLI and console.  Append-only, and never with an address in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import Connection, text

_RECORD = text(
    "INSERT INTO audit (actor, action, subject, details) VALUES (:actor, :action, :subject, CAST(:details AS jsonb))"
)


def record(
    connection: Connection, actor: str, action: str, subject: str, details: Mapping[str, Any] | None = None
) -> None:
    """Write down that `actor` did `action` to `subject`, in the transaction that did it."""
    connection.execute(
        _RECORD,
        {
            "actor": actor,
            "action": action,
            "subject": subject,
            "details": orjson.dumps(dict(details or {}), default=str).decode(),
        },
    )
