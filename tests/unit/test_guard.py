"""Limits around requests that need no server to be shown."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message

from dispatcher.db import engine_for
from dispatcher.figures import Figures
from dispatcher.web.bad_links import A_SECOND, AT_ONCE, MOST_CLIENTS, BadLinks
from dispatcher.web.guard import Guard
from dispatcher.web.room import Pools


async def _read(request: Request) -> Response:
    await request.body()
    return Response(b"whole")


def _ask(messages: list[Message], *, body_seconds: float) -> list[Message]:
    """Return what is answered to a request whose body comes in these pieces, and then never ends."""
    sent: list[Message] = []
    app = Starlette(routes=[Route("/x", _read, methods=["POST"])])
    app.state.room = SimpleNamespace(figures=Figures())
    scope = {"type": "http", "method": "POST", "path": "/x", "headers": [], "query_string": b"", "root_path": ""}

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    anyio.run(Guard(app, body_seconds=body_seconds), scope, receive, send)
    return sent


def test_a_body_that_drips_is_given_up() -> None:
    """ASVS 5.0 15.2.2: whoever sends a byte now and then holds nothing for long."""
    sent = _ask([{"type": "http.request", "body": b"x", "more_body": True}], body_seconds=0.05)

    assert sent[0]["status"] == 408


def test_a_body_that_comes_in_time_is_read() -> None:
    pieces: list[Message] = [
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.request", "body": b"y", "more_body": False},
    ]

    assert _ask(pieces, body_seconds=5)[0]["status"] == 200


class _Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_client_may_try_so_many_at_once_and_then_so_many_a_second() -> None:
    clock = _Clock()
    links = BadLinks(clock)

    assert [links.may_try("192.0.2.1") for _ in range(AT_ONCE + 2)] == [True] * AT_ONCE + [False] * 2
    assert links.may_try("192.0.2.2")
    clock.now += 2
    assert [links.may_try("192.0.2.1") for _ in range(int(2 * A_SECOND) + 1)] == [True] * int(2 * A_SECOND) + [False]
    clock.now += 3_600
    assert sum(links.may_try("192.0.2.1") for _ in range(2 * AT_ONCE)) == AT_ONCE


def test_a_whole_network_of_the_newer_protocol_is_one_client() -> None:
    links = BadLinks(_Clock())

    tried = [links.may_try(f"2001:db8::{number:x}") for number in range(AT_ONCE + 1)]
    assert tried == [True] * AT_ONCE + [False]
    assert links.may_try("2001:db8:0:1::1")


def test_memory_is_bounded_however_many_try() -> None:
    links = BadLinks(_Clock())
    for number in range(MOST_CLIENTS + 500):
        links.may_try(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    for strange in ("", "testclient", "fe80::1%eth0"):
        links.may_try(strange)

    assert len(links._buckets) == MOST_CLIENTS


def test_all_pools_together_stay_below_what_a_process_may_open() -> None:
    """Else a kind of request would wait for a connection in front of an unsubscribe."""
    engine = engine_for("postgresql://nowhere.example/x")
    most = engine.pool.size() + engine.pool._max_overflow  # type: ignore[attr-defined]  # QueuePool's own
    pools = [getattr(Pools(), field.name) for field in fields(Pools)]

    assert sum(pool.total_tokens for pool in pools) <= most
