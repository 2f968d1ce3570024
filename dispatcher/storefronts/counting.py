"""How many requests came of each topic, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from dispatcher.clock import read_now

#: A topic is whatever the header says; so many are told apart, and the others share one row.
_MOST_TOPICS = 200
_OTHERS = "others"

_COUNT = text("""
INSERT INTO storefront_count (source, topic, outcome, requests, last_at)
VALUES (:source, CASE WHEN (SELECT count(DISTINCT topic) FROM storefront_count WHERE topic <> :topic) < :most
                      THEN :topic ELSE :others END, :outcome, 1, :now)
ON CONFLICT (source, topic, outcome) DO UPDATE
SET requests = storefront_count.requests + 1, last_at = GREATEST(storefront_count.last_at, excluded.last_at)
""")


@dataclass(frozen=True, slots=True)
class Count:
    source: str
    topic: str
    outcome: str
    requests: int
    last_at: datetime


def count(connection: Connection, source: str, topic: str, outcome: str) -> None:
    """Count one request that was sorted."""
    shown = "".join(c for c in topic.strip().lower()[:100] if c.isprintable()) or "no topic"
    values = {"source": source, "topic": shown, "outcome": outcome, "most": _MOST_TOPICS, "others": _OTHERS}
    connection.execute(_COUNT, values | {"now": read_now(connection)})


def counts(connection: Connection) -> list[Count]:
    """Return every count, by source and topic."""
    rows = connection.execute(
        text("SELECT source, topic, outcome, requests, last_at FROM storefront_count ORDER BY 1, 2, 3")
    )
    return [Count(*row) for row in rows]
