"""Lengths of time as people write them: `90d`, `24h`, `30m`, `45s`, `2w`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

_FORM = re.compile(r"([0-9]{1,5})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(value: Any) -> timedelta:
    """Return the length that `value` says; ValueError with an example if it says none.  A month is not a length."""
    if isinstance(value, timedelta):
        return value
    found = _FORM.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is not a duration; write a whole number and a unit, like 90d, 24h, 30m or 2w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def format_duration(value: timedelta) -> str:
    """Return what `parse_duration` reads back as `value`, in the largest unit that fits (weeks only if days do not)."""
    seconds = value // timedelta(seconds=1)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0 and seconds // length < 100_000:
            return f"{seconds // length}{unit}"
    return f"{seconds}s" if seconds < 100_000 else f"{seconds // 604_800}w"


#: In JSON it is text that can be read back: the definitions of campaigns and segments are kept that way.
Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str, when_used="json")
]
