"""Where somebody may be: what each hint says, and the tables behind it against the packages they are checked by."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from phonenumbers.geodata import GEOCODE_DATA
from phonenumbers.timezone import TIMEZONE_DATA

from dispatcher.places import NOWHERE, places_of
from dispatcher.places.tables import (
    area_codes,
    phone_region,
    zones_of_area_code,
    zones_of_countries,
    zones_of_subdivisions,
)


def test_what_says_where_is_all_kept_though_it_disagrees() -> None:
    places = places_of("Europe/Paris", "US", "TX", "1850")

    assert [(p.zone, p.country, p.subdivision, p.known_from) for p in places.candidates] == [
        ("Europe/Paris", "FR", None, "stated zone"),
        ("America/Chicago", "US", "TX", "address"),
        ("America/Denver", "US", "TX", "address"),
        ("America/Chicago", "US", "FL", "phone"),
        ("America/New_York", "US", "FL", "phone"),
    ]
    assert places.zones == ("Europe/Paris", "America/Chicago", "America/Denver", "America/New_York")
    assert places.jurisdictions == (("FR", None), ("US", "FL"), ("US", "TX"))


def test_a_country_alone_adds_its_zones_only_where_nothing_names_one() -> None:
    assert len(places_of(None, "US").zones) == 29
    assert places_of("America/Chicago", "US").zones == ("America/Chicago",)
    assert places_of(None, "US", None, "1212").zones == ("America/New_York",)


def test_a_country_without_a_zone_of_its_own_still_has_its_say() -> None:
    assert places_of("Europe/London", "FR").jurisdictions == (("FR", None), ("GB", None))


def test_an_unknown_part_of_a_country_is_the_whole_country() -> None:
    assert places_of(None, "US", "XX") == places_of(None, "US")


@pytest.mark.parametrize("number", ["+18005550100", "+18885550100", "+19005550100", "+15005550100"])
def test_a_number_that_is_nobodys_place_adds_none(number: str) -> None:
    region = phone_region(number)

    assert places_of(None, None, None, region) == NOWHERE
    assert places_of(None, "GB", None, region) == places_of(None, "GB")


def test_an_area_code_newer_than_our_table_is_somewhere_under_its_calling_code() -> None:
    everywhere = set(TIMEZONE_DATA["1"])

    assert set(places_of(None, None, None, "1299").zones) >= everywhere
    assert places_of(None, "CA", "ON", "1299").zones == places_of(None, "CA", "ON").zones


def test_without_any_hint_it_is_the_shops_countries() -> None:
    places = places_of(None, None, None, None, ("GB", "FR"))

    assert places.zones == ("Europe/London", "Europe/Paris")
    assert places.known_from == ("shop countries",)
    assert places.jurisdictions == (("FR", None), ("GB", None))
    assert places_of(None, None) == NOWHERE


@pytest.mark.parametrize(
    ("number", "region"),
    [
        ("+12125550100", "1212"),
        ("+33612345678", "FR"),
        ("+558133334444", "BR"),
        ("+79161234567", "RU"),
        ("+77011234567", "KZ"),
        ("+447700900123", "+44"),  # a reserved range: any of the four countries
        ("+8821612345678", None),  # a satellite phone
    ],
)
def test_what_a_number_says_of_a_place(number: str, region: str | None) -> None:
    assert phone_region(number) == region


def test_every_zone_under_an_area_code_counts() -> None:
    assert places_of(None, None, None, "1850").zones == ("America/Chicago", "America/New_York")  # the library says one
    assert len(places_of(None, None, None, "BR").zones) == 16  # the library says Noronha for Recife
    split = [code for code, where in area_codes().items() if where and len(zones_of_area_code(code)) > 1]
    assert set(split) >= {
        "208",
        "219",
        "270",
        "308",
        "423",
        "541",
        "574",
        "605",
        "606",
        "620",
        "701",
        "807",
        "812",
        "850",
        "867",
        "906",
        "928",
    }


def test_the_territories_are_under_federal_law() -> None:
    assert places_of(None, "PR").jurisdictions == (("US", "PR"),)
    assert places_of(None, None, None, "1787").jurisdictions == (("US", "PR"),)


@pytest.mark.parametrize("room", ["dispatcher", "workers.boot", "scheduler", "dispatcher.web.app", "dispatcher.cli"])
def test_no_room_ever_reads_the_systems_zone_data(room: str) -> None:
    asked = f"import zoneinfo, importlib; importlib.import_module({room!r}); print(zoneinfo.TZPATH)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)

    assert done.stdout == "()\n"


def test_an_old_name_of_a_zone_has_its_country() -> None:
    assert places_of("US/Eastern", None).jurisdictions == (("US", None),)
    assert places_of("Asia/Calcutta", None).jurisdictions == (("IN", None),)
    assert places_of("Etc/UTC", None).jurisdictions == ()


def test_subdivisions_agree_with_the_zone_table() -> None:
    by_country = zones_of_countries()
    for country, parts in zones_of_subdivisions().items():
        named = {zone for zones in parts.values() for zone in zones}
        missing = set(by_country[country]) - named
        assert not missing or len(by_country[country]) == 1, f"no subdivision of {country} has {missing}"
        for part, zones in parts.items():
            allowed = {*by_country[country], *by_country.get(part, ())}
            overseas = {"971": "GP", "972": "MQ", "973": "GF", "974": "RE", "976": "YT"}
            allowed |= set(by_country.get(overseas.get(part, ""), ()))
            assert set(zones) <= allowed, f"{country}-{part}"


STATES = {p for c in ("US", "CA") for p in zones_of_subdivisions()[c]}


def test_area_codes_agree_with_the_descriptions_of_the_library() -> None:
    described: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for prefix, words in GEOCODE_DATA.items():
        if prefix[0] == "1" and (found := re.search(r", ([A-Z]{2})$", words["en"])) and found[1] in STATES:
            described[prefix[1:4]][found[1]] += 1
    assert len(described) > 250
    for code, states in described.items():
        ours = {part or country for country, part in area_codes()[code]}
        stray = {state for state, entries in states.items() if entries / sum(states.values()) < 0.02}
        assert set(states) - stray <= ours, f"{code} is in {dict(states)}"


def test_every_area_code_that_the_library_knows_is_in_our_table_with_zones() -> None:
    seen = {prefix[1:4] for prefix in TIMEZONE_DATA if prefix[0] == "1" and len(prefix) >= 4}

    assert seen == {code for code, where in area_codes().items() if where}
    for code, where in area_codes().items():
        for country, part in where:
            zones = zones_of_subdivisions().get(country, {}).get(part or "") or zones_of_countries()[country]
            assert clocks(zones_of_area_code(code)) & clocks(zones), f"{code} has no clock of {country}-{part}"


def clocks(zones: Iterable[str]) -> set[tuple[timedelta | None, ...]]:
    """What clocks in these zones show in winter and in summer."""
    instants = (datetime(2027, 1, 15, tzinfo=UTC), datetime(2027, 7, 15, tzinfo=UTC))
    return {tuple(at.astimezone(ZoneInfo(zone)).utcoffset() for at in instants) for zone in zones}
