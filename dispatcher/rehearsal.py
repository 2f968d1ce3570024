"""A campaign as it would run: what a start, or its next occurrence, would freeze.  Nothing is written or locked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from dispatcher import clock, runs
from dispatcher.errors import Refused
from dispatcher.facts_page import Order, order_of
from dispatcher.schedules import Occurrence, next_occurrence
from dispatcher.shop import load_shop
from segments.definition import Segment

#: Stands where a run has its occurrence; the spread of deferrals depends on it, and so differs from the run's own.
_KEY = "rehearsed"
#: Instants beyond are slips of the pen, and some rules could not reckon around them.
_YEARS = range(1970, 2201)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A run that is not in the ledger, and how its contacts are to be judged."""

    run: runs.Run
    segment: Segment
    order: Order
    now: datetime  #: the instant it would be planned at: UTC
    occurrence: Occurrence | None  #: the scheduled one it is; None: started by hand


def rehearse(connection: Connection, name: str, *, as_of: datetime | None = None, by_hand: bool = False) -> Rehearsal:
    """Return campaign `name` as it would run now, or at `as_of`.

    A campaign of `local: true` runs at its next occurrence after that, since "now" says nothing of it; so does none
    that is started `by_hand`.  NotFound: no such campaign.  Refused: an instant centuries away.
    """
    if as_of is not None and as_of.year not in _YEARS:
        raise Refused(f"nothing can be judged in the year {as_of.year}; choose one from {_YEARS[0]} to {_YEARS[-1]}")
    now = as_of or clock.read_now(connection)
    schedule = runs.load_campaign(connection, name)[1].schedule
    occurrence = next_occurrence(schedule, now) if schedule and schedule.local and not by_hand else None
    if occurrence is not None:
        now = occurrence.at
    run, segment = runs.draft(
        connection,
        name,
        occurrence_key=occurrence.key if occurrence else _KEY,
        nominal_at=now,
        started_by="schedule" if occurrence else "rehearsal",
    )
    stopped = bool(connection.scalar(text("SELECT stopped_at IS NOT NULL FROM engine")))
    order = order_of(run, load_shop(connection), stopped=stopped, urgent=False)
    return Rehearsal(run, segment, order, now, occurrence)
