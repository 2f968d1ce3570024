"""The rate in force: what a provider bears today, found by its own words.  Values only.

Halved when the provider says that it has enough (multiplicative decrease), and from there up again by a hundredth of
the whole a second (additive increase), as TCP does it.  Never above what the shop configured.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

DECREASE = 0.5
#: Of the whole, each second: from a half back to the whole in 50 s.
INCREASE = 0.01
#: Of the whole: a provider that still has enough makes its lanes rest.
LEAST = 0.02
#: Hands that hear of the same limit within this time mean one event.
ONE_EVENT = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Pace:
    """What an account may do: `whole` is the configured rate, or without one what was reached when it was too much."""

    configured: float | None = None  #: units a second; None: as fast as the provider takes it
    whole: float | None = None  #: what it climbs up to; None: it was never lowered
    lowered_to: float | None = None
    lowered_at: datetime | None = None

    def at(self, now: datetime) -> float | None:
        """Return the rate in force; None: no limit."""
        if self.whole is None or self.lowered_to is None or self.lowered_at is None:
            return self.configured
        climbed = self.lowered_to + self.whole * INCREASE * max(0.0, (now - self.lowered_at).total_seconds())
        if climbed >= self.whole:
            return self.configured
        return climbed if self.configured is None else min(climbed, self.configured)


def after_enough(pace: Pace, reached: float, now: datetime) -> Pace:
    """Return the pace after a "too many requests"; `reached`: units a second just now, for who has no rate."""
    if pace.lowered_at is not None and now - pace.lowered_at < ONE_EVENT:
        return pace
    before = pace.at(now)
    whole = pace.configured or (pace.whole if before is not None and pace.whole else max(reached, 1.0))
    lowered = max((before if before is not None else whole) * DECREASE, whole * LEAST)
    return Pace(pace.configured, whole, lowered, now)


def after_allowance(pace: Pace, units: float, window: timedelta, reached: float, now: datetime) -> Pace:
    """Return the pace after a provider said that it takes `units` more within `window`: spread over it, not faster."""
    says = units / max(window.total_seconds(), 1.0)
    before = pace.at(now)
    if says >= (before if before is not None else reached):
        return pace
    whole = pace.configured or max(reached, pace.whole or 0.0, 1.0)
    return Pace(pace.configured, whole, max(says, whole * LEAST), now)
