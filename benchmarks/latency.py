"""`python -m benchmarks.latency`: how long an order confirmation takes while a campaign of 100,000 is being sent.

Measured from the 202 of POST /v1/events (a trigger) and of POST /v1/messages, asked for in turn at a steady pace, to
the first byte to the provider (`handed_over_at`).  On embedded servers of its own, with every room a process.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from rich.console import Console
from sqlalchemy import text

from benchmarks.house import free_port, own_house
from benchmarks.shop import write_contacts, write_workspace
from dispatcher import api_keys, runs
from dispatcher.apply import apply
from dispatcher.imports.contacts import import_contacts, topics_by_channel
from dispatcher.runtime import Runtime
from dispatcher.shop import load_shop
from dispatcher.up import healthz_of, rooms_of, rooms_running, wait_until_ready
from dispatcher.workspace import read_workspace

console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Asked:
    """A message that was asked for, and when the 202 was in hand."""

    message: UUID
    answered_at: datetime
    way: str  #: event or message


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.splitlines()[0])
    arguments.add_argument("--contacts", type=int, default=100_000)
    arguments.add_argument("--per-second", type=float, default=10.0)
    given = arguments.parse_args()
    port = free_port()
    with own_house(port=port, public_url=f"http://127.0.0.1:{port}") as (runtime, folder):
        _measure(runtime, folder, given.contacts, 1 / given.per_second)
    return 0


def _measure(runtime: Runtime, folder: Path, contacts: int, pause: float) -> None:
    with runtime.database.begin() as connection:
        apply(connection, read_workspace(write_workspace(folder / "workspace")), by="benchmark")
        topics = topics_by_channel(load_shop(connection))
        key = api_keys.create(connection, "shop", ["events:write", "messages:write"])
    import_contacts(
        runtime.database, runtime.key_ring, write_contacts(folder / "contacts.csv", contacts), topics=topics
    )
    with runtime.database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    with rooms_running(runtime.settings, rooms_of(2)) as house:
        wait_until_ready(runtime.database, house, healthz=healthz_of(runtime.settings))
        quiet = _ask(runtime, key, pause, until=lambda asked: len(asked) >= 100)
        _show("on a quiet house", _latencies(runtime, quiet))
        began = time.monotonic()
        with runtime.database.begin() as connection:
            run_id = runs.start(connection, "bench", started_by="benchmark")
        busy = _ask(runtime, key, pause, until=lambda _: _is_done(runtime, run_id))
        seconds = time.monotonic() - began
        load = os.getloadavg()[0]
        console.print(f"campaign of {contacts:,} planned and sent in {seconds:.0f} s; load average {load:.1f} "
                      f"on {os.cpu_count()} cores")  # fmt: skip
        for way in ("event", "message"):
            _show(f"while it was sent, by {way}", _latencies(runtime, [one for one in busy if one.way == way]))


def _is_done(runtime: Runtime, run_id: UUID) -> bool:
    with runtime.database.connect() as connection:
        state = connection.scalar(text("SELECT state FROM run WHERE id = :id"), {"id": run_id})
    return state == "finished"


def _ask(runtime: Runtime, key: str, pause: float, *, until: object) -> list[Asked]:
    """Ask for one message after the other until told to stop; return what was asked for."""
    assert callable(until)
    asked: list[Asked] = []
    client = http.client.HTTPConnection("127.0.0.1", runtime.settings.port, timeout=30)
    next_at = looked_at = time.monotonic()
    while True:
        number = len(asked)
        asked.append(_one(client, key, number, "event" if number % 2 else "message"))
        next_at += pause
        time.sleep(max(0.0, next_at - time.monotonic()))
        if time.monotonic() - looked_at > 1:
            looked_at = time.monotonic()
            if until(asked):
                client.close()
                return asked


_begun = time.time_ns()


def _one(client: http.client.HTTPConnection, key: str, number: int, way: str) -> Asked:
    contact, unique = str(number % 1_000), f"{time.time_ns() - _begun}-{number}"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Idempotency-Key": unique}
    if way == "event":
        path = "/v1/events"
        body = {"source_key": unique, "contact": contact, "name": "order.placed", "value": 12.5,
                "occurred_at": datetime.now(UTC).isoformat(), "properties": {"number": unique}}  # fmt: skip
    else:
        path = "/v1/messages"
        body = {"template": "order", "channel": "email", "contact": contact, "data": {"number": unique}}
    client.request("POST", path, json.dumps(body), headers)
    response = client.getresponse()
    told = json.loads(response.read())
    answered_at = datetime.now(UTC)
    assert response.status == 202, told
    message = told["triggers"][0]["message"] if way == "event" else told["id"]
    return Asked(UUID(message), answered_at, way)


def _latencies(runtime: Runtime, asked: list[Asked]) -> list[float]:
    """Return the milliseconds from answer to first byte, sorted, once all have left; below 0: it was quicker."""
    ids = [one.message for one in asked]
    query = text("SELECT id, handed_over_at FROM message WHERE id = ANY(:ids) AND handed_over_at IS NOT NULL")
    deadline = time.monotonic() + 60
    while True:
        with runtime.database.connect() as connection:
            left = {row.id: row.handed_over_at for row in connection.execute(query, {"ids": ids})}
        if len(left) == len(ids):
            return sorted((left[one.message] - one.answered_at) / timedelta(milliseconds=1) for one in asked)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(ids) - len(left)} messages have not left after a minute")
        time.sleep(0.2)


def _show(what: str, found: list[float]) -> None:
    shares = ", ".join(f"p{share:g} {found[min(len(found) - 1, int(len(found) * share / 100))]:.0f} ms"
                       for share in (50, 95, 99))  # fmt: skip
    console.print(f"{what:<32} {len(found):>6,} messages: {shares}, longest {found[-1]:.0f} ms")


if __name__ == "__main__":
    raise SystemExit(main())
