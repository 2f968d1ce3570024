"""The HTTP room on a real port, and a client that sees what is on the wire."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvicorn
from ledger_rows import wait_until
from sqlalchemy import Engine

from dispatcher.keys import KeyRing
from dispatcher.runtime import Runtime
from dispatcher.settings import Settings
from dispatcher.web import create_app
from dispatcher.web.server import server_config

_LOOK_EVERY_SECONDS = 0.005


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name} is there {len(found)} times"
        return found[0] if found else None

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Web:
    port: int
    home: Path

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()


class _Prompt(uvicorn.Server):
    """uvicorn, except that it ends at once: it looks ten times a second whether it shall, and then takes a tenth more.

    How the room itself ends is tested with the process (`test_the_room_runs_as_a_process_and_stops_when_told`).
    """

    async def main_loop(self) -> None:
        ticks = itertools.count()
        while not await self.on_tick(next(ticks)):
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        await self.lifespan.shutdown()


@contextmanager
def serving(
    database: Engine, key_ring: KeyRing, home: Path, *, broker_url: str = "redis://127.0.0.1:1/0",
    wait: timedelta = timedelta(seconds=5), log_config: Any = None, **settings: Any,
) -> Iterator[Web]:  # fmt: skip
    """Serve on a free port in a thread, until the end of the block."""
    runtime = Runtime(
        Settings(home=home, **settings),
        database,
        database.url.render_as_string(hide_password=False),
        broker_url,
        key_ring,
    )
    config = server_config(
        create_app(runtime, wait=wait), trusted_proxies=runtime.settings.trusted_proxies, log_config=log_config
    )
    server = _Prompt(config)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive())
            yield Web(listener.getsockname()[1], home)
        finally:
            server.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive()
