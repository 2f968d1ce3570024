"""Caps against a direct count, made from the words of the rule: minute by minute, by what clocks show."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.caps import longest_window, reach, rivals_for, room_under
from dispatcher.definitions import Cap, Silence
from dispatcher.facts import Counted, Facts, Rival, RunFacts
from dispatcher.gates import SEND, Defer, Reason, Skip, decide
from dispatcher.places import Place, Places
from dispatcher.quiet_hours import LocalSilence, next_opening

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
    due = NOW + timedelta(hours=5)
    soon = Rival("m1", "r1", "vip", "once", "email", "offers", 90, due, due, NOW + timedelta(hours=20))
    later = replace(soon, due_at=NOW + timedelta(hours=6))
    facts = replace(facts_with(), rivals=(soon, later))

    assert rivals_for(cap, facts, NOW) == (soon,)


def test_the_look_back_covers_every_cap() -> None:
    kinds = ("day", "week", "month")
    calendars = (Cap.model_validate({"name": kind, "max": 1, "calendar": kind}) for kind in kinds)
    caps = (*calendars, Cap(name="gap", min_gap=timedelta(days=40)))

    assert longest_window(caps) == timedelta(days=40)
    assert reach(caps[2]) >= timedelta(days=31)


def test_a_rival_of_another_calendar_day_takes_no_slot_of_this_one() -> None:
    cap = Cap.model_validate({"name": "c", "max": 1, "calendar": "day"})
    tonight = Rival("m1", "r1", "vip", "once", "email", "offers", 90, NOW, NOW + timedelta(hours=11), NOW + 2 * DAY)
    tomorrow = replace(tonight, due_at=NOW + timedelta(hours=13))  # London
    facts = replace(facts_with(), rivals=(tonight, tomorrow), expires_at=NOW + 2 * DAY)

    assert rivals_for(cap, facts, NOW) == (tonight,)


def test_only_those_of_higher_rank_are_in_the_way() -> None:
    cap = Cap(name="c", max=1, window=DAY)
    other = Rival("m1", "r1", "other", "once", "email", "offers", 50, NOW, NOW, NOW + DAY)
    facts = replace(facts_with(), rivals=(other,))

    assert rivals_for(cap, replace(facts, rank=(-50, NOW, "this", "once")), NOW) == (other,)
    assert rivals_for(cap, replace(facts, rank=(-50, NOW, "more", "once")), NOW) == ()
    assert rivals_for(cap, replace(facts, rank=(-50, NOW - DAY, "this", "once")), NOW) == ()
    assert rivals_for(cap, replace(facts, rank=(-51, NOW, "this", "once")), NOW) == ()


# --- the oracle

DAY = timedelta(days=1)
#: Days on which the clocks of a place do something remarkable: a midnight that never is, or is twice, a day left out.
REMARKABLE = [
    ("Europe/London", date(2026, 10, 25)),
    ("America/Havana", date(2025, 3, 9)),
    ("America/Havana", date(2025, 11, 2)),
    ("Africa/Cairo", date(2025, 4, 25)),
    ("America/Asuncion", date(2024, 3, 24)),
    ("America/St_Johns", date(2010, 11, 7)),
    ("Pacific/Apia", date(2011, 12, 30)),
    ("Australia/Lord_Howe", date(2026, 4, 5)),
]
OTHERS = ("America/Los_Angeles", "Asia/Kathmandu", "Pacific/Auckland", "Pacific/Kiritimati")


@cache
def first_existing(day: date, zone: str) -> datetime:
    """Return the first minute at which clocks in the zone show `day` or a later one."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=16)
    minutes = (start + timedelta(minutes=n) for n in range(60 * 60))
    return next(at for at in minutes if at.astimezone(ZoneInfo(zone)).date() >= day)


def day_of(at: datetime, zone: str) -> date:
    """Return the last day that has begun."""
    around = at.astimezone(ZoneInfo(zone)).date()
    return max(day for n in (-1, 0, 1) if first_existing(day := around + n * DAY, zone) <= at)


def first_day(calendar: str, day: date) -> date:
    while not {"day": True, "week": day.isoweekday() == 1, "month": day.day == 1}[calendar]:
        day -= DAY
    return day


def count(cap: Cap, counted: list[Counted], zones: tuple[str, ...], now: datetime) -> int:
    """Return how many of `counted` this cap counts at `now`, by the words of the rule."""
    of_cap = [c for c in counted if c.channel in cap.channels and (cap.topics is None or c.topic in cap.topics)]
    if cap.calendar is None:
        window = cap.min_gap or cap.window
        assert window is not None
        inside = [[c for c in of_cap if c.at > now - window]]
    else:
        begins = [first_existing(first_day(cap.calendar, day_of(now, zone)), zone) for zone in zones]
        inside = [[c for c in of_cap if c.at >= first] for first in begins]
    return max(max(sum(c.to_contact for c in some), sum(c.to_address for c in some)) for some in inside)


def most(cap: Cap) -> int:
    return 1 if cap.min_gap is not None else cap.max or 0


