"""Why did this contact get a trigger's message, or not?  What `explain` needs of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from dispatcher.errors import Refused
from dispatcher.facts import Facts
from dispatcher.facts_page import order_of, read_facts
from dispatcher.runs import load_run
from dispatcher.shop import load_shop


def is_trigger(connection: Connection, name: str) -> bool:
    """Whether `name` is a trigger, a retired one included."""
    return bool(connection.scalar(text("SELECT EXISTS (SELECT FROM trigger WHERE name = :name)"), {"name": name}))


@dataclass(frozen=True, slots=True)
class Asked:
    """The message of a trigger that is explained: the newest of this contact."""

    external_id: str
    facts: Facts
    ledger: dict[str, Any]


_NEWEST = text("""
    SELECT m.id AS message, m.run_id AS run, m.status, m.reason, m.deferred_reason, m.facts, m.due_at, m.first_due_at,
           m.expires_at, m.authorised_at, m.handed_over_at, m.settled_at, r.occurrence_key, r.tzdata
    FROM message m JOIN run r ON r.id = m.run_id JOIN trigger g ON g.id = m.trigger_id
    WHERE m.contact_id = :contact AND g.name = :name AND (CAST(:run AS uuid) IS NULL OR m.run_id = :run)
    ORDER BY m.id DESC LIMIT 1
""")


def ask(connection: Connection, name: str, contact_id: int, now: datetime, run: UUID | None, *, stopped: bool) -> Asked:
    """Return the facts of the contact's newest message of this trigger, as of `now`.

    Refused if it has none: then no event has started one.
    """
    row = connection.execute(_NEWEST, {"contact": contact_id, "name": name, "run": run}).one_or_none()
    if row is None:
        raise Refused(f"no event of this contact has started trigger {name}, so it has no message for them")
    order = order_of(load_run(connection, row.run), load_shop(connection), stopped=stopped, urgent=False)
    page: Sequence[tuple[str, Facts]] = read_facts(
        connection, order, [contact_id], now=now, expires_at=row.expires_at, first_due_at=row.first_due_at,
        messages=[row.message],
    )  # fmt: skip
    [(external_id, facts)] = page
    return Asked(external_id, facts, dict(row._mapping))
