"""A connection to PostgreSQL that dies at a COMMIT: the database has it or not, and nobody is told."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from dispatcher.db import engine_for

_COMMIT = b"COMMIT\x00"


@dataclass
class LossyNetwork:
    """Passes everything on; the next commit of a transaction that says `lose` is the last of its connection."""

    upstream: tuple[str, int] | str
    lose: bytes | None = None
    arrives: bool = True  #: whether that commit gets to the database, and only its answer is lost
    lost: int = 0  #: commits without an answer
    _closing: threading.Event = field(default_factory=threading.Event)

    def serve(self, listener: socket.socket) -> None:
        while not self._closing.is_set():
            if select.select([listener], [], [], 0.02)[0]:
                client, _ = listener.accept()
                threading.Thread(target=self._guarded, args=(client,), daemon=True).start()

    def stop(self) -> None:
        self._closing.set()

    def _guarded(self, client: socket.socket) -> None:
        with suppress(OSError), client, _connected(self.upstream) as server:
            self._carry(client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        said = b""
        while not self._closing.is_set():
            for source in select.select([client, server], [], [], 0.05)[0]:
                some = source.recv(1 << 20)
                if not some:
                    return
                if source is server:
                    client.sendall(some)
                    continue
                said += some
                is_commit = some.endswith(_COMMIT)
                if is_commit and self.lose is not None and self.lose in said:
                    self.lose = None
                    self.lost += 1
                    if self.arrives:
                        server.sendall(some)
                        server.recv(1 << 16)  # it was committed
                    return
                server.sendall(some)
                if is_commit:
                    said = b""


def _connected(upstream: tuple[str, int] | str) -> socket.socket:
    if isinstance(upstream, tuple):
        return socket.create_connection(upstream)
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(upstream)
    return peer


def _place_of(url: URL) -> tuple[str, int] | str:
    host, port = str(url.query.get("host", url.host)), int(str(url.query.get("port", url.port or 5432)))
    return str(Path(host) / f".s.PGSQL.{port}") if host.startswith("/") else (host, port)


@contextmanager
def lossy_network(database: Engine) -> Iterator[tuple[LossyNetwork, Engine]]:
    """Yield the network, and an engine that speaks to the same database over it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        network = LossyNetwork(_place_of(database.url))
        thread = threading.Thread(target=network.serve, args=(listener,))
        thread.start()
        url = database.url.set(host="127.0.0.1", port=listener.getsockname()[1], query={"sslmode": "disable"})
        engine = engine_for(url.render_as_string(hide_password=False))
        try:
            yield network, engine
        finally:
            engine.dispose()
            network.stop()
            thread.join()
