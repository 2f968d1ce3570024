"""How many requests came of each topic, and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from dispatcher.clock import read_now

#: A topic is whatever the header says; so many are told apart, and the others share one row.
_MOST_TOPICS = 200
_OTHERS = "others"

# In one order, so that two sorters wait for each other instead of dying in a deadlock.
_COUNT = text("""
INSERT INTO storefront_count (source, topic, outcome, requests, last_at)
SELECT source, topic, outcome, requests, :now
FROM unnest(CAST(:sources AS text[]), CAST(:topics AS text[]), CAST(:outcomes AS text[]), CAST(:requests AS bigint[]))
    AS x (source, topic, outcome, requests)
ORDER BY source, topic, outcome
ON CONFLICT (source, topic, outcome) DO UPDATE
SET requests = storefront_count.requests + excluded.requests,
    last_at = GREATEST(storefront_count.last_at, excluded.last_at)
""")


@dataclass(frozen=True, slots=True)
class Count:
    source: str
    topic: str
    outcome: str
    requests: int
    last_at: datetime


def count(connection: Connection, sorted_: Iterable[tuple[str, str, str]]) -> None:
    """Count the requests that were sorted: of each its source, its topic and what became of it."""
    known = set(connection.scalars(text("SELECT DISTINCT topic FROM storefront_count")))
    counted: Counter[tuple[str, str, str]] = Counter()
    for source, topic, outcome in sorted_:
        shown = "".join(c for c in topic.strip().lower()[:100] if c.isprintable()) or "no topic"
        if shown not in known and len(known) >= _MOST_TOPICS:
            shown = _OTHERS
        known.add(shown)
        counted[source, shown, outcome] += 1
    sources, topics, outcomes = zip(*counted, strict=True) if counted else ((), (), ())
    connection.execute(
        _COUNT,
        {
            "sources": list(sources),
            "topics": list(topics),
            "outcomes": list(outcomes),
            "requests": list(counted.values()),
            "now": read_now(connection),
        },
    )


def counts(connection: Connection) -> list[Count]:
    """Return every count, by source and topic."""
    rows = connection.execute(
        text("SELECT source, topic, outcome, requests, last_at FROM storefront_count ORDER BY 1, 2, 3")
    )
    return [Count(*row) for row in rows]
