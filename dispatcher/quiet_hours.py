"""When we stay silent.

A silence `[start, end)` on local date d is the UTC interval from the first instant of `start` to the last instant of
`end`: an edge that a clock change skips is the first instant after the gap, and where the clock shows an hour twice the
silence begins with the first and ends with the second.  Silences belong to the day they start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from dispatcher.definitions import WEEKDAYS, Silence

#: Between our decision and the provider's, bytes travel: the message must still be welcome this much later.
GUARD = {"email": timedelta(minutes=5), "sms": timedelta(minutes=15)}

#: Prudent default of the messaging platforms for marketing texts where no law says more: silence from 20:00 to 08:00.
DEFAULT_SMS_SILENCE = Silence(start=time(20), end=time(8))

_HORIZON = timedelta(days=9)  # beyond the longest expiry nothing needs an answer
_LOOK_BACK = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class LocalSilence:
    """What must be kept silent by the clocks of one zone."""

    zone: str  #: IANA
    silences: tuple[Silence, ...]
    holidays: tuple[str, ...]  #: calendars whose days are silent whole: a country like FR, or a part of one like US-PA
    source: str  #: whose rule this is: the id of a contact window like US-TX, "shop" or "person"


@dataclass(frozen=True, slots=True)
class Opening:
    """A time in which a message may leave: from `opens_at` until just before `closes_at` (None: past the horizon)."""

    opens_at: datetime
    closes_at: datetime | None


def next_opening(now: datetime, silences: tuple[LocalSilence, ...], guard: timedelta) -> Opening | None:
    """Return the first opening at or after `now` that leaves room for `guard`; it begins at `now` if that is open.

    All silences must be over, each by the clocks of its zone.  None: there is no such time within nine days.
    """
    if not silences:
        return Opening(now, None)
    starts, ends = _merged(silences, now.astimezone(UTC).date())
    at = now
    index = bisect_right(starts, at) - 1
    if index >= 0 and at < ends[index]:
        at = ends[index]
    for following in range(index + 1, len(starts)):
        if at + guard < starts[following]:
            return Opening(at, starts[following])
        at = max(at, ends[following])
    return Opening(at, None) if at < now + _HORIZON else None


@lru_cache(maxsize=2048)
def _merged(silences: tuple[LocalSilence, ...], day: date) -> tuple[tuple[datetime, ...], tuple[datetime, ...]]:
    """Return starts and ends (UTC) of the union of all silences around `day`, in order and without overlap."""
    intervals = sorted(
        interval
        for local in silences
        for silence in local.silences
        for interval in _intervals(ZoneInfo(local.zone), silence, day)
    )
    starts: list[datetime] = []
    ends: list[datetime] = []
    for start, end in intervals:
        if ends and start <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    return tuple(starts), tuple(ends)


def _intervals(zone: ZoneInfo, silence: Silence, day: date) -> Iterator[tuple[datetime, datetime]]:
    first = day - _LOOK_BACK
    for offset in range((_LOOK_BACK + _HORIZON).days + 3):
        local_day = first + timedelta(days=offset)
        if WEEKDAYS[local_day.weekday()] not in silence.days:
            continue
        end_day = local_day + timedelta(days=1) if silence.ends_next_day else local_day
        start = first_instant(local_day, silence.start, zone)
        end = last_instant(end_day, silence.end, zone)
        if start < end:
            yield start, end


def first_instant(day: date, wall: time, zone: ZoneInfo) -> datetime:
    """Return the first UTC instant at which clocks in `zone` show `wall` on `day`, or the end of a gap over it."""
    return _instant(datetime.combine(day, wall), zone, last=False)


def last_instant(day: date, wall: time, zone: ZoneInfo) -> datetime:
    """Return the last UTC instant at which clocks in `zone` show `wall` on `day`, or the end of a gap over it."""
    return _instant(datetime.combine(day, wall), zone, last=True)


def _instant(wall: datetime, zone: ZoneInfo, *, last: bool) -> datetime:
    early, late = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if early.astimezone(zone).replace(tzinfo=None) == wall:  # it exists; twice where the folds differ
        return late if last else early
    # In a gap fold=1 reads the clock after the change, which lies before the gap, and fold=0 the other way round:
    # the change is between the two.
    return _end_of_gap(late, early, zone)


def _end_of_gap(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant of the clock change in (before, after], to the second."""
    old = before.astimezone(zone).utcoffset()
    low, high = before, after
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
        if middle.astimezone(zone).utcoffset() == old:
            low = middle
        else:
            high = middle
    return high
