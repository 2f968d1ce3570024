"""Firing what is due: each occurrence once, however many clocks run and however long they slept."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from small_workspace import write_workspace
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from dispatcher.apply import apply
from dispatcher.definitions import Campaign
from dispatcher.reports import list_campaigns
from dispatcher.schedules import LONGEST_PUT_OFF, MOST_FIRED_AT_ONCE, MOST_MISSED_RECORDED, fire_due
from dispatcher.workspace import read_workspace


@pytest.fixture
def shop(database: Engine, tmp_path: Path) -> Engine:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace")), by="test")
    return database


def schedule(database: Engine, schedule: dict[str, Any], *, fires_after: datetime, name: str = "christmas") -> None:
    """Give the campaign this schedule, as if the clock had last looked at `fires_after`."""
    with database.begin() as connection:
        stored = connection.scalar(text("SELECT definition FROM campaign WHERE name = :name"), {"name": name})
        definition = Campaign.model_validate({**stored, "schedule": schedule}).model_dump_json()
        connection.execute(
            text("""UPDATE campaign SET definition = CAST(:definition AS jsonb), fires_after = :after,
                                        next_fire_at = :after WHERE name = :name"""),
            {"definition": definition, "after": fires_after, "name": name},
        )


def runs(database: Engine) -> list[Any]:
    with database.connect() as connection:
        return list(connection.execute(text("SELECT * FROM run ORDER BY nominal_at")))


def now(database: Engine) -> datetime:
    with database.connect() as connection:
        instant: datetime = connection.scalar(text("SELECT clock_timestamp()"))
    return instant.astimezone(UTC)


def whole_minute(instant: datetime) -> datetime:
    return instant.replace(second=0, microsecond=0)


EVERY_MINUTE = {"cron": "* * * * *", "zone": "UTC"}


def test_nothing_is_fired_before_its_time(shop: Engine) -> None:
    assert fire_due(shop) == []
    assert runs(shop) == []


def test_a_due_occurrence_becomes_a_run_and_the_campaign_moves_on(shop: Engine) -> None:
    due = whole_minute(now(shop)) - timedelta(minutes=5)
    schedule(shop, {"at": f"{due:%Y-%m-%dT%H:%M}", "zone": "UTC"}, fires_after=due - timedelta(days=1))

    fired = fire_due(shop)

    (run,) = runs(shop)
    assert fired == [run.id]
    assert (run.occurrence_key, run.nominal_at, run.state) == (f"{due:%Y-%m-%dT%H:%M} UTC", due, "planning")
    with shop.connect() as connection:
        row = connection.execute(text("SELECT fires_after, next_fire_at FROM campaign WHERE name = 'christmas'")).one()
    assert (row.fires_after, row.next_fire_at) == (due, None)
    assert fire_due(shop) == []


def test_occurrences_within_their_lateness_are_all_fired_oldest_first(shop: Engine) -> None:
    started = whole_minute(now(shop)) - timedelta(minutes=4)
    schedule(shop, EVERY_MINUTE, fires_after=started)

    fired = fire_due(shop)

    found = runs(shop)
    assert [run.id for run in found] == fired
    assert [run.nominal_at for run in found[:4]] == [started + timedelta(minutes=n) for n in (1, 2, 3, 4)]


def test_one_call_fires_a_bounded_number_and_the_next_goes_on(shop: Engine) -> None:
    schedule(shop, EVERY_MINUTE, fires_after=whole_minute(now(shop)) - timedelta(minutes=30))

    assert len(fire_due(shop)) == MOST_FIRED_AT_ONCE
    assert len(fire_due(shop)) == MOST_FIRED_AT_ONCE
    assert len(fire_due(shop)) == MOST_FIRED_AT_ONCE


def test_what_is_too_late_is_recorded_as_missed_the_newest_only(shop: Engine) -> None:
    slept = {**EVERY_MINUTE, "max_lateness": "2m"}
    schedule(shop, slept, fires_after=whole_minute(now(shop)) - timedelta(days=400))

    fired = fire_due(shop)

    found = runs(shop)
    missed = [run for run in found if run.state == "missed"]
    assert len(missed) == MOST_MISSED_RECORDED
    assert all(run.audience == 0 and run.finished_at is not None for run in missed)
    assert {run.id for run in found} - {run.id for run in missed} == set(fired)
    assert 2 <= len(fired) <= 3  # the last two minutes, and the third if one just ended
    nominal = [run.nominal_at for run in found]
    assert nominal == [nominal[0] + timedelta(minutes=n) for n in range(len(nominal))]


def test_an_occurrence_that_has_its_run_is_not_fired_again(shop: Engine) -> None:
    due = whole_minute(now(shop)) - timedelta(minutes=5)
    once = {"at": f"{due:%Y-%m-%dT%H:%M}", "zone": "UTC"}
    schedule(shop, once, fires_after=due - timedelta(days=1))
    fire_due(shop)

    schedule(shop, once, fires_after=due - timedelta(days=1))

    assert fire_due(shop) == []
    assert len(runs(shop)) == 1


def test_a_retired_campaign_does_not_fire(shop: Engine) -> None:
    schedule(shop, EVERY_MINUTE, fires_after=now(shop) - timedelta(minutes=5))
    with shop.begin() as connection:
        connection.execute(text("UPDATE campaign SET active = false"))

    assert fire_due(shop) == []


def test_a_campaign_that_cannot_fire_does_not_hold_up_the_others(shop: Engine) -> None:
    for name in ("christmas", "hello"):
        schedule(shop, EVERY_MINUTE, fires_after=whole_minute(now(shop)) - timedelta(seconds=1), name=name)
    with shop.begin() as connection:
        connection.execute(text("DELETE FROM segment WHERE name = 'fans'"))

    fire_due(shop)

    assert {run.name for run in runs(shop)} == {"hello"}


def campaign(database: Engine, name: str) -> dict[str, Any]:
    with database.connect() as connection:
        return next(row for row in list_campaigns(connection) if row["campaign"] == name)


def test_a_campaign_that_cannot_fire_says_so_once_and_is_tried_again_more_and_more_rarely(shop: Engine) -> None:
    schedule(shop, EVERY_MINUTE, fires_after=whole_minute(now(shop)) - timedelta(seconds=1))
    with shop.begin() as connection:
        connection.execute(text("UPDATE campaign SET definition = jsonb_set(definition, '{segment}', '\"gone\"')"))

    waits: list[float] = []
    with capture_logs() as logs:
        for _ in range(12):
            fire_due(shop)
            fire_due(shop)  # not its time yet: nothing happens
            with shop.begin() as connection:
                row = connection.execute(
                    text(
                        "UPDATE campaign SET fire_retry_at = clock_timestamp() WHERE name = 'christmas' "
                        "RETURNING fire_failures, (SELECT extract(epoch FROM c.fire_retry_at - clock_timestamp()) "
                        "FROM campaign c WHERE c.name = 'christmas')"
                    )
                ).one()
            waits.append(float(row[1]))
    loud = [line for line in logs if line["event"] == "campaign.not_fired" and line["log_level"] == "error"]

    assert row.fire_failures == 12
    assert [round(wait) for wait in waits[:5]] == [1, 2, 4, 8, 16]
    assert 290 < waits[-1] <= LONGEST_PUT_OFF.total_seconds()
    assert len(loud) == 1
    assert "gone" in loud[0]["error"]
    assert campaign(shop, "christmas")["not_fired_because"] == loud[0]["error"]
    assert campaign(shop, "christmas")["not_fired_since"] is not None
    assert campaign(shop, "hello")["not_fired_because"] is None


def test_a_campaign_that_can_fire_again_is_taken_off_the_list(shop: Engine, tmp_path: Path) -> None:
    schedule(shop, EVERY_MINUTE, fires_after=whole_minute(now(shop)) - timedelta(seconds=1))
    with shop.begin() as connection:
        connection.execute(text("DELETE FROM segment WHERE name = 'fans'"))
    assert fire_due(shop) == []

    with shop.begin() as connection:  # mended: no need to wait for the next try
        apply(connection, read_workspace(tmp_path / "workspace"), by="test")
        connection.execute(text("UPDATE campaign SET next_fire_at = fires_after"))
        schedule_again = connection.scalar(text("SELECT fire_retry_at FROM campaign WHERE name = 'christmas'"))
    assert schedule_again is None
    schedule(shop, EVERY_MINUTE, fires_after=whole_minute(now(shop)) - timedelta(seconds=1))
    assert len(fire_due(shop)) >= 1

    assert campaign(shop, "christmas")["not_fired_because"] is None


def test_two_clocks_that_race_fire_once(shop: Engine) -> None:
    rounds = 25
    base = whole_minute(now(shop)) - timedelta(minutes=30)
    start = threading.Barrier(2, timeout=20)
    fired: list[list[UUID]] = [[], []]

    def clock(own: list[UUID]) -> None:
        for _ in range(rounds):
            start.wait()
            own += fire_due(shop)
            start.wait()

    other = threading.Thread(target=clock, args=(fired[1],), daemon=True)
    other.start()
    for number in range(rounds):
        due = base + timedelta(seconds=number)
        schedule(shop, {"at": f"{due:%Y-%m-%dT%H:%M:%S}", "zone": "UTC"}, fires_after=due - timedelta(seconds=1))
        start.wait()
        fired[0] += fire_due(shop)
        start.wait()
    other.join()

    found = runs(shop)
    assert sorted(fired[0] + fired[1]) == sorted(run.id for run in found)
    assert [run.nominal_at for run in found] == [base + timedelta(seconds=number) for number in range(rounds)]


def test_firing_and_moving_on_are_one_transaction(shop: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    due = whole_minute(now(shop)) - timedelta(minutes=5)
    schedule(shop, {"at": f"{due:%Y-%m-%dT%H:%M}", "zone": "UTC"}, fires_after=due - timedelta(days=1))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dispatcher.schedules._move_on", die)
        with pytest.raises(KeyboardInterrupt):
            fire_due(shop)
    assert runs(shop) == []

    assert len(fire_due(shop)) == 1


def test_the_definition_of_a_missed_run_is_frozen_all_the_same(shop: Engine) -> None:
    schedule(shop, {**EVERY_MINUTE, "max_lateness": "1m"}, fires_after=whole_minute(now(shop)) - timedelta(hours=1))
    fire_due(shop)

    stored = next(run.definition for run in runs(shop) if run.state == "missed")
    assert Campaign.model_validate(stored).name == "christmas"
    assert orjson.dumps(stored)
