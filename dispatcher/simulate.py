"""What a campaign would do now, for its real audience, by the same code; nothing is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from dispatcher import audience, clock, runs
from dispatcher.facts_page import order_of
from dispatcher.gates import Defer, Skip
from dispatcher.plan import judge
from dispatcher.shop import load_shop

PAGE_SIZE = 5_000


@dataclass(slots=True)
class Funnel:
    """How many of the audience would be sent to at their own due time, put off, or left out, and why."""

    audience: int
    send: int = 0
    defer: Counter[str] = field(default_factory=Counter)
    skip: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        return {
            "audience": self.audience,
            "send": self.send,
            "defer": dict(self.defer.most_common()),
            "skip": dict(self.skip.most_common()),
        }


def simulate(connection: Connection, name: str, *, as_of: datetime | None = None) -> dict[str, Any]:
    """Return the funnel of a run of campaign `name` started now, or at `as_of`: audience = send + defer + skip."""
    now = as_of or clock.read_now(connection)
    run, segment = runs.draft(connection, name, occurrence_key="simulated", nominal_at=now, started_by="simulate")
    stopped = bool(connection.scalar(text("SELECT stopped_at IS NOT NULL FROM engine")))
    order = order_of(run, load_shop(connection), stopped=stopped, urgent=False)
    contact_ids = audience.contact_ids(connection, segment, now)
    funnel = Funnel(len(contact_ids))
    taken: dict[int, str] = {}
    for start in range(0, len(contact_ids), PAGE_SIZE):
        for planned in judge(connection, run, order, contact_ids[start : start + PAGE_SIZE], now, taken):
            match planned.verdict:
                case Skip(reason=reason):
                    funnel.skip[reason] += 1
                case Defer(reason=reason):
                    funnel.defer[reason] += 1
                case _:
                    funnel.send += 1
    return funnel.as_json()
