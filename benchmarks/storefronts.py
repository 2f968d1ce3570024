"""`python -m benchmarks.storefronts`: a flash sale told by Shopify through a running house, until the last is sorted.

Each customer leaves a checkout, is changed in the shop, and orders; their requests are signed, several posts at a time,
shuffled a little, a tenth of them twice, and follow `--edits` customers that were changed in bulk just before.  Every
order starts a confirmation.  Before it, the same of others lies in the inbox already, and one sorter alone sorts it.
Floor: as many orders through `import events`, which saves nobody.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import local
from typing import Any

import orjson
from rich.console import Console
from sqlalchemy import Engine, text

from benchmarks.house import free_port, own_house
from benchmarks.shop import write_workspace
from benchmarks.shopify_bodies import checkout_of, customer_of, order_of, signed
from dispatcher import mailroom, storefronts
from dispatcher.apply import apply
from dispatcher.feedback import inbox
from dispatcher.imports.events import import_events
from dispatcher.runtime import Runtime
from dispatcher.up import healthz_of, rooms_of, rooms_running, wait_until_ready
from dispatcher.workspace import read_workspace

POSTERS = 6
SECRET = "a-secret-of-the-benchmark"
Post = tuple[str, bytes]  # topic and body
console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.storefronts", description=__doc__.splitlines()[0])
    arguments.add_argument("--orders", type=int, default=1_000)
    arguments.add_argument("--edits", type=int, default=1_000, help="customers changed in bulk just before")
    given = arguments.parse_args()
    with own_house(port=free_port(), shopify_secret=SECRET) as (runtime, folder):
        _prepare(runtime, folder)
        floor = _import(runtime, folder, given.orders)
        alone = _sort_alone(runtime, _posts(2 * given.orders, given.orders))
        rooms = [room for room in rooms_of() if room.name in ("clock", "control", "web")]
        with rooms_running(runtime.settings, rooms) as house:
            wait_until_ready(runtime.database, house, healthz=healthz_of(runtime.settings))
            _measure(runtime.database, runtime.settings.port, given.orders, given.edits)
        _show("one sorter, nothing else at work", *alone)
        _show("floor: orders by import events", given.orders, floor)
    return 0


def _prepare(runtime: Runtime, folder: Path) -> None:
    with runtime.database.begin() as connection:
        apply(connection, read_workspace(write_workspace(folder / "workspace")), by="benchmark")


def _import(runtime: Runtime, folder: Path, orders: int) -> float:
    """Return how long as many orders take as a file, of people whom nobody else orders for."""
    path = folder / "orders.jsonl"
    now = datetime.now(UTC)
    with path.open("w", encoding="utf-8") as file:
        for number in range(orders):
            order = order_of(number, now)
            event = {
                "source": "file", "source_key": str(order["id"]), "contact": f"file-{number}", "name": "order.placed",
                "occurred_at": order["created_at"], "value": order["total_price"],
                "properties": {"number": order["name"], "total": order["total_price"]},
                "items": [{"interest": line["vendor"], "quantity": line["quantity"], "value": line["price"],
                           "properties": {"name": line["title"], "sku": line["sku"]}} for line in order["line_items"]],
            }  # fmt: skip
            file.write(json.dumps(event) + "\n")
    began = time.monotonic()
    report = import_events(runtime.database, runtime.key_ring, path)
    took = time.monotonic() - began
    if report.new != orders or report.messages_started != orders:
        raise SystemExit(f"the floor recorded {report.new} orders and started {report.messages_started} messages")
    return took


def _sort_alone(runtime: Runtime, posts: list[Post]) -> tuple[int, float]:
    """Return how many requests were sorted in this process, and how long that took."""
    with runtime.database.begin() as connection:
        for topic, body in posts:
            later = not storefronts.is_urgent("shopify", topic)
            headers = {"x-shopify-topic": topic}
            inbox.store(connection, runtime.key_ring, "shopify", body, headers=headers, later=later)
    began = time.monotonic()
    inbox.sort_all(runtime.database, runtime.key_ring, mailroom.take)
    return len(posts), time.monotonic() - began


def _posts(first: int, orders: int) -> list[Post]:
    """Return what Shopify tells of a sale: what belongs together comes near together, and not always in order."""
    dice = random.Random(7)
    now = datetime.now(UTC)
    told: list[tuple[float, Post]] = []
    for number in range(first, first + orders):
        for topic, body in (
            ("checkouts/create", checkout_of(number, now)),
            ("customers/update", customer_of(number, now)),
            ("orders/create", order_of(number, now)),
        ):
            raw = orjson.dumps(body)
            told += [(number + 10 * dice.random(), (topic, raw)) for _ in range(2 if dice.random() < 0.1 else 1)]
    return [post for _, post in sorted(told)]


def _measure(database: Engine, port: int, orders: int, edits: int) -> None:
    before = datetime.now(UTC) - timedelta(hours=1)
    bulk = [("customers/update", orjson.dumps(customer_of(orders + n, before))) for n in range(edits)]
    posts = bulk + _posts(0, orders)
    began = time.monotonic()
    with ThreadPoolExecutor(POSTERS) as posters:
        list(posters.map(lambda post: _post(port, *post), posts))
    answered = time.monotonic() - began
    placed = _wait(database, "EXISTS (SELECT FROM feedback_inbox WHERE NOT later)")
    all_sorted = _wait(database, "EXISTS (SELECT FROM feedback_inbox)")
    size = sum(len(body) for _, body in posts) / len(posts)
    console.print(f"{len(posts):,} requests of {size:,.0f} bytes, {POSTERS} at a time; {edits:,} of a bulk edit first")
    _show("stored and answered", len(posts), answered)
    _show("every checkout and order sorted", sum(topic != "customers/update" for topic, _ in posts), placed - began)
    _show("everything sorted", len(posts), all_sorted - began)
    _check(database, orders, edits)


def _wait(database: Engine, waiting: str) -> float:
    """Return when nothing was waited for any more."""
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while connection.scalar(text(f"SELECT {waiting}")):
            time.sleep(0.05)
    return time.monotonic()


def _check(database: Engine, orders: int, edits: int) -> None:
    """What is fast and wrong is no figure."""
    with database.connect() as connection:
        found = connection.execute(
            text("""SELECT (SELECT count(*) FROM event WHERE source = 'shopify' AND name = 'order.placed'),
                           (SELECT count(*) FROM contact WHERE external_id LIKE 'shopify-%' AND sealed IS NOT NULL),
                           (SELECT count(*) FROM message m JOIN event e ON e.id = m.event_id
                            WHERE e.source = 'shopify')""")
        ).one()
    if tuple(found) != (2 * orders, 2 * orders + edits, 2 * orders):
        raise SystemExit(f"{found[0]} orders of {found[1]} contacts are known, {found[2]} of which are confirmed")


def _show(what: str, number: int, seconds: float) -> None:
    console.print(f"{what:<34} {number:>7,} in {seconds:6.2f} s  {number / seconds:>8,.0f} /s")


_thread = local()


def _post(port: int, topic: str, body: bytes) -> None:
    if not hasattr(_thread, "connection"):
        _thread.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers: dict[str, Any] = {
        "X-Shopify-Topic": topic, "X-Shopify-Hmac-Sha256": signed(SECRET, body), "Content-Type": "application/json",
        "X-Shopify-Shop-Domain": "bench.myshopify.com", "X-Shopify-API-Version": "2025-10",
    }  # fmt: skip
    _thread.connection.request("POST", "/hooks/shopify", body, headers)
    answer = _thread.connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise SystemExit(f"a post was answered with {answer.status}")


if __name__ == "__main__":
    raise SystemExit(main())
