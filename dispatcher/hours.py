"""The hours of a week in which something is allowed, by local wall clock."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

MIDNIGHT = 24 * 60

#: The hours of one day, `[start, end)` in minutes since midnight, in order; None: nothing is said of that day.
Day = tuple[tuple[int, int], ...] | None


def _days_of(name: str) -> list[int]:
    """Return the weekdays (Monday is 0) that `daily`, `sat` or `mon-fri` speaks of."""
    if name == "daily":
        return list(range(7))
    first, _, last = name.partition("-")
    try:
        start, end = WEEKDAYS.index(first), WEEKDAYS.index(last or first)
    except ValueError as error:
        raise ValueError(f"{name!r} is no day; write daily, mon-fri, sat ...") from error
    if end < start:
        raise ValueError(f"{name!r} runs backwards; a week begins on mon")
    return list(range(start, end + 1))


def _minutes(shown: str) -> tuple[int, int]:
    found = re.fullmatch(r"([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)", shown)
    if found is None:
        raise ValueError(f"{shown!r} are no hours; write them like 09:00-20:00, or closed")
    start, end = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    if start >= MIDNIGHT or end > MIDNIGHT or start == end:
        raise ValueError(f"{shown!r} are no hours; they run from 00:00 to 24:00 and end later than they begin")
    return start, end


def _read(value: Any) -> Any:
    """Take `{daily: "08:00-20:00", sat: ["09:00-12:00", "14:00-18:00"], sun: closed}`; what comes later counts.

    Hours that end before they begin reach into the next day.
    """
    if isinstance(value, tuple):
        return value
    if not isinstance(value, dict):
        raise ValueError('is no week; write {daily = "09:00-20:00", sun = "closed"}')  # noqa: TRY004 - pydantic's way
    said: dict[int, Any] = {}
    for name, hours in value.items():
        said |= dict.fromkeys(_days_of(str(name)), hours)
    week: list[list[tuple[int, int]] | None] = [None if said.get(day) is None else [] for day in range(7)]
    for day, hours in said.items():
        for shown in () if hours in (None, "closed") else [hours] if isinstance(hours, str) else hours:
            start, end = _minutes(str(shown))
            _open(week, day, start, end if end > start else MIDNIGHT)
            if end < start and end > 0:
                _open(week, (day + 1) % 7, 0, end)
    return tuple(None if hours is None else tuple(sorted(hours)) for hours in week)


def _open(week: list[list[tuple[int, int]] | None], day: int, start: int, end: int) -> None:
    hours = week[day] if week[day] is not None else []
    assert hours is not None
    hours.append((start, end))
    week[day] = hours


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def show_week(week: tuple[Day, ...]) -> dict[str, list[str] | None]:
    """Return the week by day, each day's hours as text; an empty list is a closed day."""
    return {
        name: None if hours is None else [f"{_clock(start)}-{_clock(end)}" for start, end in hours]
        for name, hours in zip(WEEKDAYS, week, strict=True)
    }


#: Seven days, Monday first.
Week = Annotated[tuple[Day, ...], BeforeValidator(_read), PlainSerializer(show_week, when_used="json")]


def closed_hours(hours: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Return the rest of the day."""
    closed, at = [], 0
    for start, end in hours:
        if start > at:
            closed.append((at, start))
        at = max(at, end)
    return [*closed, (at, MIDNIGHT)] if at < MIDNIGHT else closed


def within(narrow: Day, wide: Day) -> bool:
    """Return whether every allowed minute of `narrow` is one of `wide`."""
    closed = closed_hours(wide or ())
    return all(
        end <= start_closed or start >= end_closed for start, end in narrow or () for start_closed, end_closed in closed
    )
