"""`local: true`: at one wall time in each place, fired where the day begins, whatever the clocks do there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from at_work import AtWork, campaign, noon_ahead
from people import add_person
from sqlalchemy import Engine, text

from dispatcher.keys import KeyRing
from dispatcher.schedules import fire_due

DAY = noon_ahead().replace(hour=0)
ZONES = {
    "line": "Pacific/Kiritimati",
    "zealand": "Pacific/Auckland",
    "japan": "Asia/Tokyo",
    "england": "Europe/London",
    "angels": "America/Los_Angeles",
    "states": None,  # of whom only the country is known: New York is first
}
#: When it is six in the evening of that day there.
SIX = {
    "line": DAY + timedelta(hours=4),
    "zealand": DAY + timedelta(hours=5),
    "japan": DAY + timedelta(hours=9),
    "england": DAY + timedelta(hours=18),
    "angels": DAY + timedelta(hours=26),
    "states": DAY + timedelta(hours=23),
}


def workspace(late: str = "skip", more: str = "", schedule: str = 'cron: "0 18 * * *"') -> dict[str, str]:
    return campaign("local", f"schedule: {{{schedule}, zone: Europe/London, local: true, late: {late}{more}}}\n")


def shop_with(database: Engine, key_ring: KeyRing, home: Path, rules: dict[str, str], starts: datetime) -> AtWork:
    shop = AtWork(database, key_ring, home, rules, starts=starts)
    with database.begin() as connection:
        for name, zone in ZONES.items():
            add_person(connection, key_ring, name, zone=zone, country="GB" if zone else "US")
    return shop


def test_it_is_fired_where_the_day_begins_and_leaves_at_its_hour_in_each_place(
    database: Engine, key_ring: KeyRing, tmp_path: Path
) -> None:
    shop = shop_with(database, key_ring, tmp_path, workspace(), DAY + timedelta(hours=3, minutes=59))
    assert fire_due(database) == []
    shop.move_to(DAY + timedelta(hours=4, seconds=1))
    [run_id] = fire_due(database)
    shop.plan(run_id)
    rows = shop.rows(run_id)

    assert {name: row.first_due_at for name, row in rows.items()} == SIX
    assert {row.expires_at - row.first_due_at for row in rows.values()} == {timedelta(hours=24)}
    left: set[str] = set()
    for name, at in sorted(SIX.items(), key=lambda item: item[1]):
        if name != "line":  # whose hour has come
            shop.move_to(at - timedelta(seconds=20))
            shop.send()
            assert {who for who, _ in shop.sent()} == left
        shop.move_to(at + timedelta(seconds=1))
        shop.send()
        left.add(name)
        assert {who for who, _ in shop.sent()} == left
    assert fire_due(database) == []


@pytest.mark.parametrize(
    ("late", "became", "due"),
    [
        ("now", "sent", DAY + timedelta(hours=4, minutes=40)),
        ("next_day", "pending", DAY + timedelta(hours=28)),
        ("skip", "LATE", None),
    ],
)
def test_who_is_past_it_when_the_clock_was_late_gets_what_the_campaign_says(
    database: Engine, key_ring: KeyRing, tmp_path: Path, late: str, became: str, due: datetime | None
) -> None:
    shop = shop_with(database, key_ring, tmp_path, workspace(late), DAY + timedelta(hours=3, minutes=59))
    shop.move_to(DAY + timedelta(hours=4, minutes=40))
    [run_id] = fire_due(database)
    shop.plan(run_id)
    shop.send()
    rows = shop.rows(run_id)

    assert rows["line"].became == became
    assert due is None or timedelta(0) <= rows["line"].first_due_at - due < timedelta(minutes=1)
    assert due is None or rows["line"].expires_at == rows["line"].first_due_at + timedelta(hours=24)
    assert {name: row.first_due_at for name, row in rows.items() if name != "line"} == {
        name: at for name, at in SIX.items() if name != "line"
    }


def test_long_planning_makes_nobody_late(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    shop = shop_with(database, key_ring, tmp_path, workspace("skip"), DAY + timedelta(hours=3, minutes=59))
    shop.move_to(DAY + timedelta(hours=4, seconds=1))
    [run_id] = fire_due(database)
    shop.move_to(DAY + timedelta(hours=5, minutes=10))
    shop.plan(run_id)
    shop.send()

    assert {who for who, _ in shop.sent()} == {"line", "zealand"}


def test_a_clock_that_was_away_for_too_long_has_missed_it_for_all(
    database: Engine, key_ring: KeyRing, tmp_path: Path
) -> None:
    shop = shop_with(database, key_ring, tmp_path, workspace(), DAY + timedelta(hours=3, minutes=59))
    shop.move_to(DAY + timedelta(hours=5, seconds=1))
    assert fire_due(database) == []
    with database.connect() as connection:
        assert connection.scalars(text("SELECT state FROM run")).all() == ["missed"]


def test_a_longer_lateness_leaves_it_to_the_places_that_are_still_before_it(
    database: Engine, key_ring: KeyRing, tmp_path: Path
) -> None:
    rules = workspace(more=", max_lateness: 12h")
    shop = shop_with(database, key_ring, tmp_path, rules, DAY + timedelta(hours=3, minutes=59))
    shop.move_to(DAY + timedelta(hours=10))
    [run_id] = fire_due(database)
    shop.plan(run_id)

    became = {name: row.became for name, row in shop.rows(run_id).items()}
    late = {"line", "zealand", "japan"}
    assert became == {name: "LATE" if name in late else "pending" for name in SIX}


@pytest.mark.parametrize(
    ("wall", "instant"),
    [
        ("2027-03-28T01:30", datetime(2027, 3, 28, 1, tzinfo=UTC)),  # never shown: the first instant after the gap
        ("2027-10-31T01:30", datetime(2027, 10, 31, 0, 30, tzinfo=UTC)),  # shown twice: the first
    ],
)
def test_a_wall_time_that_never_is_or_is_twice(
    database: Engine, key_ring: KeyRing, tmp_path: Path, wall: str, instant: datetime
) -> None:
    begins = datetime.fromisoformat(f"{wall}Z") - timedelta(hours=14)
    rules = workspace(schedule=f'at: "{wall}"')
    shop = shop_with(database, key_ring, tmp_path, rules, begins - timedelta(minutes=1))
    shop.move_to(begins + timedelta(seconds=1))
    [run_id] = fire_due(database)
    shop.plan(run_id)

    assert shop.rows(run_id)["england"].due_at == instant


def test_started_by_hand_it_is_due_now_for_everybody(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    shop = shop_with(database, key_ring, tmp_path, workspace(), DAY + timedelta(hours=12))
    run_id = shop.plan(shop.start("local"))
    shop.send()

    assert shop.became(run_id) == {"sent": len(ZONES)}
