"""GCRA: how a rate is kept by one instant, the theoretical arrival of the next unit.  Values only.

In any span of t seconds at most rate x t + burst units are taken, whatever is asked for and however often.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta

#: Beyond this an arrival in the future is no debt: the clock was set back.
_CLOCK_SET_BACK = timedelta(minutes=1)
_MICROSECOND = timedelta(microseconds=1)


class Bucket:
    """The state of one rate at `now`, from which units are taken."""

    def __init__(self, per_second: float, burst: int, arrival: datetime | None, now: datetime) -> None:
        self.per_second, self.burst, self._now = per_second, burst, now
        begin = max(arrival or now, now)
        full_debt = now + timedelta(seconds=burst / per_second)
        #: Whether the clock was set back since: the arrival is to be written although nothing was taken.
        self.mended = begin > full_debt + timedelta(seconds=40 / per_second) + _CLOCK_SET_BACK
        self._begin = full_debt if self.mended else begin
        self.taken = 0

    @property
    def arrival(self) -> datetime:
        """The theoretical arrival after what was taken; rounded up, so that no rounding makes it faster."""
        return self._begin + _MICROSECOND * math.ceil(self.taken / self.per_second * 1e6)

    @property
    def full(self) -> bool:
        """Whether nobody has used it for as long as it takes to fill: nobody waits for it, then."""
        return self.arrival <= self._now

    def opens_at(self, units: int) -> datetime:
        """Return from when on `units` more may be taken together; what is larger than the burst needs a full bucket."""
        ahead = (self.taken + min(units, self.burst) - self.burst) / self.per_second
        return max(self._now, self._begin + _MICROSECOND * math.ceil(ahead * 1e6))

    def has(self, units: int) -> bool:
        """Return whether `units` more may be taken now."""
        return self.opens_at(units) <= self._now

    def take(self, units: int) -> None:
        self.taken += units


def opens_at(buckets: Iterable[Bucket], units: int, now: datetime) -> datetime:
    """Return from when on every one of the buckets has `units`."""
    return max((bucket.opens_at(units) for bucket in buckets), default=now)


def rescaled(arrival: datetime | None, now: datetime, was: float, becomes: float) -> datetime | None:
    """Return the arrival at another rate, with as many units owed as before."""
    if arrival is None or arrival <= now or math.isinf(was):
        return arrival
    return now + (arrival - now) * (was / becomes)
