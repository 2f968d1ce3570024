"""`python -m benchmarks.rates`: how much of an allowed rate four worker processes reach, and whether they ever pass it.

One campaign through the sandbox for each case, on embedded servers of its own, every room a process.  Counted is what
the ledger says was authorised: reached in the middle of the run (its first and last two seconds left out), and the most
that any span of time had above rate x time, which must not be more than the burst.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from sqlalchemy import text

from benchmarks.house import own_house
from benchmarks.shop import FILES, write_contacts, write_workspace
from dispatcher import runs
from dispatcher.apply import apply
from dispatcher.imports.contacts import import_contacts, topics_by_channel
from dispatcher.runtime import Runtime
from dispatcher.shop import load_shop
from dispatcher.up import rooms_of, rooms_running, wait_until_ready
from dispatcher.workspace import read_workspace

WORKERS = 4
#: What is left out at both ends: the burst, and the last few who wait for nobody.
EDGE = timedelta(seconds=2)
console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Case:
    """A rate as a shop writes it, and what it allows marketing."""

    name: str
    toml: str
    per_second: float
    burst: int


CASES = (
    Case("lane 200/s", '[rates]\n"email.marketing" = "200/s"\n', 200, 200),
    Case("lane 40/s, 20 at once", '[rates]\n"email.marketing" = {per_second = 40, burst = 20}\n', 40, 20),
    Case("lane 5/s", '[rates]\n"email.marketing" = "5/s"\n', 5, 5),
    Case("account 100/s, a fifth kept", '[rates.accounts]\nsandbox = "100/s"\n', 80, 80),
)


@dataclass(frozen=True, slots=True)
class Kept:
    """How a rate was kept: `reached` of what is allowed, and `most` units above rate x time in any span."""

    reached: float
    most: float


def kept(moments: Sequence[datetime], per_second: float) -> Kept:
    """Return how a rate was kept by what was authorised at these moments, one unit each, in order."""
    begin, end = moments[0] + EDGE, moments[-1] - EDGE
    inside = sum(1 for at in moments if begin <= at < end)
    lowest, most = float("inf"), 0.0
    for place, at in enumerate(moments):
        owed = place - per_second * (at - moments[0]).total_seconds()
        lowest = min(lowest, owed)
        most = max(most, owed + 1 - lowest)
    return Kept(inside / (per_second * (end - begin).total_seconds()), most)


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.rates", description=__doc__.splitlines()[0])
    arguments.add_argument("--only", default="", help="the cases whose name begins so")
    arguments.add_argument("--seconds", type=float, default=20.0, help="how long each case is to take")
    given = arguments.parse_args()
    good = True
    for case in (case for case in CASES if case.name.startswith(given.only)):
        result = measure(case, given.seconds)
        good &= result.reached >= 0.95 and result.most <= case.burst
        console.print(
            f"{case.name:<30} reached {result.reached:6.1%} of the rate (aim: over 95 %), at most {result.most:6.1f} "
            f"above rate x time (burst {case.burst}); load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        )
    return 0 if good else 1


def measure(case: Case, seconds: float, *, workers: int = WORKERS) -> Kept:
    """Return how one case was kept by that many worker processes."""
    with own_house() as (runtime, folder):
        return kept(_authorised(runtime, folder, case, seconds, workers), case.per_second)


def _authorised(runtime: Runtime, folder: Path, case: Case, seconds: float, workers: int) -> list[datetime]:
    """Return when each message of a campaign was authorised."""
    workspace = write_workspace(folder / "workspace")
    (workspace / "dispatcher.toml").write_text(FILES["dispatcher.toml"] + "\n" + case.toml, encoding="utf-8")
    with runtime.database.begin() as connection:
        apply(connection, read_workspace(workspace), by="benchmark")
        topics = topics_by_channel(load_shop(connection))
    people = int(case.per_second * seconds) + case.burst
    import_contacts(runtime.database, runtime.key_ring, write_contacts(folder / "people.csv", people), topics=topics)
    with rooms_running(runtime.settings, rooms_of(workers, web=False)) as house:
        wait_until_ready(runtime.database, house)
        with runtime.database.begin() as connection:
            run_id = runs.start(connection, "bench", started_by="benchmark")
        deadline = time.monotonic() + 4 * seconds + 60
        while not _is_done(runtime, run_id):
            if time.monotonic() > deadline:
                raise TimeoutError("the benchmark has not come to an end")
            time.sleep(0.2)
    with runtime.database.connect() as connection:
        rows: Any = connection.scalars(text("SELECT authorised_at FROM message WHERE status = 'sent' ORDER BY 1")).all()
    return list(rows)


def _is_done(runtime: Runtime, run_id: UUID) -> bool:
    with runtime.database.connect() as connection:
        return bool(connection.scalar(text("SELECT state = 'finished' FROM run WHERE id = :id"), {"id": run_id}))


if __name__ == "__main__":
    sys.exit(main())
