"""Contact windows: the rows we ship, which of them apply where, and what a shop may make of them."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from pydantic import ValidationError

from dispatcher.contact_windows import LocalRules, local_rules
from dispatcher.contact_windows.changes import objections_to
from dispatcher.contact_windows.rows import LawCap, Row, changed, load_rows, loosened_fields
from dispatcher.definitions import Shop, WindowChange
from dispatcher.hours import WEEKDAYS, show_week
from dispatcher.quiet_hours import Opening, next_opening, unknown_calendars

MONDAY = datetime(2026, 11, 23, 12, tzinfo=UTC)
IDENTITY = {"name": "Shop", "from_email": "shop@shop.example", "postal_address": "1 High Street"}
GUARD = timedelta(minutes=15)
PAGE = (Path(__file__).resolve().parents[2] / "docs/contact-windows.md").read_text(encoding="utf-8")


def rules(channel: str = "sms", class_: str = "marketing", now: datetime = MONDAY, **shop: Any) -> LocalRules:
    identity = IDENTITY | {"countries": shop.pop("countries", ())}
    return local_rules(Shop.model_validate({"shop": identity, **shop}), channel, class_, "offers", now)


def sources(**columns: str) -> set[str]:
    return {local.source for local in here(**columns).silences}


def here(at: LocalRules | None = None, **columns: str) -> Any:
    names = ("zone", "country", "subdivision", "phone_region")
    return (at or rules()).here(*(columns.get(name) for name in names))


def opening(now: datetime, at: LocalRules | None = None, **columns: str) -> Opening | None:
    return next_opening(now, here(at or rules(now=now), **columns).silences, GUARD)


def local(zone: str, text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def opens(clock: str, text: str, **columns: str) -> str | None:
    """Return when, by a local clock, the first opening after that wall time begins."""
    found = opening(local(clock, text), **columns)
    return None if found is None else found.opens_at.astimezone(ZoneInfo(clock)).strftime("%a %d %H:%M")


# --- the file


def test_every_row_of_the_reference_is_in_the_product_with_its_hours(shared: Any) -> None:
    reference = yaml.safe_load((shared / "reference/contact-windows.yaml").read_text())["rows"]
    ours = load_rows()

    assert {row["id"] for row in reference} <= set(ours)
    for row in reference:
        windows = ours[row["id"]].windows
        days = row["windows"] and {
            day: None if hours is None else ["-".join(pair) for pair in hours] for day, hours in row["windows"].items()
        }
        assert (windows and show_week(windows)) == days, row["id"]
        assert set(ours[row["id"]].channels) == set(row["channels"]), row["id"]
        assert (ours[row["id"]].holidays == "closed") == (row["holidays_allowed"] is False), row["id"]
        cap = row["max_per_period"]
        assert len(ours[row["id"]].caps) == (0 if cap is None else 2 if "also" in cap else 1), row["id"]


def test_the_strictest_row_is_what_every_state_allows() -> None:
    states = [row for row in load_rows().values() if row.country == "US" and row.subdivision != "unknown"]
    strictest = load_rows()["US-STRICTEST"]
    assert strictest.windows is not None
    for day in range(7):
        hours = [row.windows[day] or () for row in states if row.windows is not None]
        common = [(max(h[0][0] for h in hours), min(h[0][1] for h in hours))] if all(hours) else []
        assert list(strictest.windows[day] or ()) == common, WEEKDAYS[day]
    assert strictest.caps == (LawCap(max=3, window=timedelta(hours=24), same_topic=True),)
    needed = {name for row in states for name in row.calendars}
    assert needed <= set(strictest.calendars)


def test_a_row_that_closes_for_holidays_without_a_calendar_is_refused() -> None:
    row = load_rows()["FR"].model_dump()

    with pytest.raises(ValidationError, match="calendars"):
        Row.model_validate(row | {"calendars": ()})
    with pytest.raises(ValidationError, match="no calendar XX"):
        Row.model_validate(row | {"calendars": ("XX",)})


# --- which rows apply


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"country": "US", "subdivision": "TX"}, {"US", "US-TX"}),
        ({"country": "US", "subdivision": "MT"}, {"US"}),  # no row of its own: the federal one
        ({"country": "US"}, {"US", "US-STRICTEST"}),
        ({"zone": "America/New_York"}, {"US", "US-STRICTEST"}),
        ({"country": "US", "phone_region": "1512"}, {"US", "US-TX"}),  # the phone knows the state
        ({"country": "US", "subdivision": "NY", "phone_region": "1512"}, {"US", "US-NY", "US-TX"}),
        ({"country": "US", "subdivision": "NY", "phone_region": "GB"}, {"US", "US-NY", "GB"}),
        ({"country": "FR"}, {"FR", "FR-STRICT"}),  # never the one for calls
        ({"country": "BR", "subdivision": "SP"}, {"BR", "BR-PROVIDER"}),
        ({"country": "BR"}, {"BR", "BR-PROVIDER", "BR-PA"}),  # it could be Para
        ({"country": "RO"}, {"GLOBAL"}),
        ({"country": "PL"}, {"GLOBAL"}),
        ({"zone": "Etc/UTC"}, {"GLOBAL"}),
        ({"country": "PR"}, {"US"}),
        ({"phone_region": "+44"}, {"GB", "GLOBAL"}),  # it could be Jersey
    ],
)
def test_every_row_that_could_apply_does(columns: dict[str, str], expected: set[str]) -> None:
    assert sources(**columns) == expected


def test_rows_hold_in_every_zone_somebody_may_be_in() -> None:
    found = here(country="US", subdivision="FL").silences

    assert {(local.zone, local.source) for local in found} == {
        (zone, row) for zone in ("America/New_York", "America/Chicago") for row in ("US", "US-FL")
    }


def test_only_south_africa_has_hours_for_email() -> None:
    mail = rules("email")

    assert {local.source for local in here(mail, country="ZA").silences} == {"ZA"}
    assert here(mail, country="US").silences == ()


def test_the_shops_own_silence_comes_on_top_in_every_zone() -> None:
    own = rules(quiet_hours={"sms": ["12:00-13:00"]})

    assert {local.source for local in here(own, country="GB").silences} == {"GB", "shop"}
    at = opening(local("Europe/London", "2026-11-23T12:30"), own, country="GB")
    assert at is not None
    assert at.opens_at == local("Europe/London", "2026-11-23T13:00")


def test_a_transactional_text_heeds_the_night_and_the_shop_but_no_law_on_marketing() -> None:
    found = here(rules("sms", "transactional", quiet_hours={"sms": ["12:00-13:00"]}), country="FR")

    assert {local.source for local in found.silences} == {"GLOBAL", "shop"}
    assert found.caps == ()


def test_a_row_is_in_force_from_its_day_on() -> None:
    before = rules(now=datetime(2026, 10, 16, tzinfo=UTC))

    assert {local.source for local in here(before, country="US", subdivision="PA").silences} == {"US"}
    assert sources(country="US", subdivision="PA") == {"US", "US-PA"}


def test_the_law_caps_messages_of_one_topic_or_of_all() -> None:
    florida, brazil = here(country="US", subdivision="FL").caps, here(country="BR").caps

    assert [(c.name, c.max, c.window, c.topics) for c in florida] == [
        ("law-us-fl", 3, timedelta(hours=24), ("offers",)),
    ]
    assert [(c.name, c.max, c.window, c.topics) for c in brazil] == [
        ("law-br-1", 2, timedelta(hours=24), None),
        ("law-br-2", 15, timedelta(days=30), None),
    ]


# --- hard cases: the next opening by local clocks


@pytest.mark.parametrize(
    ("zone", "at", "columns", "expected"),
    [
        (
            "America/Chicago",
            "2026-11-22T09:30",
            {"country": "US", "subdivision": "TX"},
            "Sun 22 13:00",
        ),  # noon in El Paso
        ("America/Chicago", "2026-11-22T09:30", {"phone_region": "1512"}, "Sun 22 12:00"),
        ("America/New_York", "2026-11-28T09:30", {"country": "US", "subdivision": "RI"}, "Sat 28 10:00"),
        ("America/New_York", "2026-11-28T16:50", {"country": "US", "subdivision": "RI"}, "Mon 30 09:00"),
        ("America/New_York", "2026-08-09T12:00", {"country": "US", "subdivision": "RI"}, "Tue 11 09:00"),  # Victory Day
        ("America/Chicago", "2026-02-17T12:00", {"country": "US", "subdivision": "LA"}, "Wed 18 08:00"),  # Mardi Gras
        ("America/Chicago", "2027-11-01T12:00", {"country": "US", "subdivision": "LA"}, "Tue 02 08:00"),  # All Saints
        ("America/Denver", "2026-07-24T12:00", {"country": "US", "subdivision": "UT"}, "Sat 25 08:00"),  # Pioneer Day
        ("America/Chicago", "2026-04-27T12:00", {"country": "US", "subdivision": "AL"}, "Tue 28 08:00"),
        (
            "America/New_York",
            "2026-11-26T12:00",
            {"country": "US", "subdivision": "PA"},
            "Sat 28 09:00",
        ),  # and the day after
        ("America/New_York", "2026-11-23T09:30", {"phone_region": "1850"}, "Mon 23 09:30"),  # 08:30 in Pensacola
        ("America/New_York", "2026-11-23T08:30", {"phone_region": "1850"}, "Mon 23 09:00"),
        ("America/Chicago", "2026-07-06T08:30", {"country": "US", "subdivision": "MS"}, "Mon 06 09:00"),  # 08:00 by CST
        ("America/Chicago", "2026-11-30T08:30", {"country": "US", "subdivision": "MS"}, "Mon 30 08:30"),
        ("America/Recife", "2026-11-23T09:30", {"phone_region": "BR"}, "Mon 23 11:00"),  # 09:00 in Acre
        ("Asia/Kolkata", "2026-11-23T08:00", {"country": "IN"}, "Mon 23 09:00"),
        ("Asia/Kathmandu", "2026-11-23T20:00", {"country": "NP"}, "Tue 24 08:00"),
        ("Pacific/Chatham", "2026-11-23T07:00", {"country": "NZ", "subdivision": "CIT"}, "Mon 23 08:00"),
        ("Australia/Lord_Howe", "2026-10-05T08:00", {"zone": "Australia/Lord_Howe", "country": "AU"}, "Mon 05 09:00"),
        ("Pacific/Kiritimati", "2026-11-23T03:00", {"zone": "Pacific/Kiritimati"}, "Mon 23 08:00"),
        ("Africa/Johannesburg", "2026-12-24T19:50", {"country": "ZA"}, "Mon 28 08:00"),  # Christmas, Goodwill, Sunday
        ("Europe/Rome", "2026-12-07T09:30", {"country": "IT"}, "Mon 07 10:00"),  # before a holiday: Saturday's hours
        ("Europe/Rome", "2026-12-07T18:50", {"country": "IT"}, "Wed 09 09:00"),
        ("Europe/Paris", "2026-12-24T08:10", {"country": "FR"}, "Thu 24 08:30"),
        ("Europe/Paris", "2026-12-25T12:00", {"country": "FR", "subdivision": "57"}, "Mon 28 08:30"),  # Saint Stephen's
        ("Europe/Madrid", "2026-06-24T12:00", {"country": "ES", "subdivision": "MD"}, "Wed 24 12:00"),
        ("Europe/Madrid", "2026-06-24T12:00", {"zone": "Europe/Madrid"}, "Thu 25 09:00"),  # a holiday in Catalonia
        ("America/Belem", "2026-11-28T16:30", {"country": "BR", "subdivision": "PA"}, "Mon 30 09:00"),
    ],
)
def test_hard_cases(zone: str, at: str, columns: dict[str, str], expected: str) -> None:
    assert opens(zone, at, **columns) == expected


def test_russia_without_an_address_has_one_hour_left_of_an_eleven_hour_day() -> None:
    own = rules(contact_windows={"RU": {"country": "RU", "windows": {"daily": "09:00-20:00"}}})

    found = opening(local("Europe/Moscow", "2026-11-23T01:00"), own, phone_region="RU")

    assert found is not None
    assert found.closes_at is not None
    assert found.closes_at - found.opens_at == timedelta(hours=1)


def test_all_of_north_america_has_half_an_hour() -> None:
    """From Guam to Newfoundland: an area code that is newer than our table, and nothing else known."""
    found = next_opening(MONDAY, here(phone_region="1299").silences, timedelta(0))

    assert found is not None
    assert found.closes_at is not None
    assert found.closes_at - found.opens_at == timedelta(minutes=30)


def test_every_day_closed_in_between_is_within_the_horizon() -> None:
    """The longest any place is closed: Easter, or a holiday that touches a week-end."""
    for country in ("ZA", "FR", "IT", "ES", "CZ", "AU", "BR"):
        for week in range(60):
            assert opening(MONDAY + timedelta(weeks=week), country=country) is not None, (country, week)


# --- what a shop may make of them


def change(**fields: Any) -> WindowChange:
    return WindowChange.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "loosened"),
    [
        ({"windows": {"daily": "11:00-17:00"}}, []),
        ({"windows": {"sun": "closed"}}, []),
        ({"windows": {"mon": "09:00-21:00"}}, ["windows"]),
        ({"windows": {"mon": ["10:00-12:00", "13:00-22:00"]}}, ["windows"]),
        ({"holidays": "closed"}, []),
        ({"off": True}, ["off"]),
    ],
)
def test_what_loosens_a_row_is_told_from_what_tightens_it(fields: dict[str, Any], loosened: list[str]) -> None:
    assert loosened_fields(load_rows()["US-KY"], change(**fields)) == loosened


def test_to_open_on_holidays_is_to_loosen() -> None:
    assert loosened_fields(load_rows()["US-PA"], change(holidays="open")) == ["holidays"]


def test_another_calendar_comes_beside_the_rows_own() -> None:
    row = changed(load_rows()["US-PA"], change(calendars=["DE"]))

    assert row.calendars == ("US-PA", "DE")
    assert changed(load_rows()["GB"], change(holidays="closed")).calendars == ("GB",)
    assert changed(load_rows()["US-PA"], change(holidays="open")).calendars == ()


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [
        ("GB", {"channels": ["email"]}, "channels"),
        ("GB", {"country": "FR"}, "country"),
        ("GB", {"calendars": ["GB-XX"]}, "calendars"),
        ("GLOBAL", {"holidays": "closed"}, "holidays"),
        ("POLAND", {"country": "PL"}, ""),
        ("POLAND", {"country": "PL", "windows": {"daily": "09:00-10:00"}, "off": True}, "off"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, fields: dict[str, Any], field: str) -> None:
    assert [found for found, _ in objections_to(name, change(**fields))] == [field]


def test_a_change_holds_and_the_rest_of_the_row_stays() -> None:
    own = rules(contact_windows={"US-RI": {"windows": {"mon": "11:00-12:00"}}})

    monday = opening(local("America/New_York", "2026-11-23T08:00"), own, country="US", subdivision="RI")
    tuesday = opening(local("America/New_York", "2026-11-24T08:00"), own, country="US", subdivision="RI")

    assert monday is not None
    assert tuesday is not None
    assert monday.opens_at == local("America/New_York", "2026-11-23T11:00")
    assert tuesday.opens_at == local("America/New_York", "2026-11-24T09:00")


def test_a_window_of_the_shops_own_comes_on_top_of_the_default() -> None:
    own = rules(contact_windows={"PL": {"country": "PL", "windows": {"daily": "06:00-18:00"}, "holidays": "closed"}})

    assert {local.source for local in here(own, country="PL").silences} == {"PL", "GLOBAL"}
    assert {local.source for local in here(own, country="DE").silences} == {"DE"}


def test_holidays_without_a_calendar_are_said_and_not_guessed() -> None:
    own = rules(contact_windows={"AQ": {"country": "FK", "windows": {"daily": "09:00-18:00"}, "holidays": "closed",
                                        "calendars": ["FK-ZZ"]}})  # fmt: skip

    assert unknown_calendars(here(own, country="FK").silences) == ("FK-ZZ",)


def test_a_row_that_is_taken_away_leaves_the_others() -> None:
    own = rules(contact_windows={"BR": {"off": True, "loosened": {"by": "J. Doe", "because": "counsel's letter"}}})

    assert {local.source for local in here(own, country="BR", subdivision="SP").silences} == {"BR-PROVIDER"}
    assert here(own, country="BR").caps == ()


def test_hours_over_midnight_reach_into_the_next_day() -> None:
    week = change(windows={"daily": "closed", "fri": "22:00-02:00"}).windows

    assert week is not None
    assert show_week(week)["fri"] == ["22:00-24:00"]
    assert show_week(week)["sat"] == ["00:00-02:00"]
    assert WindowChange.model_validate_json(change(windows={"fri": "22:00-02:00"}).model_dump_json()).windows == (
        change(windows={"fri": "22:00-02:00"}).windows
    )


def test_the_day_of_a_holiday_is_silent_whole() -> None:
    french = here(country="FR").silences
    christmas = date(2026, 12, 25)

    for hour in range(24):
        at = datetime(christmas.year, 12, 25, hour, 30, tzinfo=ZoneInfo("Europe/Paris"))
        found = next_opening(at.astimezone(UTC), french, GUARD)
        assert found is not None
        assert found.opens_at.astimezone(ZoneInfo("Europe/Paris")).date() != christmas


# --- what docs/contact-windows.md shows


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_the_changes_that_are_shown_are_taken(example: str) -> None:
    changes = tomllib.loads(example)["contact_windows"]

    assert changes
    for name, given in changes.items():
        assert list(objections_to(name, WindowChange.model_validate(given))) == [], name


def test_the_page_counts_the_rows() -> None:
    assert f"ships {len(load_rows())} **contact windows**" in PAGE
