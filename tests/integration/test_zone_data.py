"""New zone rules: what waits by the old ones is reckoned afresh, once, when a process starts with others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from people import add_person
from small_workspace import FILES, write_workspace
from sqlalchemy import Engine, text

from dispatcher import clock, runs, zone_data
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.places import TZDATA_VERSION
from dispatcher.plan import plan_page
from dispatcher.workspace import read_workspace

LOCAL = FILES["campaigns/hello.yaml"] + 'schedule: {cron: "0 10 * * *", zone: UTC, local: true, late: skip}\n'


@pytest.fixture
def run(database: Engine, key_ring: KeyRing, tmp_path: Path) -> UUID:
    """A run for ten o'clock tomorrow in each place, planned."""
    with database.begin() as connection:
        workspace = read_workspace(write_workspace(tmp_path, {"campaigns/hello.yaml": LOCAL}))
        apply(connection, workspace, by="test")
        add_person(connection, key_ring, "london")
        now = clock.read_now(connection)
        nominal = (now + timedelta(days=2)).replace(hour=10, minute=0, second=0, microsecond=0) - timedelta(hours=14)
        run_id = runs.fire(connection, "hello", occurrence_key="x", nominal_at=nominal, now=now, started_by="schedule")
        connection.execute(text("UPDATE engine SET tzdata = '2020a'"))
    assert run_id is not None
    while plan_page(database, run_id):
        pass
    return run_id


def message(database: Engine) -> tuple[datetime, datetime, datetime]:
    with database.connect() as connection:
        row = connection.execute(text("SELECT due_at, first_due_at, expires_at FROM message")).one()
    return row.due_at, row.first_due_at, row.expires_at


def move(database: Engine, sql: str) -> None:
    with database.begin() as connection:
        connection.execute(text(f"UPDATE message SET {sql}"))


def test_a_local_time_is_where_todays_rules_put_it(database: Engine, run: UUID) -> None:
    right = message(database)
    assert right[0].astimezone(UTC) > datetime.now(UTC)
    move(
        database,
        "due_at = due_at - interval '1 h', first_due_at = first_due_at - interval '1 h', "
        "expires_at = expires_at - interval '1 h'",
    )

    assert zone_data.heed(database) == 1
    assert message(database) == right
    assert zone_data.heed(database) == 0  # the engine has seen these rules


def test_what_was_put_off_is_asked_again_and_not_before_its_time(database: Engine, run: UUID) -> None:
    _, first_due_at, _ = message(database)
    move(database, "due_at = due_at + interval '3 h', deferred_reason = 'QUIET_HOURS'")
    zone_data.heed(database)
    assert message(database)[0] == first_due_at

    move(
        database,
        "first_due_at = first_due_at - interval '9 days', due_at = due_at + interval '3 h', "
        "deferred_reason = 'PLACE_UNKNOWN'",
    )
    zone_data.heed(database, "2020b")
    assert message(database)[0] <= datetime.now(UTC)


def test_other_deferrals_wait_on(database: Engine, run: UUID) -> None:
    move(database, "first_due_at = first_due_at - interval '9 days', deferred_reason = 'OUTRANKED'")
    before = message(database)

    assert zone_data.heed(database) == 0
    assert message(database) == before


def test_the_first_process_of_an_engine_notes_its_rules(database: Engine) -> None:
    assert zone_data.heed(database) == 0
    with database.connect() as connection:
        assert connection.scalar(text("SELECT tzdata FROM engine")) == TZDATA_VERSION
