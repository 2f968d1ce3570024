"""When schedules fire, in every kind of zone and through every kind of clock change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.definitions import Schedule
from dispatcher.schedules import Occurrence, latest_occurrences, next_occurrence

MINUTE = timedelta(minutes=1)

#: zone and the local day of a clock change: an hour, half an hour, two hours, at midnight, a whole day, and none at all
CHANGES = [
    ("Europe/London", "2026-03-29"),
    ("Europe/London", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("Antarctica/Troll", "2026-03-29"),
    ("Antarctica/Troll", "2026-10-25"),
    ("Africa/Cairo", "2026-04-24"),
    ("Africa/Cairo", "2026-10-30"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/Sao_Paulo", "2019-02-17"),
    ("America/St_Johns", "2026-11-01"),
    ("Pacific/Apia", "2011-12-30"),
    ("Pacific/Chatham", "2026-09-27"),
    ("Asia/Kathmandu", "2026-06-01"),
    ("UTC", "2026-06-01"),
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cron(expression: str, zone: str = "Europe/London", **more: object) -> Schedule:
    return Schedule.model_validate({"cron": expression, "zone": zone, **more})


def occurrences(schedule: Schedule, after: datetime, until: datetime) -> list[Occurrence]:
    found = []
    while (occurrence := next_occurrence(schedule, after)) is not None and occurrence.at <= until:
        found.append(occurrence)
        after = occurrence.at
    return found


def test_an_occurrence_is_named_by_its_wall_time_and_zone() -> None:
    occurrence = next_occurrence(cron("0 10 * * mon"), utc("2026-12-01T00:00"))

    assert occurrence is not None
    assert (occurrence.key, occurrence.at) == ("2026-12-07T10:00 Europe/London", utc("2026-12-07T10:00"))


def test_zero_and_seven_are_both_sunday() -> None:
    for day in ("0", "7", "sun"):
        occurrence = next_occurrence(cron(f"0 10 * * {day}"), utc("2026-12-01T00:00"))
        assert occurrence is not None
        assert occurrence.nominal_local.strftime("%A") == "Sunday"


def test_the_instant_itself_does_not_count_again() -> None:
    schedule = cron("0 10 * * *")
    first = next_occurrence(schedule, utc("2026-12-07T09:59"))

    assert first is not None
    assert next_occurrence(schedule, first.at) == next_occurrence(schedule, utc("2026-12-08T00:00"))


def test_an_hour_that_happens_twice_fires_once_in_its_first_pass() -> None:
    found = occurrences(cron("30 1 * * *"), utc("2026-10-24T12:00"), utc("2026-10-26T00:00"))

    assert [(o.key, o.at) for o in found] == [("2026-10-25T01:30 Europe/London", utc("2026-10-25T00:30"))]


def test_an_hour_that_never_happens_fires_right_after_the_gap() -> None:
    found = occurrences(cron("30 1 * * *"), utc("2026-03-28T12:00"), utc("2026-03-30T00:00"))

    assert [(o.key, o.at) for o in found] == [("2026-03-29T01:30 Europe/London", utc("2026-03-29T01:00"))]


def test_wall_times_on_one_instant_are_one_occurrence() -> None:
    found = occurrences(cron("*/15 * * * *"), utc("2026-03-29T00:45"), utc("2026-03-29T01:15"))

    assert [(o.key, o.at) for o in found] == [
        ("2026-03-29T01:00 Europe/London", utc("2026-03-29T01:00")),
        ("2026-03-29T02:15 Europe/London", utc("2026-03-29T01:15")),
    ]


def test_local_true_fires_when_the_day_has_come_in_the_farthest_east() -> None:
    occurrence = next_occurrence(cron("0 10 * * *", local=True, late="skip"), utc("2026-12-06T21:00"))

    assert occurrence is not None
    assert occurrence.at == utc("2026-12-07T20:00")  # 10:00 on the 8th in Kiritimati
    assert occurrence.key == "2026-12-08T10:00 Europe/London"


def test_a_single_time_fires_once_and_never_again() -> None:
    schedule = Schedule.model_validate({"at": "2026-12-01T10:00:30", "zone": "Europe/Bucharest"})
    occurrence = next_occurrence(schedule, utc("2026-11-01T00:00"))

    assert occurrence is not None
    assert (occurrence.key, occurrence.at) == ("2026-12-01T10:00:30 Europe/Bucharest", utc("2026-12-01T08:00:30"))
    assert next_occurrence(schedule, occurrence.at) is None
    assert latest_occurrences(schedule, utc("2026-11-01T00:00"), utc("2026-12-31T00:00"), 10) == [occurrence]
    assert latest_occurrences(schedule, occurrence.at, utc("2026-12-31T00:00"), 10) == []


def test_a_day_that_a_zone_left_out_fires_at_the_first_instant_after_it() -> None:
    schedule = Schedule.model_validate({"at": "2011-12-30T15:00", "zone": "Pacific/Apia"})
    occurrence = next_occurrence(schedule, utc("2011-12-01T00:00"))

    assert occurrence is not None
    assert occurrence.at == utc("2011-12-30T10:00")


@st.composite
def crons(draw: st.DrawFn) -> str:
    minute = draw(st.sampled_from(["*", "0", "30", "*/15", "1,31,59", "5-10", "*/7"]))
    hour = draw(st.sampled_from(["*", "0", "1", "2", "3", "23", "*/2", "0-3"]))
    weekday = draw(st.sampled_from(["*", "sun", "1-5", "6,0"]))
    return f"{minute} {hour} * * {weekday}"


def matches(expression: str, wall: datetime) -> bool:
    """A cron expression read field by field, as slowly as can be."""
    minute, hour, _, _, weekday = expression.replace("sun", "0").split()
    return all(
        value in _values(field, length)
        for field, length, value in (
            (minute, 60, wall.minute),
            (hour, 24, wall.hour),
            (weekday, 7, wall.isoweekday() % 7),
        )
    )


def _values(field: str, length: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = ("0", "-", str(length - 1)) if span == "*" else span.partition("-")
        found |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return found


def stepping_oracle(expression: str, zone: str, after: datetime, until: datetime) -> list[tuple[str, datetime]]:
    """Watch the zone's wall clock minute by minute: whatever wall time it passes for the first time happens now."""
    place = ZoneInfo(zone)
    instant = after - timedelta(days=2)
    passed = instant.astimezone(place).replace(tzinfo=None)
    found = []
    while instant < until:
        instant += MINUTE
        wall = instant.astimezone(place).replace(tzinfo=None)
        named = []
        while passed < wall:
            passed += MINUTE
            if matches(expression, passed):
                named.append(passed)
        if named and instant > after:
            found.append((f"{named[0].isoformat(timespec='minutes')} {zone}", instant))
    return found


