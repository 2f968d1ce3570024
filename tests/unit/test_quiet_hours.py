"""Silences and openings, against an oracle that walks minute by minute."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.definitions import Silence
from dispatcher.hours import WEEKDAYS
from dispatcher.quiet_hours import LocalSilence, first_instant, last_instant, next_opening

ZONES = sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith(("Etc", "SystemV")))
MINUTE = timedelta(minutes=1)


def silence(hours: str, *days: str) -> Silence:
    return Silence.model_validate({"hours": hours, "days": days or WEEKDAYS})


def in_london(*silences: Silence) -> tuple[LocalSilence, ...]:
    return (LocalSilence("Europe/London", silences, (), "shop"),)


def is_silent(at: datetime, zone: ZoneInfo, rule: Silence) -> bool:
    """Whether `at` lies in a silence, judged by wall clock alone (no clock change near)."""
    local = at.astimezone(zone)
    today, yesterday = WEEKDAYS[local.weekday()], WEEKDAYS[(local.weekday() - 1) % 7]
    wall = local.time()
    if not rule.ends_next_day:
        return today in rule.days and rule.start <= wall < rule.end
    return (today in rule.days and wall >= rule.start) or (yesterday in rule.days and wall < rule.end)


def has_clock_change(zone: ZoneInfo, start: datetime, days: int) -> bool:
    offsets = {(start + timedelta(hours=hour)).astimezone(zone).utcoffset() for hour in range(-24, days * 24)}
    return len(offsets) > 1


@st.composite
def silences(draw: st.DrawFn) -> Silence:
    start, end = draw(st.tuples(st.integers(0, 47), st.integers(0, 48)).filter(lambda pair: pair[0] != pair[1] % 48))
    days = draw(st.lists(st.sampled_from(WEEKDAYS), unique=True, min_size=1))
    return silence(f"{start // 2:02}:{start % 2 * 30:02}-{end // 2:02}:{end % 2 * 30:02}", *days)


@given(
    minutes=st.integers(0, 20 * 365 * 24 * 60),
    zone=st.sampled_from(ZONES),
    rules=st.lists(silences(), min_size=1, max_size=3),
    guard=st.sampled_from([timedelta(0), timedelta(minutes=5), timedelta(minutes=15)]),
)
def test_an_opening_is_the_first_minute_with_room_for_the_guard(
    minutes: int, zone: str, rules: list[Silence], guard: timedelta
) -> None:
    now = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    where = ZoneInfo(zone)
    if has_clock_change(where, now, 11):
        return
    opening = next_opening(now, (LocalSilence(zone, tuple(rules), (), "shop"),), guard)

    def open_with_guard(at: datetime) -> bool:
        steps = int(guard / MINUTE) + 1
        return not any(is_silent(at + MINUTE * step, where, rule) for step in range(steps) for rule in rules)

    expected = next((now + MINUTE * step for step in range(8 * 24 * 60) if open_with_guard(now + MINUTE * step)), None)
    found = opening.opens_at if opening and opening.opens_at < now + timedelta(days=8) else None
    assert found == expected


def test_an_edge_in_a_spring_gap_is_the_first_instant_after_it() -> None:
    london = ZoneInfo("Europe/London")  # 2026-03-29: 01:00 becomes 02:00

    assert first_instant(date(2026, 3, 29), time(1, 30), london) == datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert last_instant(date(2026, 3, 29), time(1, 30), london) == datetime(2026, 3, 29, 1, tzinfo=UTC)


def test_the_hour_that_happens_twice_gives_the_longer_silence() -> None:
    london = ZoneInfo("Europe/London")  # 2026-10-25: 02:00 becomes 01:00

    assert first_instant(date(2026, 10, 25), time(1, 30), london) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert last_instant(date(2026, 10, 25), time(1, 30), london) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "day", "local"),
    [
        ("Africa/Cairo", date(2026, 4, 24), "2026-04-24T01:00:00+03:00"),  # midnight is missing
        ("America/Havana", date(2026, 3, 8), "2026-03-08T01:00:00-04:00"),
        ("Asia/Beirut", date(2026, 3, 29), "2026-03-29T01:00:00+03:00"),
        ("America/Santiago", date(2026, 9, 6), "2026-09-06T01:00:00-03:00"),
        ("Pacific/Apia", date(2011, 12, 30), "2011-12-31T00:00:00+14:00"),  # the whole day is missing
        ("Asia/Kathmandu", date(2026, 4, 24), "2026-04-24T00:00:00+05:45"),
    ],
)
def test_midnight_where_it_is_missing(zone: str, day: date, local: str) -> None:
    assert first_instant(day, time(0), ZoneInfo(zone)).astimezone(ZoneInfo(zone)).isoformat() == local


def test_lord_howe_moves_by_half_an_hour() -> None:
    assert first_instant(date(2026, 10, 4), time(2, 15), ZoneInfo("Australia/Lord_Howe")) == datetime(
        2026, 10, 3, 15, 30, tzinfo=UTC
    )


def test_a_silence_that_never_ends_has_no_opening() -> None:
    midnight = datetime(2026, 11, 23, tzinfo=UTC)

    assert next_opening(midnight, in_london(silence("00:00-24:00")), MINUTE) is None


def test_a_whole_silent_sunday_ends_with_the_night_behind_it() -> None:
    rules = (silence("20:00-09:00"), silence("00:00-24:00", "sun"))
    saturday_night = datetime(2026, 11, 21, 23, tzinfo=UTC)

    opening = next_opening(saturday_night, in_london(*rules), timedelta(minutes=15))

    assert opening is not None
    assert opening.opens_at == datetime(2026, 11, 23, 9, tzinfo=UTC)
    assert opening.closes_at == datetime(2026, 11, 23, 20, tzinfo=UTC)


def test_the_guard_must_fit_before_the_silence_begins() -> None:
    rules = (silence("20:00-09:00"),)
    at = datetime(2026, 11, 23, 19, 45, tzinfo=UTC)

    late = next_opening(at, in_london(*rules), timedelta(minutes=15))
    in_time = next_opening(at - timedelta(microseconds=1), in_london(*rules), timedelta(minutes=15))

    assert late is not None
    assert in_time is not None
    assert late.opens_at == datetime(2026, 11, 24, 9, tzinfo=UTC)
    assert in_time.opens_at == at - timedelta(microseconds=1)
