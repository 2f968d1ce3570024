"""`make bench`: plan and mail 100,000 contacts through the sandbox; print each figure against its floor.

Floors, measured in the same run on the same servers: for planning the bare `INSERT ... SELECT` of as many rows into a
table with the same columns and indexes; for sending one Dramatiq task per recipient (`benchmarks.naive`), with as many
worker processes and threads.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

from rich.console import Console
from sqlalchemy import Engine, text

from benchmarks import naive
from benchmarks.house import own_house
from benchmarks.shop import write_contacts, write_workspace
from dispatcher import db, runs
from dispatcher.apply import apply
from dispatcher.imports.contacts import import_contacts, topics_by_channel
from dispatcher.plan import plan_page
from dispatcher.rooms import environment_of
from dispatcher.runtime import Runtime
from dispatcher.shop import load_shop
from dispatcher.simulate import simulate
from dispatcher.up import rooms_of, rooms_running, wait_until_ready
from dispatcher.workspace import read_workspace

WORKERS = 2
console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    arguments.add_argument("--contacts", type=int, default=100_000)
    arguments.add_argument("--naive", type=int, default=4_000, help="recipients of the one-task-each floor")
    arguments.add_argument("--links", type=int, default=0, help="so many links in each mail, whose clicks are counted")
    given = arguments.parse_args()
    with own_house() as (runtime, folder):
        _measure(runtime, folder, given.contacts, given.naive, given.links)
    return 0


def _measure(runtime: Runtime, folder: Path, contacts: int, naive_recipients: int, links: int) -> None:
    seconds = _import(runtime, folder, contacts, links)
    _show("import contacts", contacts, seconds)
    simulating = _simulate(runtime.database)
    run_id, planning = _plan(runtime.database)
    bare = _bare_insert(runtime.database)
    _show("plan (decide and write every row)", contacts, planning)
    _show("floor: bare INSERT ... SELECT", contacts, bare)
    console.print(f"[bold]plan takes {planning / bare:.2f} x the floor[/] (aim: under 3)")
    _show("simulate (decide, follow and count, one thread)", contacts, simulating)
    console.print(f"[bold]simulate takes {simulating / planning:.2f} x the plan[/] (aim: under 2)")
    one_each = _one_task_each(runtime, run_id, folder, naive_recipients)
    _show("floor: one Dramatiq task per recipient", naive_recipients, one_each)
    sent, sending = _send(runtime)
    _show("send (claim, render, authorise, hand over, settle)", sent, sending)
    ratio = (sent / sending) / (naive_recipients / one_each)
    console.print(f"[bold]send does {ratio:.1f} x the floor's rate[/] (aim: over 5)")


def _show(what: str, number: int, seconds: float) -> None:
    console.print(f"{what:<52} {number:>9,} in {seconds:6.2f} s  {number / seconds:>10,.0f} /s")


@contextlib.contextmanager
def _timed(into: list[float]) -> Iterator[None]:
    began = time.monotonic()
    yield
    into.append(time.monotonic() - began)


def _import(runtime: Runtime, folder: Path, contacts: int, links: int) -> float:
    workspace = read_workspace(write_workspace(folder / "workspace", links=links))
    with runtime.database.begin() as connection:
        apply(connection, workspace, by="benchmark")
        topics = topics_by_channel(load_shop(connection))
    path = write_contacts(folder / "contacts.csv", contacts)
    took: list[float] = []
    with _timed(took):
        import_contacts(runtime.database, runtime.key_ring, path, topics=topics)
    with runtime.database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return took[0]


def _simulate(database: Engine) -> float:
    """Return how long the same audience takes to be simulated: by one thread, and nothing is written."""
    took: list[float] = []
    with _timed(took), db.reading(database) as connection:
        simulate(connection, "bench").as_json()
    return took[0]


def _plan(database: Engine) -> tuple[UUID, float]:
    """Return the run and how long it took to freeze its audience and plan every page, by two threads as a worker."""
    took: list[float] = []
    with _timed(took):
        with database.begin() as connection:
            run_id = runs.start(connection, "bench", started_by="benchmark")
        planners = [threading.Thread(target=_plan_pages, args=(database, run_id)) for _ in range(2)]
        for planner in planners:
            planner.start()
        for planner in planners:
            planner.join()
    return run_id, took[0]


def _plan_pages(database: Engine, run_id: UUID) -> None:
    while plan_page(database, run_id):
        pass


def _bare_insert(database: Engine) -> float:
    """Return how long the database alone takes for as many rows with the same columns and indexes."""
    took: list[float] = []
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE bare (LIKE message INCLUDING ALL)"))
        connection.execute(text("ALTER TABLE bare ADD FOREIGN KEY (contact_id) REFERENCES contact"))
    with _timed(took), database.begin() as connection:
        connection.execute(text("INSERT INTO bare SELECT * FROM message"))
    with database.begin() as connection:
        connection.execute(text("DROP TABLE bare"))
    return took[0]


def _one_task_each(runtime: Runtime, run_id: UUID, folder: Path, recipients: int) -> float:
    """Return how long one task each takes for some of the run's messages, enqueueing included."""
    with runtime.database.begin() as connection:
        ids = list(
            connection.scalars(
                text("SELECT id FROM message WHERE run_id = :run AND status = 'pending' ORDER BY id LIMIT :some"),
                {"run": run_id, "some": recipients},
            )
        )
        connection.execute(text("UPDATE message SET batch_id = NULL WHERE id = ANY(:ids)"), {"ids": ids})
    broker = naive.connect(runtime.broker_url)
    workers = [_naive_worker(runtime, run_id, folder) for _ in range(WORKERS)]
    took: list[float] = []
    try:
        with _timed(took):
            actor = broker.get_actor("send_one")
            for message_id in ids:
                actor.send(str(message_id))
            _wait(lambda: _count(runtime.database, "status = 'sent'") >= len(ids))
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait()
    return took[0]


def _naive_worker(runtime: Runtime, run_id: UUID, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.naive", str(run_id), str(folder / "naive")]
    environment = environment_of(runtime.settings)
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert worker.stdout is not None
    assert worker.stdout.readline().startswith("ready")
    return worker


def _send(runtime: Runtime) -> tuple[int, float]:
    """Return how many the rooms sent, and how long it took from the first ticket to the last receipt."""
    before = _count(runtime.database, "status = 'sent'")
    with runtime.database.begin() as connection:
        runs.stop_all(connection, by="benchmark")
    took: list[float] = []
    with rooms_running(runtime.settings, rooms_of(WORKERS, web=False)) as house:
        wait_until_ready(runtime.database, house)
        with _timed(took):
            with runtime.database.begin() as connection:
                runs.go_on(connection, by="benchmark")
            _wait(lambda: _count(runtime.database, "status IN ('pending', 'sending')") == 0)
    return _count(runtime.database, "status = 'sent'") - before, took[0]


def _count(database: Engine, what: str) -> int:
    with database.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM message WHERE {what}")).scalar_one())


def _wait(done: Callable[[], bool], limit_seconds: float = 240) -> None:
    deadline = time.monotonic() + limit_seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("the benchmark has not come to an end")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