@settings(max_examples=40, deadline=None)
@given(change=st.sampled_from(CHANGES), expression=crons(), begin=st.integers(0, 2000))
def test_occurrences_agree_with_watching_the_wall_clock(change: tuple[str, str], expression: str, begin: int) -> None:
    zone, day = change
    after = (
        datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
        - timedelta(hours=16)
        + begin * MINUTE
    )
    until = after + timedelta(hours=36)

    found = occurrences(cron(expression, zone), after, until)

    assert [(o.key, o.at) for o in found] == stepping_oracle(expression, zone, after, until)
    assert all(earlier.at < later.at for earlier, later in pairwise(found))
    assert len({o.key for o in found}) == len(found)
    assert all(o.at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) >= o.nominal_local for o in found)


@settings(max_examples=40, deadline=None)
@given(
    change=st.sampled_from(CHANGES),
    expression=crons(),
    begin=st.integers(0, 2000),
    most=st.integers(1, 12),
    local=st.booleans(),
)
def test_looking_back_finds_the_end_of_looking_forward(
    change: tuple[str, str], expression: str, begin: int, most: int, local: bool
) -> None:
    zone, day = change
    schedule = cron(expression, zone, local=local, late="skip" if local else None)
    after = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(hours=16) + begin * MINUTE
    until = after + timedelta(hours=36)

    assert latest_occurrences(schedule, after, until, most) == occurrences(schedule, after, until)[-most:]


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(change=st.sampled_from(CHANGES), expression=crons(), begin=st.integers(0, 2000))
def test_occurrences_agree_with_watching_the_wall_clock_for_long(
    change: tuple[str, str], expression: str, begin: int
) -> None:
    test_occurrences_agree_with_watching_the_wall_clock.hypothesis.inner_test(change, expression, begin)  # type: ignore[attr-defined]
