"""When a shop keeps silent: its own quiet hours, and what it makes of the contact windows that come with us."""

from __future__ import annotations

import re
from datetime import time
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, model_validator

from dispatcher.definitions.common import Channel, Country, Definition
from dispatcher.hours import WEEKDAYS, Week, Weekday


class Silence(Definition):
    """A daily time of silence in local wall clock, `[start, end)`, on the days it starts.

    An end of 24:00, or one not after the start, belongs to the next day.
    """

    start: time
    end: time
    days: tuple[Weekday, ...] = WEEKDAYS

    @property
    def ends_next_day(self) -> bool:
        return self.end <= self.start

    def __str__(self) -> str:
        end = "24:00" if self.end == time(0) else f"{self.end:%H:%M}"
        return f"{self.start:%H:%M}-{end} {' '.join(self.days) if len(self.days) < 7 else 'daily'}"

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        """Take `"20:00-09:00"` or `{days = ["sun"], hours = "00:00-24:00"}`."""
        days: Any = WEEKDAYS
        if isinstance(value, dict) and "hours" in value:
            if set(value) - {"days", "hours"}:
                raise ValueError(f"unknown {', '.join(sorted(set(value) - {'days', 'hours'}))}; write days and hours")
            value, days = value["hours"], value.get("days", WEEKDAYS)
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"(\d\d):(\d\d)\s*-\s*(\d\d):(\d\d)", value.strip())
        if found is None:
            raise ValueError(f"{value!r} is not a time of silence; write it like 20:00-09:00")
        hours = [int(part) for part in found.groups()]
        if hours[2:] == [24, 0]:
            hours[2:] = [0, 0]
        try:
            start, end = time(hours[0], hours[1]), time(hours[2], hours[3])
        except ValueError as error:
            raise ValueError(f"{value!r} is not a time of silence; hours run from 00:00 to 24:00") from error
        if start == end and not (start == time(0) and found[3] == "24"):
            raise ValueError(f"{value!r} begins where it ends; write 00:00-24:00 for a whole day")
        return {"start": start, "end": end, "days": days}


class QuietHours(Definition):
    """The shop's own silence, on top of the law."""

    email: tuple[Silence, ...] = ()
    sms: tuple[Silence, ...] = ()


class Acknowledgement(Definition):
    """Who answers for letting through what a contact window does not."""

    by: Annotated[str, Field(min_length=3)]
    because: Annotated[str, Field(min_length=10)]


class WindowChange(Definition):
    """What a shop makes of a contact window, by its id; or, with a country, a window of its own on top."""

    windows: Week | None = None
    holidays: Literal["closed", "open"] | None = None
    calendars: tuple[str, ...] = ()
    off: StrictBool = False
    loosened: Acknowledgement | None = None
    country: Country | None = None
    subdivision: str | None = None
    channels: tuple[Channel, ...] = ("sms",)
