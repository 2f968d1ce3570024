"""Everything else that can be killed in mid-run: clock, control, broker, database.  The run ends all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from uuid import UUID

import pytest
from house import ROOMY_CAPS, Live, eventually, live_shop, write_people

from dispatcher.room_guard import is_running

PEOPLE = 2_000
END_SECONDS = 60.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("killed-rooms")
    people = write_people(folder / "people.csv", PEOPLE)
    with live_shop(folder / "home", workspace=ROOMY_CAPS, people=people) as live:
        live.tell_sandbox(seconds_per_call=0.2, seconds_per_message=0.005)
        yield live


@pytest.mark.parametrize("room", ["control", "clock"])
def test_a_run_survives_the_death_of(live: Live, room: str) -> None:
    run_id = live.start("hello")
    for least in (1, PEOPLE // 2):
        _when_sent(live, run_id, least)
        _kill_room(live, room)
    _ends_well(live, run_id, unknown=0)


def test_a_run_survives_the_death_of_who_plans_it(live: Live) -> None:
    run_id = live.start("hello")
    _kill_room(live, "control")
    _ends_well(live, run_id, unknown=0)


def test_a_run_survives_the_death_of_the_broker(live: Live) -> None:
    run_id = live.start("hello")
    for least in (1, PEOPLE // 2):
        _when_sent(live, run_id, least)
        _kill_server(live, "servers/valkey/valkey.pid")
    _ends_well(live, run_id, unknown=0)


def test_a_run_survives_the_death_of_the_database_and_so_does_every_room(live: Live) -> None:
    before = live.rooms.deaths()
    run_id = live.start("hello")
    for least in (1, PEOPLE // 2):
        _when_sent(live, run_id, least)
        _kill_server(live, "servers/postgres/data/postmaster.pid")
    _ends_well(live, run_id, unknown=0)  # whoever sent has kept what became of it

    assert live.rooms.deaths() == before


def test_a_run_survives_the_death_of_everything_at_once(live: Live) -> None:
    run_id = live.start("hello")
    _when_sent(live, run_id, 100)
    for pid in live.rooms.pids().values():
        os.kill(pid, signal.SIGKILL)
    _kill_server(live, "servers/valkey/valkey.pid")
    _kill_server(live, "servers/postgres/data/postmaster.pid")
    _ends_well(live, run_id, unknown=None)


def _kill_room(live: Live, room: str) -> None:
    """Kill a room that is at work, and wait until the supervisor has seen it."""
    victim = live.pid(room)
    assert victim is not None
    at_work = "SELECT count(*) FROM worker WHERE pid = :pid AND ended_at IS NULL"
    eventually(lambda: live.one(at_work, pid=victim), saying=f"{room} at work")
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: live.pid(room) not in (None, victim), saying=f"{room} started again")


def _when_sent(live: Live, run_id: UUID, least: int) -> None:
    eventually(lambda: live.statuses(run_id)["sent"] >= least, saying=f"{least} messages sent")
    eventually(lambda: live.one("SELECT finished_at IS NULL FROM run WHERE id = :run", run=run_id), 5)  # else too late


def _kill_server(live: Live, pid_file: str) -> None:
    """Kill an embedded server, and wait until its successor is ready."""
    path = live.settings.home / pid_file
    pid = int(path.read_text(encoding="utf-8").split()[0])
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_running(pid))
    eventually(lambda: path.exists() and path.read_text(encoding="utf-8").split()[:1] not in ([], [str(pid)]),
               saying="the server started again")  # fmt: skip
    eventually(lambda: live.one("SELECT 1"), saying="the database at work")


def _ends_well(live: Live, run_id: UUID, *, unknown: int | None) -> None:
    seconds = live.finish(run_id, END_SECONDS)
    statuses = live.check_nobody_twice_nobody_lost(run_id)
    print(f"ended {seconds:.1f} s later: {dict(statuses)}; deaths {live.rooms.deaths()}")
    assert statuses["skipped"] == PEOPLE // 40
    if unknown is not None:
        assert statuses.get("unknown", 0) == unknown
    live.check_invariants()
