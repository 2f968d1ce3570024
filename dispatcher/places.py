"""Where a contact may be: candidate zones, with what each is known from.

A zone stated for the contact is believed.  Without one, every zone of the contact's country counts; without a country,
every zone of the shop's countries.  A message must be allowed in all of them; no zone at all is no permission.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Literal

import tzdata

#: The release of the zone rules every decision is made with.
TZDATA_VERSION: str = tzdata.IANA_VERSION


@dataclass(frozen=True, slots=True)
class Places:
    """Candidate zones in a stable order, and how we know them."""

    zones: tuple[str, ...]
    known_from: Literal["stated zone", "country", "shop countries", "nothing"]


NOWHERE = Places((), "nothing")


@cache
def zones_of_countries() -> dict[str, tuple[str, ...]]:
    """Return every zone of each ISO 3166-1 country, by the tz database's own zone.tab."""
    found: dict[str, list[str]] = defaultdict(list)
    table = resources.files("tzdata").joinpath("zoneinfo", "zone.tab").read_text(encoding="utf-8")
    for line in table.splitlines():
        if line and not line.startswith("#"):
            country, _, zone = line.split("\t")[:3]
            found[country].append(zone)
    return {country: tuple(sorted(zones)) for country, zones in found.items()}


@lru_cache(maxsize=4096)
def places_of(zone: str | None, country: str | None, shop_countries: tuple[str, ...]) -> Places:
    """Return the candidate zones of a contact with this stated zone and country."""
    if zone:
        return Places((zone,), "stated zone")
    by_country = zones_of_countries()
    if country and country in by_country:
        return Places(by_country[country], "country")
    assumed = sorted({z for c in shop_countries for z in by_country.get(c, ())})
    return Places(tuple(assumed), "shop countries") if assumed else NOWHERE
