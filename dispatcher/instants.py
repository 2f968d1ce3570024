"""Instants as people write and read them: RFC 3339, in UTC, with microseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_FORM = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:\d\d))?")


def parse_instant(value: str) -> datetime:
    """Return the UTC instant that `value` says (a date: its midnight); ValueError with an example if it says none."""
    text = value.strip()
    try:
        if _FORM.fullmatch(text) is None:
            raise ValueError
        instant = datetime.fromisoformat(text.upper())
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{value!r} is not an instant; write it like 2011-12-01T10:00:00Z or 2011-12-01") from error


def show_instant(instant: datetime | None) -> str | None:
    """Return the instant as every screen, file and answer shows it, like 2011-12-01T10:00:00.000000Z."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if instant else None