@st.composite
def any_cap(draw: st.DrawFn) -> Cap:
    scope = {
        "name": draw(st.sampled_from("abcdef")),
        "channels": draw(st.sampled_from([("email",), ("sms",), ("email", "sms")])),
        "topics": draw(st.sampled_from([None, ("offers",), ("letters", "offers")])),
    }
    kind = draw(st.sampled_from(["window", "calendar", "gap"]))
    if kind == "gap":
        return Cap(min_gap=timedelta(minutes=draw(st.integers(1, 3_000))), **scope)
    if kind == "window":
        return Cap(max=draw(st.integers(1, 4)), window=timedelta(minutes=draw(st.integers(1, 5_000))), **scope)
    calendar = draw(st.sampled_from(["day", "week", "month"]))
    return Cap(max=draw(st.integers(1, 4)), calendar=calendar, **scope)


@st.composite
def histories(draw: st.DrawFn) -> tuple[datetime, tuple[str, ...], list[Counted]]:
    """A moment on a remarkable day or near it, the places, and what was sent in the days before."""
    zone, day = draw(st.sampled_from(REMARKABLE))
    more = draw(st.lists(st.sampled_from(OTHERS), max_size=2))
    now = first_existing(day, zone) + timedelta(minutes=draw(st.integers(-2_000, 2_000)))
    counted = [
        Counted(now - timedelta(minutes=age), channel, topic, to_contact, not to_contact or both)
        for age, channel, topic, to_contact, both in draw(
            st.lists(
                st.tuples(
                    st.integers(0, 7_000),
                    st.sampled_from(["email", "sms"]),
                    st.sampled_from(["offers", "letters"]),
                    st.booleans(),
                    st.booleans(),
                ),
                max_size=10,
            )
        )
    ]
    return now, tuple(sorted({zone, *more})), counted


@given(history=histories(), cap=any_cap())
def test_a_cap_counts_what_its_words_say(history: tuple[datetime, tuple[str, ...], list[Counted]], cap: Cap) -> None:
    now, zones, counted = history
    room = room_under(cap, facts_with(*counted, zones=zones), now)

    assert room.free == max(most(cap) - count(cap, counted, zones, now), 0)
    assert (room.frees_at is None) == (room.free > 0)


@given(history=histories(), caps=st.lists(any_cap(), min_size=1, max_size=4))
def test_a_deferral_ends_at_the_first_instant_at_which_no_cap_objects(
    history: tuple[datetime, tuple[str, ...], list[Counted]], caps: list[Cap]
) -> None:
    now, zones, counted = history
    mine = tuple(c for c in caps if "email" in c.channels and (c.topics is None or "offers" in c.topics))
    run = replace(RUN, caps=mine, on_cap="defer")
    facts = replace(facts_with(*counted, zones=zones), run=run, consent="granted", address_id=1)
    facts = replace(facts, expires_at=now + 400 * DAY)
    verdict = decide(facts, now)

    def open_at(at: datetime) -> bool:
        return all(count(cap, counted, zones, at) < most(cap) for cap in mine)

    if open_at(now):
        assert verdict == SEND
    else:
        assert isinstance(verdict, Defer)
        assert verdict.reason is Reason.CAPPED
        assert open_at(verdict.until)
        assert not open_at(verdict.until - timedelta(seconds=1))
        assert decide(facts, verdict.until) == SEND
    assert decide(replace(facts, run=replace(run, on_cap="skip")), now) in (SEND, Skip(Reason.CAPPED))


@given(history=histories(), caps=st.lists(any_cap(), min_size=1, max_size=3))
def test_a_slot_that_frees_in_the_night_is_waited_for_until_the_morning(
    history: tuple[datetime, tuple[str, ...], list[Counted]], caps: list[Cap]
) -> None:
    now, zones, counted = history
    nights = tuple(LocalSilence(zone, (Silence.model_validate("20:00-09:00"),), (), "shop") for zone in zones[:1])
    run = replace(RUN, caps=tuple(caps), on_cap="defer", guard=timedelta(minutes=15))
    facts = replace(facts_with(*counted, zones=zones[:1]), run=run, consent="granted", address_id=1)
    verdict = decide(replace(facts, silences=nights, spread=0.3, expires_at=now + 400 * DAY), now)

    if isinstance(verdict, Defer) and verdict.reason is Reason.CAPPED:
        opening = next_opening(verdict.until, nights, run.guard)
        assert opening is not None
        assert opening.opens_at == verdict.until


def test_a_clock_set_back_leaves_no_slot_where_it_says_there_is_one() -> None:
    later = NOW + 3 * DAY
    for kind in ({"window": "24h"}, {"calendar": "day"}, {"calendar": "week"}):
        cap = Cap.model_validate({"name": "c", "max": 1, **kind})
        facts = facts_with(at(later))
        frees_at = room_under(cap, facts, NOW).frees_at

        assert frees_at is not None
        assert frees_at > later
        assert room_under(cap, facts, frees_at).free == 1
