"""When we stay silent.

A silence `[start, end)` on local date d is the UTC interval from the first instant of `start` to the last instant of
`end`: an edge that a clock change skips is the first instant after the gap, and where the clock shows an hour twice the
silence begins with the first and ends with the second.  Silences belong to the day they start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from dispatcher.calendars import days_of, is_known
from dispatcher.definitions import Silence
from dispatcher.hours import WEEKDAYS

#: Between our decision and the provider's, bytes travel: the message must still be welcome this much later.
GUARD = {"email": timedelta(minutes=5), "sms": timedelta(minutes=15)}

HORIZON = timedelta(days=9)  #: beyond the longest expiry nothing needs an answer
_LOOK_BACK = timedelta(days=2)
_WHOLE_DAY = Silence(start=time(0), end=time(0))


@dataclass(frozen=True, slots=True)
class LocalSilence:
    """What must be kept silent by the clocks of one zone."""

    zone: str  #: IANA
    silences: tuple[Silence, ...]
    holidays: tuple[str, ...]  #: calendars whose days are silent whole: a country like FR, or a part of one like US-PA
    source: str  #: whose rule this is: the id of a contact window like US-TX, "shop" or "person"
    before_holidays: tuple[Silence, ...] = ()  #: kept besides on the day before a holiday, whatever its weekday


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
    return Opening(at, None) if at < now + HORIZON else None


@lru_cache(maxsize=2048)
def in_effect(now: datetime, silences: tuple[LocalSilence, ...], guard: timedelta) -> tuple[str, ...]:
    """Return the sources of the silences that hold at `now`, or begin within `guard`; each once."""
    holding = (local for local in silences if (one := next_opening(now, (local,), guard)) is None or one.opens_at > now)
    return tuple(dict.fromkeys(local.source for local in holding))


@lru_cache(maxsize=4096)
def _merged(silences: tuple[LocalSilence, ...], day: date) -> tuple[tuple[datetime, ...], tuple[datetime, ...]]:
    """Return starts and ends (UTC) of the union of all silences around `day`, in order and without overlap."""
    intervals = sorted(interval for local in silences for interval in _intervals(local, day))
    starts: list[datetime] = []
    ends: list[datetime] = []
    for start, end in intervals:
        if ends and start <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    return tuple(starts), tuple(ends)


def _intervals(local: LocalSilence, day: date) -> Iterator[tuple[datetime, datetime]]:
    """Yield every silence that begins on one of the local days around `day`."""
    zone = ZoneInfo(local.zone)
    days = [day + timedelta(days=offset) for offset in range(-_LOOK_BACK.days, HORIZON.days + 3)]
    holidays = _holidays(local.holidays, days[0].year, days[-1].year + 1)
    for local_day in days:
        if local_day in holidays:
            yield from _interval(_WHOLE_DAY, local_day, zone)
        for silence in local.silences:
            if WEEKDAYS[local_day.weekday()] in silence.days:
                yield from _interval(silence, local_day, zone)
        if local.before_holidays and local_day + timedelta(days=1) in holidays:
            for silence in local.before_holidays:
                yield from _interval(silence, local_day, zone)


def _interval(silence: Silence, local_day: date, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime]]:
    end_day = local_day + timedelta(days=1) if silence.ends_next_day else local_day
    start = first_instant(local_day, silence.start, zone)
    end = last_instant(end_day, silence.end, zone)
    if start < end:
        yield start, end


@lru_cache(maxsize=1024)
def _holidays(calendars: tuple[str, ...], first_year: int, last_year: int) -> frozenset[date]:
    years = range(first_year, last_year + 1)
    return frozenset().union(*(days_of(calendar, year) for calendar in calendars for year in years))


@lru_cache(maxsize=1024)
def unknown_calendars(silences: tuple[LocalSilence, ...]) -> tuple[str, ...]:
    """Return the calendars that these silences need and that we do not have: their holidays cannot be kept."""
    return tuple(sorted({name for local in silences for name in local.holidays if not is_known(name)}))


def first_instant(day: date, wall: time, zone: tzinfo) -> datetime:
    """Return the first UTC instant at which clocks in `zone` show `wall` on `day`, or the end of a gap over it."""
    return _instant(datetime.combine(day, wall), zone, last=False)


def last_instant(day: date, wall: time, zone: ZoneInfo) -> datetime:
    """Return the last UTC instant at which clocks in `zone` show `wall` on `day`, or the end of a gap over it."""
    return _instant(datetime.combine(day, wall), zone, last=True)


def _instant(wall: datetime, zone: tzinfo, *, last: bool) -> datetime:
    early, late = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if early.astimezone(zone).replace(tzinfo=None) == wall:  # it exists; twice where the folds differ
        return late if last else early
    # In a gap fold=1 reads the clock after the change, which lies before the gap, and fold=0 the other way round:
    # the change is between the two.
    return _end_of_gap(late, early, zone)


def _end_of_gap(before: datetime, after: datetime, zone: tzinfo) -> datetime:
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
