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


KnownFrom = Literal["stated zone", "address", "phone", "country", "shop countries"]


@dataclass(frozen=True, slots=True)
class Place:
    """One place a contact may be in."""

    zone: str  #: IANA
    country: str | None  #: ISO 3166-1 alpha-2
    subdivision: str | None  #: ISO 3166-2 without the country; None: not known
    known_from: KnownFrom


@dataclass(frozen=True, slots=True)
class Places:
    """Every place a contact may be in, in a stable order.  A message must be allowed in all of them."""

    candidates: tuple[Place, ...]

    @property
    def zones(self) -> tuple[str, ...]:
        """The candidates' zones, each once."""
        return tuple(dict.fromkeys(place.zone for place in self.candidates))

    @property
    def known_from(self) -> tuple[KnownFrom, ...]:
        """What we know them from, each once; empty: no place is known."""
        return tuple(dict.fromkeys(place.known_from for place in self.candidates))


NOWHERE = Places(())


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
        return Places((Place(zone, country, None, "stated zone"),))
    by_country = zones_of_countries()
    if country and country in by_country:
        return Places(tuple(Place(z, country, None, "country") for z in by_country[country]))
    assumed = sorted({(z, c) for c in shop_countries for z in by_country.get(c, ())})
    return Places(tuple(Place(z, c, None, "shop countries") for z, c in assumed)) if assumed else NOWHERE
