"""A marketing worker killed in mid-run, again and again: nobody twice, nobody lost, and the doubt is said aloud."""

from __future__ import annotations

import json
import os
import random
import signal
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from house import CROWD, Live, eventually

from dispatcher import rooms
from dispatcher.providers.sandbox import Sandbox
from dispatcher.room_guard import is_running
from workers.boot import GROUPS

KILLS = 10
KILLS_A_RUN = 3
SLOTS = GROUPS["marketing"][1]
RELEASED_WITHIN_SECONDS = 5.0


@pytest.fixture
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let killed hands come back soon: these are no starts that fail again and again."""
    monkeypatch.setattr(rooms, "_LONGEST_PAUSE_SECONDS", 0.5)


@dataclass(frozen=True)
class Killed:
    """A hand that was killed while it held batches, and what became of them."""

    worker: str
    released_seconds: float  #: from its death until all it had not touched was in new batches
    unknown: int
    untouched: int


@pytest.mark.thorough
def test_a_worker_killed_in_mid_run_ten_times_writes_to_nobody_twice_and_loses_nobody(
    live: Live, soon_again: None, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("DISPATCHER_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
    chance = random.Random(seed)
    print(f"DISPATCHER_TEST_SEED={seed}")
    live.tell_sandbox(seconds_per_call=0.15, seconds_per_message=0.0005)
    killed: list[Killed] = []
    while len(killed) < KILLS:
        run_id = live.start("hello")
        of_this_run = []
        for least in sorted(chance.sample(range(CROWD * 3 // 4), k=KILLS_A_RUN)):
            hit = _kill_somebody_at_work(live, run_id, least, chance)
            of_this_run += [hit] if hit else []
        live.finish(run_id)
        statuses = live.check_nobody_twice_nobody_lost(run_id)

        assert statuses["unknown"] <= sum(hit.unknown for hit in of_this_run)
        assert statuses["sent"] + statuses["unknown"] == live.agreed()
        killed += of_this_run
    eventually(lambda: not _shown_and_in_doubt(live), saying="what the outbox shows is in doubt no more")
    live.check_invariants()

    assert all(hit.unknown <= SLOTS * Sandbox.slice_size for hit in killed)
    assert any(hit.untouched for hit in killed), "no kill hit a batch with messages it had not touched"
    slowest = max(hit.released_seconds for hit in killed)
    assert slowest < RELEASED_WITHIN_SECONDS
    with capsys.disabled():
        print(
            f"\n{len(killed)} hands killed at work (seed {seed}): what they had not touched was released "
            f"after {slowest:.1f} s at most, "
            f"{sum(k.unknown for k in killed)} in doubt, {sum(k.untouched for k in killed)} untouched went on"
        )


def _kill_somebody_at_work(live: Live, run_id: UUID, least: int, chance: random.Random) -> Killed | None:
    """Kill a marketing hand once at least so many have been settled; None if nobody was at work any more."""
    eventually(lambda: live.is_done(run_id) or _settled(live, run_id) >= least)
    holding = chance.choice(["claimed", "sending"])  # any moment of its batch, or one with a slice on the wire
    at_work: list[Any] = []
    eventually(lambda: at_work.extend(_hands_at_work(live, holding)) or at_work or live.is_done(run_id))
    if not at_work:
        return None
    victim = chance.choice(at_work)
    os.kill(victim.pid, signal.SIGKILL)
    eventually(lambda: not is_running(victim.pid))
    held = live.rows("SELECT id FROM batch WHERE worker_id = :id AND state = 'claimed'", id=victim.id)
    seconds = eventually(
        lambda: _all_released(live, [batch.id for batch in held]), saying="the release of what it held"
    )
    eventually(lambda: live.one("SELECT ended_at FROM worker WHERE id = :id", id=victim.id), saying="its rescue")
    told = _rescue_of(live, str(victim.id))
    return Killed(str(victim.id), seconds, told["unknown"], told["pending"]) if told["batches"] else None


def _hands_at_work(live: Live, holding: str) -> list[Any]:
    """Return the marketing hands that hold a batch, or even messages that are on the wire."""
    query = """SELECT w.id, w.pid FROM worker w WHERE w.ended_at IS NULL AND w.kind = 'marketing'
               AND EXISTS (SELECT FROM batch b WHERE b.worker_id = w.id AND b.state = 'claimed'
                           AND (:holding = 'claimed' OR EXISTS (
                               SELECT FROM message m WHERE m.run_id = b.run_id AND m.batch_id = b.id
                               AND m.status = 'sending')))
               ORDER BY w.id"""
    return [worker for worker in live.rows(query, holding=holding) if is_running(worker.pid)]


def _all_released(live: Live, batches: list[int]) -> bool:
    """Whether nothing of these batches waits there any more, nor outside of a batch."""
    return not live.one(
        """SELECT count(*) FROM message m JOIN batch b ON b.id = ANY(:batches) AND b.run_id = m.run_id
           WHERE m.status = 'pending' AND (m.batch_id = b.id OR m.batch_id IS NULL)""",
        batches=batches,
    )


def _settled(live: Live, run_id: UUID) -> int:
    statuses = live.statuses(run_id)
    return statuses["sent"] + statuses["skipped"] + statuses["unknown"]


def _shown_and_in_doubt(live: Live) -> set[str]:
    """Return the messages of unknown outcome that the sandbox's own record shows."""
    in_doubt = {str(row.id) for row in live.rows("SELECT id FROM message WHERE status = 'unknown'")}
    return in_doubt & {mail["message_id"] for mail in live.outbox()}


def _rescue_of(live: Live, worker: str) -> dict[str, Any]:
    """Return what a control room's log says of this worker's rescue."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        for log in live.rooms.logs.glob("control*.log"):
            lines = log.read_text(encoding="utf-8").splitlines()
            events = [json.loads(line) for line in lines if '"worker.rescued"' in line]
            found.extend(event for event in events if event["worker"] == worker)
        return bool(found)

    eventually(look, saying="the rescue in a control room's log")
    return found[0]
