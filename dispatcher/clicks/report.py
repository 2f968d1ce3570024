"""The clicks of a run, by link: how many messages were clicked by people, and how many only by programs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

_CLICKS = text("""
WITH clicked AS (
    SELECT f.message_id, l.destination, bool_or(f.bot IS NULL) AS by_a_person
    FROM feedback f JOIN message m ON m.id = f.message_id
    LEFT JOIN run_link l ON l.run_id = m.run_id AND l.number = f.link
    WHERE m.run_id = :run AND f.kind = 'clicked' AND f.source = 'link' GROUP BY f.message_id, l.destination),
counted AS (
    SELECT destination, count(*) FILTER (WHERE by_a_person) AS people, count(*) FILTER (WHERE NOT by_a_person) AS bots
    FROM clicked GROUP BY destination),
listed AS (SELECT number, destination FROM run_link WHERE run_id = :run)
SELECT COALESCE(listed.destination, counted.destination) AS destination, COALESCE(people, 0) AS people,
       COALESCE(bots, 0) AS bots
FROM listed FULL JOIN counted ON counted.destination = listed.destination
ORDER BY people DESC, bots DESC, listed.number NULLS LAST
""")


def clicks_of(connection: Connection, run_id: UUID) -> list[dict[str, Any]]:
    """Return each link of a run with the number of messages in which people clicked it, and in which only bots did.

    `link` is None for all that were each message's own.  Empty for a run whose clicks are not counted.
    """
    rows = connection.execute(_CLICKS, {"run": run_id})
    return [{"link": row.destination, "people": row.people, "bots": row.bots} for row in rows]
