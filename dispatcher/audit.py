"""Who did what through API, CLI and console.  Append-only, and never with an address in it.

Whoever is named, is named by number: `contact 17`.  The database refuses to change it, and `audit_chain` finds out who
did all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

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


class Entry(NamedTuple):
    """One thing somebody did."""

    id: int
    at: datetime  #: by the database's own clock
    actor: str
    action: str
    subject: str
    details: dict[str, Any]


# A contact by its number; older entries name it without the word, and a merge names the other one in its details.
_ENTRIES = text("""
    SELECT id, at, actor, action, subject, details FROM audit
    WHERE (CAST(:numbers AS text[]) IS NULL OR subject = ANY(CAST(:subjects AS text[]))
           OR action = 'contact.merge' AND details->>'loser' = ANY(CAST(:numbers AS text[])))
      AND (CAST(:action AS text) IS NULL OR action = :action OR starts_with(action, :action || '.'))
      AND (CAST(:since AS timestamptz) IS NULL OR at >= :since)
    ORDER BY id DESC LIMIT :most
""")
_SAME_PERSON = text("""
    WITH today AS (SELECT COALESCE(merged_into, id) AS id FROM contact WHERE id = :id)
    SELECT id FROM today UNION SELECT t.id FROM today JOIN contact t ON t.merged_into = today.id
""")


def entries(
    connection: Connection,
    *,
    contact_id: int | None = None,
    action: str | None = None,
    since: datetime | None = None,
    most: int | None = None,
) -> list[Entry]:
    """Return the newest `most` entries that fit, oldest first; all of them without.

    `contact_id`: what concerns that person, as whichever of the contacts they were.  `action`: one, or all that begin
    with it and a dot.
    """
    numbers = None
    if contact_id is not None:
        numbers = [str(number) for number in connection.scalars(_SAME_PERSON, {"id": contact_id})]
    found = connection.execute(
        _ENTRIES,
        {
            "numbers": numbers,
            "subjects": [name for number in numbers or () for name in (number, f"contact {number}")],
            "action": action,
            "since": since,
            "most": most,
        },
    )
    return [Entry(*row) for row in found][::-1]
