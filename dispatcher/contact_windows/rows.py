"""The rows of rows.yaml: when the law, or a code of practice, of a place lets marketing through."""

from __future__ import annotations

from datetime import date, time, timedelta
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from dispatcher import calendars as known_calendars
from dispatcher.definitions import Country, Definition, Silence, WindowChange, Zone
from dispatcher.hours import MIDNIGHT, WEEKDAYS, Day, Week, Weekday, closed_hours, within
from segments.durations import Duration

DEFAULT_ROW = "GLOBAL"


class LawCap(Definition):
    """At most `max` messages per rolling window to one person."""

    max: Annotated[int, Field(ge=1)]
    window: Duration
    same_topic: bool = False  # "the same subject matter" is our topic


class Row(Definition):
    id: Annotated[str, Field(pattern=r"^[A-Z][A-Z-]*$")]
    country: Country | None = None  # None: the default row
    subdivision: str | None = None  # ISO 3166-2 without the country; "unknown": where none is known
    channels: tuple[Literal["email", "sms", "voice"], ...] = ("sms",)
    windows: Week | None
    holidays: Literal["closed", "open"] | None = None
    calendars: tuple[str, ...] = ()
    eve: Weekday | None = None
    also_in: Zone | None = None
    caps: tuple[LawCap, ...] = ()
    effective: date = date.min
    reach: Literal["texts", "any solicitation", "calls", "carriers", "none"]
    standing: Literal["law", "regulator guidance", "industry code", "prudent default"]
    basis: str
    sources: tuple[str, ...]
    note: str

    @field_validator("calendars")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in value if not known_calendars.is_known(name)]:
            raise ValueError(f"there is no calendar {unknown[0]}")
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> Row:
        if (self.holidays == "closed") != bool(self.calendars):
            raise ValueError("a row that closes for holidays names its calendars, and no other does")
        return self


@cache
def load_rows() -> dict[str, Row]:
    """Return the rows by id; ValidationError if the file we ship is wrong."""
    text = resources.files(__package__).joinpath("rows.yaml").read_text(encoding="utf-8")
    document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe, and in C
    rows = [Row.model_validate(row) for row in document["rows"]]
    if len({row.id for row in rows}) != len(rows):
        raise ValueError("two contact windows have one id")
    return {row.id: row for row in rows}


def day_of(row: Row, day: int, parent: Row | None) -> tuple[tuple[int, int], ...]:
    """Return the row's hours on a weekday; where it says nothing, its parent's or the default's."""
    for said in (row, parent, load_rows()[DEFAULT_ROW]):
        if said is not None and said.windows is not None and said.windows[day] is not None:
            return said.windows[day] or ()
    return ()


def silences_of(row: Row, parent: Row | None) -> tuple[Silence, ...]:
    """Return what the row keeps silent in a week: the rest of each day."""
    days: dict[tuple[int, int], list[Weekday]] = {}
    for index, name in enumerate(WEEKDAYS):
        for hours in closed_hours(day_of(row, index, parent)):
            days.setdefault(hours, []).append(name)
    return tuple(_silence(hours, tuple(names)) for hours, names in sorted(days.items()))


def eve_silences_of(row: Row, parent: Row | None) -> tuple[Silence, ...]:
    """Return what the row keeps silent on the day before a holiday, beside the weekday's own."""
    if row.eve is None:
        return ()
    hours = closed_hours(day_of(row, WEEKDAYS.index(row.eve), parent))
    return tuple(_silence(closed, WEEKDAYS) for closed in hours)


def _silence(hours: tuple[int, int], days: tuple[Weekday, ...]) -> Silence:
    start, end = hours
    return Silence(start=_time(start), end=_time(end % MIDNIGHT), days=days)


def _time(minutes: int) -> time:
    return time(minutes // 60, minutes % 60)


def loosened_fields(row: Row, change: WindowChange) -> list[str]:
    """Return which fields of a shop's change let through what the row does not."""
    if change.off:
        return ["off"]
    fields = []
    if change.windows is not None and not all(_no_wider(row, change.windows[day], day) for day in range(7)):
        fields.append("windows")
    if change.holidays == "open" and row.holidays == "closed":
        fields.append("holidays")
    return fields


def _no_wider(row: Row, hours: Day, day: int) -> bool:
    return hours is None or within(hours, day_of(row, day, load_rows().get(row.country or "")))


def changed(row: Row, change: WindowChange) -> Row:
    """Return the row as a shop wants it; what the change does not speak of stays."""
    update: dict[str, Any] = {}
    if change.windows is not None:
        said = row.windows or (None,) * 7
        update["windows"] = tuple(
            new if new is not None else old for new, old in zip(change.windows, said, strict=True)
        )
    holidays = change.holidays or row.holidays
    if holidays == "closed":
        own = tuple(dict.fromkeys((*row.calendars, *change.calendars))) or ((row.country,) if row.country else ())
        update |= {"holidays": holidays, "calendars": own}
    elif change.holidays is not None:
        update |= {"holidays": holidays, "calendars": ()}
    return row.model_copy(update=update)


def row_of_shop(name: str, change: WindowChange) -> Row:
    """Return the row that a shop adds for a place."""
    closed = change.holidays == "closed"
    place = f"{change.country}-{change.subdivision}"
    place = place if known_calendars.is_known(place) else change.country or ""
    return Row.model_construct(
        id=name, country=change.country, subdivision=change.subdivision, channels=change.channels,
        windows=change.windows, holidays=change.holidays, calendars=(change.calendars or (place,)) if closed else (),
        eve=None, also_in=None, caps=(), effective=date.min, reach="texts", standing="prudent default",
        basis="the shop's own", sources=(), note="",
    )  # fmt: skip


#: The longest window of any row's cap by channel: how far back the facts must reach.
@cache
def longest_law_window(channel: str) -> timedelta:
    """Return how far back the caps of any row for this channel can look."""
    return max((c.window for r in load_rows().values() if channel in r.channels for c in r.caps), default=timedelta(0))
