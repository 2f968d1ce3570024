"""Caps against a direct count."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.caps import longest_window, reach, rivals_for, room_under
from dispatcher.definitions import Cap
from dispatcher.facts import Counted, Facts, Rival, RunFacts
from dispatcher.places import Place, Places

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)  # a Wednesday
RUN = RunFacts(state="running", stopped=False, channel="email", topic="offers", class_="marketing")


def facts_with(*counted: Counted, zones: tuple[str, ...] = ("Europe/London",)) -> Facts:
    return Facts(
        RUN,
        1,
        NOW + timedelta(days=1),
        places=Places(tuple(Place(zone, None, None, "stated zone") for zone in zones)),
        counted=counted,
    )


def at(moment: datetime, *, contact: bool = True, address: bool = True, channel: str = "email") -> Counted:
    return Counted(moment, channel, "offers", contact, address)


moments = st.lists(st.integers(0, 5 * 24 * 60), max_size=12).map(
    lambda ages: [at(NOW - timedelta(minutes=age)) for age in ages]
)


@given(counted=moments, most=st.integers(1, 4), hours=st.integers(1, 72))
def test_a_rolling_cap_counts_what_is_younger_than_its_window(counted: list[Counted], most: int, hours: int) -> None:
    cap = Cap(name="c", max=most, window=timedelta(hours=hours))
    room = room_under(cap, facts_with(*counted), NOW)

    younger = sum(1 for c in counted if c.at > NOW - timedelta(hours=hours))
    assert room.free == max(most - younger, 0)


@given(counted=moments, most=st.integers(1, 4), hours=st.integers(1, 72))
def test_a_slot_frees_exactly_when_it_says(counted: list[Counted], most: int, hours: int) -> None:
    cap = Cap(name="c", max=most, window=timedelta(hours=hours))
    facts = facts_with(*counted)
    frees_at = room_under(cap, facts, NOW).frees_at

    if frees_at is not None:
        assert room_under(cap, facts, frees_at).free > 0
        assert room_under(cap, facts, frees_at - timedelta(microseconds=1)).free == 0


@pytest.mark.parametrize(
    ("calendar", "begins"),
    [("day", datetime(2026, 11, 25)), ("week", datetime(2026, 11, 23)), ("month", datetime(2026, 11, 1))],
)
@pytest.mark.parametrize("zone", ["Europe/London", "Pacific/Auckland", "America/Los_Angeles"])
def test_a_calendar_cap_begins_at_local_midnight(calendar: str, begins: datetime, zone: str) -> None:
    cap = Cap.model_validate({"name": "c", "max": 1, "calendar": calendar})
    local_today = NOW.astimezone(ZoneInfo(zone)).date()
    shift = local_today - NOW.date() if calendar == "day" else timedelta(0)
    midnight = (begins + shift).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)

    assert room_under(cap, facts_with(at(midnight), zones=(zone,)), NOW).free == 0
    assert room_under(cap, facts_with(at(midnight - timedelta(microseconds=1)), zones=(zone,)), NOW).free == 1


def test_of_several_candidate_zones_the_one_that_allows_least_holds() -> None:
    cap = Cap(name="c", max=1, calendar="day")
    sent = at(datetime(2026, 11, 24, 23, tzinfo=UTC))  # today in Sydney, yesterday in London

    assert room_under(cap, facts_with(sent, zones=("Europe/London",)), NOW).free == 1
    assert room_under(cap, facts_with(sent, zones=("Australia/Sydney", "Europe/London")), NOW).free == 0


def test_contact_and_address_are_counted_apart_and_the_larger_count_holds() -> None:
    cap = Cap(name="c", max=2, window=timedelta(hours=24))
    only_contact = at(NOW - timedelta(hours=1), address=False)
    only_address = at(NOW - timedelta(hours=2), contact=False)

    assert room_under(cap, facts_with(only_contact, only_address), NOW).free == 1
    assert room_under(cap, facts_with(only_contact, replace(only_contact), only_address), NOW).free == 0


def test_a_cap_looks_only_at_its_channels_and_topics() -> None:
    cap = Cap(name="c", max=1, window=timedelta(hours=24), channels=("sms",))
    other = Cap(name="c", max=1, window=timedelta(hours=24), topics=("news",))
    facts = facts_with(at(NOW - timedelta(hours=1)))

    assert room_under(cap, facts, NOW).free == 1
    assert room_under(other, facts, NOW).free == 1


def test_a_least_gap_is_measured_from_the_last_message() -> None:
    cap = Cap(name="gap", min_gap=timedelta(hours=2))
    last = NOW - timedelta(hours=1)
    room = room_under(cap, facts_with(at(NOW - timedelta(hours=5)), at(last)), NOW)

    assert room.frees_at == last + timedelta(hours=2)


def test_a_rival_counts_while_it_is_due_inside_the_window() -> None:
    cap = Cap(name="c", max=1, window=timedelta(hours=6))
    soon = Rival("m1", "vip", "email", "offers", NOW + timedelta(hours=5), NOW + timedelta(hours=20))
    later = replace(soon, due_at=NOW + timedelta(hours=6))
    facts = replace(facts_with(), rivals=(soon, later))

    assert rivals_for(cap, facts, NOW) == (soon,)


def test_the_look_back_covers_every_cap() -> None:
    kinds = ("day", "week", "month")
    calendars = (Cap.model_validate({"name": kind, "max": 1, "calendar": kind}) for kind in kinds)
    caps = (*calendars, Cap(name="gap", min_gap=timedelta(days=40)))

    assert longest_window(caps) == timedelta(days=40)
    assert reach(caps[2]) >= timedelta(days=31)
