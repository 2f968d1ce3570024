"""What a campaign would do, for its real audience and by the code that plans and sends; nothing is written.

The funnel is the verdict of each contact at their own due time.  The timeline goes on from there: it follows what is
put off to the hour in which it would leave, behind whatever else the lane has to carry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, text

from dispatcher import audience
from dispatcher.errors import Refused
from dispatcher.gates import Defer, Reason, Send, Skip
from dispatcher.outlook import follow
from dispatcher.plan import Planned, judge
from dispatcher.rehearsal import Rehearsal, rehearse
from dispatcher.shop import load_shop
from dispatcher.simulate.lengths import parts_each
from dispatcher.simulate.pace import Ready, pass_through, read_lane
from dispatcher.simulate.simulation import Simulation
from dispatcher.simulate.warnings import too_slow

__all__ = ["PAGE_SIZE", "Progress", "Simulation", "refuse_unfinished", "simulate"]

PAGE_SIZE = 5_000

Progress = Callable[[int, int], None]
"""Called with (contacts judged, contacts in all)."""


def simulate(
    connection: Connection, name: str, *, as_of: datetime | None = None, by_hand: bool = False,
    progress: Progress | None = None,
) -> Simulation:  # fmt: skip
    """Return what a run of campaign `name` planned now, or at `as_of`, would do.

    Of a `local: true` campaign it is the next occurrence, unless it is started `by_hand`.  The connection may be read
    only; for one consistent answer it should see one snapshot (`db.reading`).
    """
    rehearsal = rehearse(connection, name, as_of=as_of, by_hand=by_hand)
    contact_ids = audience.contact_ids(connection, rehearsal.segment, rehearsal.now)
    told = _begin(connection, rehearsal, len(contact_ids))
    ready: list[Ready] = []
    taken: dict[int, str] = {}
    for start in range(0, len(contact_ids), PAGE_SIZE):
        page = contact_ids[start : start + PAGE_SIZE]
        for planned in judge(connection, rehearsal.run, rehearsal.order, page, rehearsal.now, taken):
            _count(told, planned)
            _look_ahead(told, planned, ready)
        if progress is not None:
            progress(start + len(page), len(contact_ids))
    latest = max((one.facts.expires_at for one in ready), default=rehearsal.now)
    told.lane = read_lane(connection, rehearsal.run.lane, rehearsal.now, latest)
    if told.lane.rate_per_second is not None and rehearsal.run.channel == "sms":
        told.lane = replace(told.lane, units_each=parts_each(connection, rehearsal.run, contact_ids))
    told.passage = pass_through(told.lane, ready, rehearsal.now)
    if told.passage.expire_waiting:
        told.never[Reason.EXPIRED] += len(told.passage.expire_waiting)
    return told


def refuse_unfinished(connection: Connection, name: str, progress: Progress | None = None) -> None:
    """Refuse a start by hand that the lane's rate cannot finish in time; without a rate there is nothing to ask."""
    lane = rehearse(connection, name, by_hand=True)
    if not read_lane(connection, lane.run.lane, lane.now, lane.now).limited:
        return
    told = simulate(connection, name, by_hand=True, progress=progress)
    if line := too_slow(told):
        raise Refused(f"{line}; if you mean it all the same, add --even-unfinished")


def _begin(connection: Connection, rehearsal: Rehearsal, people: int) -> Simulation:
    run = rehearsal.run
    assert run.campaign is not None  # a rehearsal is of a campaign
    return Simulation(
        campaign=run.name,
        as_of=rehearsal.now,
        occurrence=rehearsal.occurrence.key if rehearsal.occurrence else None,
        shop_zone=load_shop(connection).shop.zone,
        audience=people,
        stopped=bool(connection.scalar(text("SELECT stopped_at IS NOT NULL FROM engine"))),
        expires_after=str(run.campaign.model_dump(mode="json")["expires_after"]),
    )


def _count(told: Simulation, planned: Planned) -> None:
    places = planned.facts.places
    told.known_from[places.candidates[0].known_from if places.candidates else "nothing"] += 1
    told.places_unknown += not places.candidates
    match planned.verdict:
        case Skip(reason=reason, facts=facts):
            told.skip[reason] += 1
            if reason is Reason.CAPPED:
                told.capped[facts["cap"]] += 1
            elif reason is Reason.EXPIRED and "blocked_by" in facts:
                told.expired[facts["blocked_by"]] += 1
        case Defer(reason=reason, facts=facts):
            told.defer[reason] += 1
            if reason is Reason.CAPPED:
                told.capped[facts["cap"]] += 1
            elif reason is Reason.OUTRANKED:
                told.outranked[facts["campaign"]] += 1
        case Send():
            told.send += 1


def _look_ahead(told: Simulation, planned: Planned, ready: list[Ready]) -> None:
    if isinstance(planned.verdict, Send):
        ready.append(Ready(planned.due_at, planned.facts))
    elif isinstance(planned.verdict, Defer):
        outlook = follow(planned.facts, planned.due_at, planned.verdict)
        if outlook.leaves_at is not None:
            ready.append(Ready(outlook.leaves_at, planned.facts))
        elif outlook.never is not None:
            told.never[outlook.never] += 1
        elif outlook.waits_for is not None:
            told.waiting[outlook.waits_for] += 1
