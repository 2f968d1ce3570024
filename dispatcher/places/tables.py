"""What is where: zones of countries, of their parts and of phone numbers, from reviewed tables and pinned packages."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib import resources

import phonenumbers
import tzdata
from phonenumbers.timezone import TIMEZONE_DATA  # type: ignore[attr-defined]  # its stubs leave it out

#: The release of the zone rules every decision is made with.
TZDATA_VERSION: str = tzdata.IANA_VERSION


def _rows(name: str) -> Iterator[list[str]]:
    """Yield the rows of a table beside this file, without its notes and its heading."""
    lines = resources.files(__package__).joinpath(name).read_text(encoding="utf-8").splitlines()
    reader = csv.reader(line for line in lines if not line.startswith("#"))
    next(reader)
    yield from reader


def _zone_file(name: str) -> list[str]:
    return resources.files("tzdata").joinpath("zoneinfo", name).read_text(encoding="utf-8").splitlines()


@cache
def zones_of_countries() -> dict[str, tuple[str, ...]]:
    """Return every zone of each ISO 3166-1 country, by the tz database's own zone.tab."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in _zone_file("zone.tab"):
        if line and not line.startswith("#"):
            country, _, zone = line.split("\t")[:3]
            found[country].append(zone)
    return {country: tuple(sorted(zones)) for country, zones in found.items()}


@cache
def zones_of_subdivisions() -> dict[str, dict[str, tuple[str, ...]]]:
    """Return, by country and subdivision, the zones of each part of the countries in subdivisions.csv."""
    found: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for country, parts, zones in _rows("subdivisions.csv"):
        for part in parts.split():
            found[country][part] = tuple(zones.split())
    return found


@cache
def area_codes() -> dict[str, tuple[tuple[str, str | None], ...]]:
    """Return (country, subdivision) of each area code under +1; none for numbers that are nobody's place."""
    return {
        code: tuple((country, part) for part in parts.split() or (None,)) if country else ()
        for code, country, parts in _rows("area_codes.csv")
    }


@lru_cache(maxsize=1024)
def zones_of_area_code(code: str) -> tuple[str, ...]:
    """Return every zone seen under +1 and these digits: of the code itself and of each longer prefix."""
    prefix = f"1{code}"
    return tuple(sorted({z for digits, zones in TIMEZONE_DATA.items() if digits.startswith(prefix) for z in zones}))


@lru_cache(maxsize=256)
def zones_of_calling_code(code: str) -> tuple[tuple[str, str], ...]:
    """Return (country, zone) of every country with this calling code, by zone.tab."""
    countries = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(code), ())
    return tuple((country, zone) for country in countries for zone in zones_of_countries().get(country, ()))


@cache
def _countries_of_zones() -> dict[str, str]:
    by_zone = {zone: country for country, zones in zones_of_countries().items() for zone in zones}
    links = [line.split()[1:3] for line in _zone_file("tzdata.zi") if line.startswith("L ")]
    return {link: by_zone[zone] for zone, link in links if zone in by_zone} | by_zone


def country_of_zone(zone: str) -> str | None:
    """Return the country of a zone by zone.tab, old names such as US/Eastern included; None: of no country."""
    return _countries_of_zones().get(zone)


@lru_cache(maxsize=65536)
def phone_region(number: str) -> str | None:
    """Return how much of a number in E.164 may stand in the clear: its country, or under +1 the area code like 1212.

    Where several countries share a calling code and the number does not say which, that code, like +44.  None: a number
    of no country, such as a satellite phone's.
    """
    parsed = phonenumbers.parse(number)
    code = parsed.country_code or 0
    if code == 1:
        return f"1{str(parsed.national_number)[:3]}"
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(code, ())
    if not regions or regions == ("001",):
        return None
    if len(regions) == 1:
        return str(regions[0])
    return phonenumbers.region_code_for_number(parsed) or f"+{code}"
