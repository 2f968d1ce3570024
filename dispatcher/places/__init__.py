"""Where a contact may be: candidate places, with what each is known from.

The zone stated for a contact, the postal address and the phone number each say something, and may disagree: all of it
is kept, and a message must be allowed in every place.  A country alone adds its zones only where nothing else names a
zone, and the shop's own countries stand in only where nothing at all is known.  No place is no permission.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from dispatcher.places.tables import (
    TZDATA_VERSION,
    area_codes,
    country_of_zone,
    zones_of_area_code,
    zones_of_calling_code,
    zones_of_countries,
    zones_of_subdivisions,
)

__all__ = ["NOWHERE", "TZDATA_VERSION", "Place", "Places", "places_of", "zones_of_countries"]

KnownFrom = Literal["stated zone", "address", "phone", "country", "shop countries"]

#: United States territories with country codes of their own: federal law holds there, too.
_TERRITORIES = frozenset({"AS", "GU", "MP", "PR", "UM", "VI"})


@dataclass(frozen=True, slots=True)
class Place:
    """One place a contact may be in."""

    zone: str  #: IANA
    country: str | None  #: ISO 3166-1 alpha-2
    subdivision: str | None  #: ISO 3166-2 without the country; None: not known
    known_from: KnownFrom


@dataclass(frozen=True)
class Places:
    """Every place a contact may be in, in a stable order.  A message must be allowed in all of them."""

    candidates: tuple[Place, ...]
    named: tuple[tuple[str, str | None], ...] = ()  #: (country, subdivision) that something names without a zone

    @cached_property
    def zones(self) -> tuple[str, ...]:
        """The candidates' zones, each once."""
        return tuple(dict.fromkeys(place.zone for place in self.candidates))

    @cached_property
    def known_from(self) -> tuple[KnownFrom, ...]:
        """What we know them from, each once; empty: no place is known."""
        return tuple(dict.fromkeys(place.known_from for place in self.candidates))

    @cached_property
    def jurisdictions(self) -> tuple[tuple[str, str | None], ...]:
        """(country, subdivision) whose rules could apply, sorted; a part that is known stands for the whole country."""
        named = {*self.named, *((p.country, p.subdivision) for p in self.candidates if p.country is not None)}
        known = {("US", country) if country in _TERRITORIES else (country, part) for country, part in named}
        in_part = {country for country, part in known if part is not None}
        return tuple(sorted(((c, p) for c, p in known if p or c not in in_part), key=str))


NOWHERE = Places(())


@lru_cache(maxsize=16384)
def places_of(
    zone: str | None,
    country: str | None,
    subdivision: str | None = None,
    phone_region: str | None = None,
    shop_countries: tuple[str, ...] = (),
) -> Places:
    """Return every place a contact may be in.

    `phone_region` is what `tables.phone_region` says of the number; a phone's places bind e-mail, too.
    """
    known_part = subdivision if country and is_known_part(country, subdivision) else None
    candidates = [
        *_of_stated_zone(zone, country, known_part),
        *_of_address(country, known_part),
        *_of_phone(phone_region),
    ]
    named = [(country, known_part)] if country else []
    if not candidates and country:
        candidates = [Place(z, country, known_part, "country") for z in zones_of_countries().get(country, ())]
    if not candidates and phone_region and phone_region[0] == "1":
        candidates = list(_of_unknown_area_code(phone_region))
    if not candidates and not country:
        candidates = [Place(z, c, None, "shop countries") for z, c in _zones_in(shop_countries)]
    return Places(tuple(dict.fromkeys(candidates)), tuple(named)) if candidates else NOWHERE


def is_known_part(country: str, subdivision: str | None) -> bool:
    """Return whether the subdivision tells us something: of countries with several zones, one that we know."""
    if subdivision is None:
        return False
    parts = zones_of_subdivisions().get(country)
    return subdivision in parts if parts and len(zones_of_countries().get(country, ())) > 1 else True


def _of_stated_zone(zone: str | None, country: str | None, subdivision: str | None) -> Iterator[Place]:
    if zone:
        there = country_of_zone(zone) or country
        yield Place(zone, there, subdivision if there == country else None, "stated zone")


def _of_address(country: str | None, subdivision: str | None) -> Iterator[Place]:
    if country is None or subdivision is None:
        return
    whole = zones_of_countries().get(country, ())
    zones = zones_of_subdivisions().get(country, {}).get(subdivision) or (whole if len(whole) == 1 else ())
    for zone in zones:
        yield Place(zone, country, subdivision, "address")


def _of_phone(region: str | None) -> Iterator[Place]:
    if region is None:
        return
    if region[0] == "1":
        for country, part in area_codes().get(region[1:], ()):
            for zone in zones_of_area_code(region[1:]):
                yield Place(zone, country, part, "phone")
    elif region[0] == "+":  # several countries share the calling code, and the number does not say which
        for country, zone in zones_of_calling_code(region[1:]):
            yield Place(zone, country, None, "phone")
    else:
        for zone in zones_of_countries().get(region, ()):
            yield Place(zone, region, None, "phone")


def _of_unknown_area_code(region: str) -> Iterator[Place]:
    """A code newer than our table is somewhere under +1, which is all it says; a toll-free one says nothing."""
    if region[1:] not in area_codes():
        for zone in zones_of_area_code(""):
            yield Place(zone, country_of_zone(zone), None, "phone")


def _zones_in(countries: Iterable[str]) -> list[tuple[str, str]]:
    return sorted({(zone, country) for country in countries for zone in zones_of_countries().get(country, ())})
