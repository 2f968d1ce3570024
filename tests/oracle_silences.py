"""When it is silent, judged by wall clocks alone: a second opinion, slow and independent of `dispatcher.quiet_hours`.

An instant t lies in the silence [s, e) of a local day if clocks have shown s or later by t, and will still show a time
before e at t or after it, or e itself after it.  So no clock change is ever looked up: instants are turned into wall
time, and that is all.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from itertools import accumulate
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class Hours:
    """A silence as the oracle knows it."""

    zone: str
    start: time
    end: time  #: midnight, or not after `start`: on the next day
    days: frozenset[int]  #: Monday is 0


class WallClock:
    """What clocks in a zone show at every step from `start` on: the latest so far, and the earliest from there on."""

    def __init__(self, zone: str, start: datetime, step: timedelta, steps: int) -> None:
        where = ZoneInfo(zone)
        shown = [(start + step * number).astimezone(where).replace(tzinfo=None) for number in range(steps)]
        self.latest_so_far = list(accumulate(shown, max))
        self.earliest_from_here = list(accumulate(reversed(shown), min))[::-1]
        self.days = sorted({wall.date() for wall in shown})


@lru_cache(maxsize=64)
def wall_clock(zone: str, start: datetime, step: timedelta, steps: int) -> WallClock:
    return WallClock(zone, start, step, steps)


def silent_steps(start: datetime, step: timedelta, steps: int, rules: tuple[Hours, ...]) -> bytearray:
    """Return for each step from `start` on whether it is silent (1) by any of the rules.

    Whole days must lie before and after what is asked about: a silence that began before `start` is not seen.
    """
    silent = bytearray(steps)
    for rule in rules:
        clock = wall_clock(rule.zone, start, step, steps)
        first, last = clock.days[0] - timedelta(days=1), clock.days[-1]
        for offset in range((last - first).days + 1):
            day = first + timedelta(days=offset)
            if day.weekday() not in rule.days:
                continue
            begins, ends = datetime.combine(day, rule.start), datetime.combine(_end_day(day, rule), rule.end)
            low = bisect_left(clock.latest_so_far, begins)
            # until clocks show no time before the end any more, or the end itself for the last time
            high = max(bisect_left(clock.earliest_from_here, ends), bisect_right(clock.earliest_from_here, ends) - 1)
            if high > low:
                silent[low:high] = b"\1" * (high - low)
    return silent


def _end_day(day: date, rule: Hours) -> date:
    return day + timedelta(days=1) if rule.end <= rule.start else day
