"""Frequency caps: how many slots a contact has left, and when the next one frees.

Counted is what left or may have left, by the instant it was authorised, to this contact or to this address, whichever
is more.  A message exactly one window old no longer counts.  Calendar windows are taken in every candidate zone, and
the one that allows least holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
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
    """Return the length of the cap's window; for a calendar cap the longest it can be."""
    if cap.min_gap is not None:
        return cap.min_gap
    return cap.window if cap.window is not None else _EPOCHS[cap.calendar or "month"] + timedelta(days=1)


def room_under(cap: Cap, facts: Facts, now: datetime) -> Room:
    """Return what `cap` leaves for one more message now."""
    seen = [c for c in facts.counted if c.channel in cap.channels and (cap.topics is None or c.topic in cap.topics)]
    if not seen:
        return Room(cap, 0, cap.max or 1, None)
    rooms = (
        _room(cap, sorted(c.at for c in seen if mine(c)), facts.places.zones, now)
        for mine in (_to_contact, _to_address)
    )
    return min(rooms, key=lambda room: (room.free, -(room.frees_at or now).timestamp()))


def rivals_for(cap: Cap, facts: Facts, now: datetime) -> tuple[Rival, ...]:
    """Return the better rivals that want a slot of this cap: due inside its window, before this message expires."""
    until = min(now + reach(cap), facts.expires_at)
    return tuple(
        rival
        for rival in facts.rivals
        if rival.channel in cap.channels and (cap.topics is None or rival.topic in cap.topics) and rival.due_at < until
    )


def _to_contact(counted: Counted) -> bool:
    return counted.to_contact


def _to_address(counted: Counted) -> bool:
    return counted.to_address


def _room(cap: Cap, at: list[datetime], zones: tuple[str, ...], now: datetime) -> Room:
    if cap.calendar is not None:
        return min(
            (_calendar_room(cap, cap.calendar, at, ZoneInfo(zone), now) for zone in zones or ("UTC",)),
            key=lambda room: (room.free, -(room.frees_at or now).timestamp()),
        )
    window, most = (cap.min_gap, 1) if cap.min_gap is not None else (cap.window or timedelta(0), cap.max or 1)
    inside = [t for t in at if t > now - window]
    free = most - len(inside)
    return Room(cap, len(inside), max(free, 0), None if free > 0 else inside[len(inside) - most] + window)


def _calendar_room(cap: Cap, calendar: str, at: list[datetime], zone: ZoneInfo, now: datetime) -> Room:
    today = now.astimezone(zone).date()
    begins, ends = _calendar_window(calendar, today)
    inside = [t for t in at if t >= first_instant(begins, time(0), zone)]
    free = (cap.max or 1) - len(inside)
    return Room(cap, len(inside), max(free, 0), None if free > 0 else first_instant(ends, time(0), zone))


def _calendar_window(calendar: str, today: date) -> tuple[date, date]:
    """Return the first day of the window around `today` and of the one after it; weeks are ISO weeks."""
    if calendar == "day":
        return today, today + timedelta(days=1)
    if calendar == "week":
        monday = today - timedelta(days=today.weekday())
        return monday, monday + timedelta(days=7)
    first = today.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)
