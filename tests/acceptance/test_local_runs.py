"""A campaign for six in the evening wherever its people are, by the clock of a whole house."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from house import Live, eventually, live_shop, own_servers, write_people
from small_workspace import FILES
from sqlalchemy.engine import URL

from dispatcher import clock
from dispatcher.up import rooms_of

pytestmark = pytest.mark.thorough

EVENING = FILES["campaigns/hello.yaml"].replace("hello", "evening")
SCHEDULE = 'schedule: {cron: "0 18 * * *", zone: Europe/London, local: true, late: skip}\n'


def test_the_clock_fires_it_where_the_day_begins_and_each_gets_it_in_their_evening(
    servers: tuple[str, str], template_database: URL, tmp_path: Path
) -> None:
    people = write_people(tmp_path / "people.csv", 60)
    lines = people.read_text(encoding="utf-8").splitlines(keepends=True)
    tokyo = [line.replace("Europe/London", "Asia/Tokyo") if n % 2 else line for n, line in enumerate(lines)]
    people.write_text("".join(tokyo), encoding="utf-8")
    with (
        own_servers(servers, template_database) as own,
        live_shop(
            tmp_path / "home", servers=own, workspace={"campaigns/evening.yaml": EVENING + SCHEDULE}, people=people,
            rooms=rooms_of(1, web=False),
        ) as live,
    ):  # fmt: skip
        fires_at = live.one("SELECT next_fire_at FROM campaign WHERE name = 'evening'")
        _move_to(live, fires_at)
        eventually(lambda: live.one("SELECT planned_at FROM run WHERE name = 'evening'"), saying="fired and planned")
        run_id, nominal_at = live.rows("SELECT id, nominal_at FROM run WHERE name = 'evening'")[0]
        assert nominal_at == fires_at
        assert live.outbox(run_id) == []
        everybody = 0
        for zone in ("Asia/Tokyo", "Europe/London"):
            due_at, waiting = live.rows(
                """SELECT due_at, count(*) FROM message JOIN contact c ON c.id = contact_id
                   WHERE run_id = :run AND status = 'pending' AND c.zone = :zone GROUP BY 1""",
                run=run_id, zone=zone,
            )[0]  # fmt: skip
            _move_to(live, due_at)
            everybody += waiting
            eventually(lambda: len(live.outbox(run_id)) >= everybody, saying=f"the evening in {zone}")  # noqa: B023
            assert len(live.outbox(run_id)) == everybody
        assert everybody == live.agreed()
        live.finish(run_id)
        live.check_nobody_twice_nobody_lost(run_id)
        live.check_invariants()


def _move_to(live: Live, moment: datetime) -> None:
    with live.database.begin() as connection:
        ahead = moment - clock.read_now(connection) + timedelta(milliseconds=1)
        offset = live.one("SELECT clock_offset FROM engine")
        clock.shift(connection, offset + ahead, sandbox_only=True)
