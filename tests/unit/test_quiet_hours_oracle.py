"""Openings around every clock change of every zone, against an oracle that only reads wall clocks.

The seed is fixed, so that a failure can be had again; docs/contact-windows.md records the last long campaign.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest

from dispatcher.definitions import Silence
from dispatcher.hours import WEEKDAYS
from dispatcher.quiet_hours import LocalSilence, next_opening
from tests.oracle_silences import Hours, silent_steps

SEED = 20261125
SINCE, UNTIL = datetime(2020, 1, 1, tzinfo=UTC), datetime(2041, 1, 1, tzinfo=UTC)
LOOKED_AT = timedelta(days=18)
GUARDS = (timedelta(0), timedelta(minutes=5), timedelta(minutes=15))
TICK = timedelta(microseconds=1)


@cache
def histories() -> dict[str, tuple[datetime, ...]]:
    """Every zone with a history of its own since 2020, and the instants at which its clocks change."""
    by_history: dict[tuple[object, ...], str] = {}
    for zone in sorted(available_timezones()):
        changes = tuple(clock_changes(ZoneInfo(zone)))
        by_history.setdefault((SINCE.astimezone(ZoneInfo(zone)).utcoffset(), changes), zone)
    return {zone: tuple(at for at, _ in key[1]) for key, zone in by_history.items()}  # type: ignore[attr-defined]


def clock_changes(zone: ZoneInfo) -> Iterator[tuple[datetime, object]]:
    at, offset = SINCE, SINCE.astimezone(zone).utcoffset()
    while at < UNTIL:
        following = at + timedelta(days=7)  # no clock changes twice a week
        if following.astimezone(zone).utcoffset() != offset:
            low, high = at, following
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) // 2
                low, high = (middle, high) if middle.astimezone(zone).utcoffset() == offset else (low, middle)
            offset = following.astimezone(zone).utcoffset()
            yield high.replace(microsecond=0), offset
        at = following


@cache
def grid(zones: frozenset[str]) -> timedelta:
    """Return the steps in which the clocks of these zones are read: all their changes fall on one."""
    odd = any(at.minute % 5 for zone in zones for at in histories()[zone])
    return timedelta(minutes=1 if odd else 5)


def any_rules(chance: random.Random, zones: tuple[str, ...]) -> tuple[Hours, ...]:
    def one() -> Hours:
        start, end = chance.randrange(0, 288), chance.randrange(0, 288)
        if chance.random() < 0.5:  # near the hours at which clocks change
            start, end = chance.randrange(0, 42), chance.randrange(0, 42)
        if start == end:
            end = 0
        days = frozenset(day for day in range(7) if chance.random() < 0.8) or frozenset({6})
        return Hours(chance.choice(zones), _time(start), _time(end), days)

    return tuple(one() for _ in range(chance.choice((1, 1, 2, 3))))


def _time(steps: int) -> time:
    return time(steps // 12, steps % 12 * 5)


def as_ours(rules: tuple[Hours, ...]) -> tuple[LocalSilence, ...]:
    return tuple(
        LocalSilence(
            rule.zone,
            (Silence(start=rule.start, end=rule.end, days=tuple(WEEKDAYS[day] for day in sorted(rule.days))),),
            (),
            "shop",
        )
        for rule in rules
    )


def check(start: datetime, now: datetime, rules: tuple[Hours, ...], guard: timedelta) -> None:
    """The opening is the first instant from which the guard fits, to the microsecond, and closes where it says.

    `start`, a round hour some days before, is where the oracle begins to read clocks.
    """
    step = grid(frozenset(rule.zone for rule in rules))
    silent = silent_steps(start, step, LOOKED_AT // step, rules)

    def is_open(at: datetime) -> bool:
        first, last = (at - start) // step, (at + guard - start) // step
        return not any(silent[first : last + 1])

    at = (now - start) // step
    expected = None
    if is_open(now):
        expected = now
    else:
        for later in range(at + 1, at + timedelta(days=9) // step):
            if not silent[later] and silent[later - 1] and is_open(start + step * later):
                expected = start + step * later
                break
    found = next_opening(now, as_ours(rules), guard)
    opens_at = found.opens_at if found and found.opens_at < now + timedelta(days=8) else None
    case = f"{now.isoformat()} {rules} {guard}"
    if expected is None or expected >= now + timedelta(days=8):
        assert opens_at is None, case
        return
    assert opens_at == expected, f"{case}: {opens_at} instead of {expected}"
    assert found is not None
    if found.closes_at is not None and found.closes_at < start + LOOKED_AT - timedelta(days=3):
        closes = (found.closes_at - start) // step
        assert start + step * closes == found.closes_at, case
        assert silent[closes], case
        assert not any(silent[(opens_at - start) // step : closes]), case


def campaign(cases: int, *, seed: int) -> int:
    """Check so many cases, two days each side of every clock change first, then samples between; return the changes."""
    chance = random.Random(seed)
    places = [(zone, at) for zone, changes in histories().items() for at in changes]
    chance.shuffle(places)
    zones = tuple(histories())
    for done in range(0, cases, 12):
        turn = done // 12
        if turn < len(places) or chance.random() < 0.7:
            zone, at = places[turn % len(places)]
        else:
            zone, at = chance.choice(zones), SINCE + timedelta(seconds=chance.randrange(0, 20 * 365 * 86_400))
        start = at.replace(minute=0, second=0) - timedelta(days=6)
        several = (zone, zone, chance.choice(zones)) if chance.random() < 0.3 else (zone,)
        for _ in range(4):
            now = at + timedelta(seconds=chance.randrange(-2 * 86_400, 2 * 86_400))
            if chance.random() < 0.5:  # on an edge, or beside it
                now = now.replace(minute=now.minute // 5 * 5, second=0) + chance.choice((-TICK, timedelta(0), TICK))
            for _ in range(3):
                check(start, now, any_rules(chance, several), chance.choice(GUARDS))
    return len(places)


def test_openings_agree_with_wall_clocks() -> None:
    campaign(240, seed=SEED)


@pytest.mark.thorough
def test_openings_agree_with_wall_clocks_around_every_clock_change() -> None:
    assert len(histories()) > 80
    assert campaign(24_000, seed=SEED + 1) * 12 < 24_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_openings_agree_with_wall_clocks_ten_times_as_often() -> None:
    campaign(240_000, seed=SEED + 2)
