"""What to mind before a start: one clear line each, which says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dispatcher.gates import Reason

if TYPE_CHECKING:
    from dispatcher.simulate.simulation import Simulation


def warnings_of(told: Simulation) -> list[str]:
    """Return the lines, the graver first; none: nothing stands in the way of anybody the rules allow."""
    return list(_lines(told))


def too_slow(told: Simulation) -> str | None:
    """Return the line about a lane that cannot carry everybody in time; None: it can, or has no rate."""
    late, put_off, lane = len(told.passage.expire_waiting), len(told.passage.put_off_waiting), told.lane
    if not late and not put_off:
        return None
    what = []
    if late:
        what.append(f"{_contacts(late)} would expire before their turn")
    if put_off:
        what.append(f"{_contacts(put_off)} would have their turn only after the next quiet hours")
    pace = f"sends {lane.pace}" if lane.rate_per_second else "is paused"
    if lane.days is not None:
        pace += f", and its sender is being warmed up until {lane.days.warm_up.ends_on()}"
    also = f" and has {told.passage.others:,} other messages to carry" if told.passage.others else ""
    return (
        f"it cannot finish in time: {' and '.join(what)}, because lane {lane.name} {pace}{also}; "
        f"start earlier, give more expires_after ({told.expires_after} now), or split the segment"
    )


def _lines(told: Simulation) -> Iterator[str]:
    name = told.campaign
    if told.stopped:
        yield "the engine is stopped and nothing leaves at all: dispatcher go-on lifts that"
    if not told.audience:
        yield f"nobody is in the segment: look at it with dispatcher segment count, or explain CONTACT {name}"
    elif not told.leaves and not told.waiting:
        yield "nobody would get it: the funnel says why"
    if line := too_slow(told):
        yield line
    if until := told.lane.paused_until:
        yield f"lane {told.lane.name} is paused until {until:%Y-%m-%d %H:%M} UTC: nothing leaves before"
    for gate, number in told.expired.most_common():
        yield (
            f"{_contacts(number)} would expire before {gate} lets them go: "
            f"give more expires_after ({told.expires_after} now), or start later"
        )
    if number := told.waiting[Reason.PLACE_UNKNOWN]:
        yield (
            f"for {_contacts(number)} we know no place, or no hour that suits all of them, so nothing leaves: "
            "import their country, subdivision or zone, or name [shop] countries"
        )
    for cap, number in told.capped.most_common():
        yield f"cap {cap} has no room for {_contacts(number)}: start later, or let them wait with on_cap: defer"
    for winner, number in told.outranked.most_common():
        yield (
            f"campaign {winner} goes first for {_contacts(number)}: "
            f"start {name} when it is through, or give it a higher priority"
        )
    for reason, number in told.never.most_common():
        if reason != Reason.EXPIRED:
            yield (
                f"{_contacts(number)} would be put off, and in the end left out as {reason}: "
                f"dispatcher explain CONTACT {name} says why"
            )


def _contacts(number: int) -> str:
    return f"{number:,} contact{'' if number == 1 else 's'}"
