"""A marketing worker killed in mid-run, again and again: nobody twice, nobody lost, and the doubt is said aloud."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from house import ROOMY_CAPS, Live, eventually, live_shop, own_servers, write_people
from sqlalchemy.engine import URL

from dispatcher import rooms
from dispatcher.providers.sandbox import Sandbox
from workers.boot import GROUPS

PEOPLE = 2_000
KILLS = 10
KILLS_A_RUN = 3
SLOTS = GROUPS["marketing"][1]
RESCUED_WITHIN_SECONDS = 5.0


@pytest.fixture(scope="module")
def live(servers: tuple[str, str], template_database: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("killed")
    people = write_people(folder / "people.csv", PEOPLE)
    with (
        pytest.MonkeyPatch.context() as patch,
        own_servers(servers, template_database) as own,
        live_shop(folder / "home", servers=own, workspace=ROOMY_CAPS, people=people) as live,
    ):
        patch.setattr(rooms, "_LONGEST_PAUSE_SECONDS", 0.5)  # ours are no start that fails again and again
        yield live


@dataclass(frozen=True)
class Killed:
    """A hand that was killed while it held batches, and what became of them."""

    worker: str
    rescued_seconds: float  #: from its death until its untouched messages could go on
    unknown: int
    untouched: int


def test_a_worker_killed_in_mid_run_ten_times_writes_to_nobody_twice_and_loses_nobody(
    live: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("DISPATCHER_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
    chance = random.Random(seed)
    print(f"DISPATCHER_TEST_SEED={seed}")
    live.tell_sandbox(seconds_per_call=0.15, seconds_per_message=0.0005)
    killed: list[Killed] = []
    while len(killed) < KILLS:
        run_id = live.start("hello")
        of_this_run = []
        for least in sorted(chance.sample(range(PEOPLE * 3 // 4), k=KILLS_A_RUN)):
            hit = _kill_somebody_at_work(live, run_id, least, chance)
            of_this_run += [hit] if hit else []
        live.finish(run_id)
        statuses = live.check_nobody_twice_nobody_lost(run_id)

        assert statuses.get("unknown", 0) == sum(hit.unknown for hit in of_this_run)
        assert statuses["skipped"] == PEOPLE // 40
        killed += of_this_run
    live.check_invariants()

    assert all(hit.unknown <= SLOTS * Sandbox.slice_size for hit in killed)
    assert any(hit.untouched for hit in killed), "no kill hit a batch with messages it had not touched"
    slowest = max(hit.rescued_seconds for hit in killed)
    assert slowest < RESCUED_WITHIN_SECONDS
    with capsys.disabled():
        print(
            f"\n{len(killed)} hands killed at work (seed {seed}): rescued after {slowest:.1f} s at most, "
            f"{sum(k.unknown for k in killed)} in doubt, {sum(k.untouched for k in killed)} untouched went on"
        )


def _kill_somebody_at_work(live: Live, run_id: UUID, least: int, chance: random.Random) -> Killed | None:
    """Kill a marketing hand once at least so many have been settled; None if nobody was at work any more."""
    eventually(lambda: live.is_done(run_id) or _settled(live, run_id) >= least)
    at_work = live.rows(
        """SELECT w.id, w.pid FROM worker w WHERE w.ended_at IS NULL AND w.kind = 'marketing'
           AND EXISTS (SELECT FROM batch b WHERE b.worker_id = w.id AND b.state = 'claimed') ORDER BY w.id"""
    )
    if not at_work:
        return None
    victim = chance.choice(at_work)
    os.kill(victim.pid, signal.SIGKILL)
    seconds = eventually(
        lambda: live.one("SELECT ended_at IS NOT NULL FROM worker WHERE id = :id", id=victim.id),
        saying="the killed hand's rescue",
    )
    held = live.one("SELECT count(*) FROM batch WHERE worker_id = :id AND state = 'claimed'", id=victim.id)
    assert held == 0, "a rescued hand still holds a batch"
    told = _rescue_of(live, str(victim.id))
    return Killed(str(victim.id), seconds, told["unknown"], told["pending"]) if told["batches"] else None


def _settled(live: Live, run_id: UUID) -> int:
    statuses = live.statuses(run_id)
    return statuses["sent"] + statuses["skipped"] + statuses["unknown"]


def _rescue_of(live: Live, worker: str) -> dict[str, Any]:
    """Return what the control room's log says of this worker's rescue."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        lines = live.rooms.log_of("control").read_text(encoding="utf-8").splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        found[:] = [e for e in events if e["event"] == "worker.rescued" and e["worker"] == worker]
        return bool(found)

    eventually(look, saying="the rescue in the control room's log")
    return found[0]
