"""Public holidays: which days of a year are holidays by a calendar.

A calendar is a country (`FR`), a part of one (`US-PA`), any part of one (`ES-*`: a holiday anywhere in the country
counts), or one day of every year as ISO 8601 writes it (`--11-01`).  Days come from the `holidays` package (MIT).
"""

from __future__ import annotations

import re
from datetime import date
from functools import cache, lru_cache

_YEARLY = re.compile(r"--(\d\d)-(\d\d)")
#: What a state closes for counts beside what everybody has off; half days, school and bank holidays do not.
_CATEGORIES = ("public", "government")


@cache
def _parts() -> dict[str, frozenset[str]]:
    import holidays  # a fifth of a second: not for commands that decide nothing

    listed = holidays.list_supported_countries(include_aliases=False)
    return {country: frozenset(parts) for country, parts in listed.items() if len(country) == 2}


def is_known(calendar: str) -> bool:
    """Return whether we know the days of this calendar."""
    if _YEARLY.fullmatch(calendar):
        return True
    country, _, part = calendar.partition("-")
    return country in _parts() and part in ("", "*", *_parts()[country])


@lru_cache(maxsize=4096)
def days_of(calendar: str, year: int) -> frozenset[date]:
    """Return the holidays of the year; none for a calendar that we do not know (ask `is_known`)."""
    if found := _YEARLY.fullmatch(calendar):
        return frozenset({date(year, int(found[1]), int(found[2]))})
    if not is_known(calendar):
        return frozenset()
    import holidays

    country, _, part = calendar.partition("-")
    if part == "*":
        return frozenset().union(days_of(country, year), *(days_of(f"{country}-{p}", year) for p in _parts()[country]))
    kind = getattr(holidays, country)
    categories = tuple(name for name in _CATEGORIES if name in kind.supported_categories)
    return frozenset(kind(subdiv=part or None, years=year, categories=categories or None))
