"""Frequency caps: how many slots a contact has left, and when the next one frees.

Counted is what left or may have left, by the instant it was authorised, to this contact or to this address, whichever
is more.  A message exactly one window old no longer counts.  Calendar windows are taken in every candidate zone, and
the one that allows least holds.  With time alone a count only falls, so an instant at which every cap has let go is
one at which all of them are free.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from dispatcher.definitions import Cap
from dispatcher.facts import Counted, Facts, Rival
from dispatcher.quiet_hours import first_instant

_EPOCHS = {"day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=31)}


@dataclass(frozen=True, slots=True)
class Room:
    """What one cap leaves: free slots now, and if none, when one frees."""

    cap: Cap
    counted: int
    free: int
    frees_at: datetime | None  #: None while there is a free slot


def longest_window(caps: tuple[Cap, ...]) -> timedelta:
    """Return how far back any of the caps can look."""
    return max((reach(cap) for cap in caps), default=timedelta(0))


def reach(cap: Cap) -> timedelta:
    """Return the length of the cap's window; for a calendar cap more than the longest it can be."""
    if cap.calendar is not None:
        return _EPOCHS[cap.calendar] + timedelta(days=1)
    return _rolling(cap)[0]


def room_under(cap: Cap, facts: Facts, now: datetime) -> Room:
    """Return what `cap` leaves for one more message now."""
    seen = [c for c in facts.counted if _speaks_of(cap, c)]
    if not seen:
        return Room(cap, 0, cap.max or 1, None)
    rooms = (
        _room(cap, sorted(c.at for c in seen if mine(c)), facts.places.zones, now)
        for mine in (_to_contact, _to_address)
    )
    return min(rooms, key=_least_free)


def rivals_for(cap: Cap, facts: Facts, now: datetime) -> tuple[Rival, ...]:
    """Return, best first, the rivals that go before this message and want a slot of this cap that it would take.

    They are due, or become due before this message expires and while it would still count if it left now.
    """
    until = min(_counts_until(cap, facts.places.zones, now), facts.expires_at)
    return tuple(
        rival
        for rival in facts.rivals
        if rival.due_at < until and _speaks_of(cap, rival) and (facts.rank is None or rival.rank < facts.rank)
    )


def _speaks_of(cap: Cap, message: Counted | Rival) -> bool:
    return message.channel in cap.channels and (cap.topics is None or message.topic in cap.topics)


def _to_contact(counted: Counted) -> bool:
    return counted.to_contact


def _to_address(counted: Counted) -> bool:
    return counted.to_address


def _least_free(room: Room) -> tuple[int, float]:
    """Sort first what allows least: the fewest free slots, and of none the one that frees last."""
    return room.free, -room.frees_at.timestamp() if room.frees_at else 0.0


def _counts_until(cap: Cap, zones: tuple[str, ...], now: datetime) -> datetime:
    """Return the instant from which a message authorised now no longer counts, in any of the zones."""
    if cap.calendar is None:
        return now + _rolling(cap)[0]
    return max(ends for _, ends in _windows(cap.calendar, zones, now))


def _room(cap: Cap, at: list[datetime], zones: tuple[str, ...], now: datetime) -> Room:
    if cap.calendar is not None:
        windows = _windows(cap.calendar, zones, now)
        return min((_calendar_room(cap, at, zones, window) for window in windows), key=_least_free)
    window, most = _rolling(cap)
    inside = [t for t in at if t > now - window]
    free = most - len(inside)
    return Room(cap, len(inside), max(free, 0), None if free > 0 else inside[len(inside) - most] + window)


def _rolling(cap: Cap) -> tuple[timedelta, int]:
    """Return the window of a cap that is no calendar cap, and how many it allows; a least gap allows one."""
    return (cap.min_gap, 1) if cap.min_gap is not None else (cap.window or timedelta(0), cap.max or 1)


def _calendar_room(cap: Cap, at: list[datetime], zones: tuple[str, ...], window: tuple[datetime, datetime]) -> Room:
    begins, ends = window
    most = cap.max or 1
    inside = [t for t in at if t >= begins]
    free = most - len(inside)
    if free > 0:
        return Room(cap, len(inside), free, None)
    in_the_way = inside[len(inside) - most]
    if in_the_way >= ends:  # the clock was set back since
        ends = _counts_until(cap, zones, in_the_way)
    return Room(cap, len(inside), 0, ends)


@lru_cache(maxsize=4096)
def _windows(calendar: str, zones: tuple[str, ...], at: datetime) -> tuple[tuple[datetime, datetime], ...]:
    """Return the first instant of the day, week or month around `at`, and that of the one after it; one for all zones
    where that is the same.

    A day lasts from its first existing instant to that of the next, whatever the clocks show in between.
    """
    return tuple(sorted({_window_of(calendar, zone, _day(zone, at)) for zone in zones or ("UTC",)}))


def _day(zone: str, at: datetime) -> date:
    day = at.astimezone(ZoneInfo(zone)).date()
    tomorrow = day + timedelta(days=1)
    # Where clocks go back across midnight, the new day has begun before the old one is shown again.
    return tomorrow if _midnight(zone, tomorrow) <= at else day


@lru_cache(maxsize=4096)
def _midnight(zone: str, day: date) -> datetime:
    return first_instant(day, time(0), ZoneInfo(zone))


@lru_cache(maxsize=4096)
def _window_of(calendar: str, zone: str, day: date) -> tuple[datetime, datetime]:
    first, following = _days_of(calendar, day)
    return _midnight(zone, first), _midnight(zone, following)


def _days_of(calendar: str, day: date) -> tuple[date, date]:
    """Return the first day of the window around `day` and of the one after it; weeks are ISO weeks."""
    if calendar == "day":
        return day, day + timedelta(days=1)
    if calendar == "week":
        monday = day - timedelta(days=day.weekday())
        return monday, monday + timedelta(days=7)
    first = day.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)
