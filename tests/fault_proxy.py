"""A network between us and a provider, which breaks where it is told to."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

_LINGER_NOT = struct.pack("ii", 1, 0)

Fault = Literal[
    "none",
    "reset at once",  # accept the connection, then reset it
    "reset before the last byte",  # read all of the request but its end, pass nothing on
    "reset after the last byte",  # pass the request on, then reset
    "swallow the reply",  # pass the request on, and say nothing any more
    "half a head",  # the reply ends in its first line
    "half a body",  # the reply ends in its body
    "drip",  # a byte of the reply now and then
]


@dataclass
class FaultProxy:
    port: int
    upstream: tuple[str, int]
    fault: Fault = "none"
    canned: bytes | None = None  #: a reply of the proxy's own; nothing is passed on
    _open: list[socket.socket] = field(default_factory=list)
    _closing: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, listener: socket.socket) -> None:
        while not self._closing.is_set():
            if select.select([listener], [], [], 0.02)[0]:
                with suppress(OSError):
                    client, _ = listener.accept()
                    self._open.append(client)
                    threading.Thread(target=self._guarded, args=(client,), daemon=True).start()

    def stop(self) -> None:
        """Accept nobody any more, and let whoever waits go on."""
        self._closing.set()

    def close(self) -> None:
        for client in self._open:
            with suppress(OSError):
                client.close()

    def _guarded(self, client: socket.socket) -> None:
        with suppress(OSError, ValueError):
            self._handle(client)

    def _handle(self, client: socket.socket) -> None:
        if self.fault == "reset at once":
            return _reset(client)
        while request := _request(client, leave=1 if self.fault == "reset before the last byte" else 0):
            if self.fault == "reset before the last byte":
                return _reset(client)
            if self.canned is not None:
                client.sendall(self.canned)
                continue
            reply = self._forwarded(request)
            match self.fault:
                case "reset after the last byte":
                    return _reset(client)
                case "swallow the reply":
                    self._closing.wait()
                    return None
                case "half a head":
                    client.sendall(reply[:12])
                    return client.close()
                case "half a body":
                    client.sendall(reply[:-1])
                    return client.close()
                case "drip":
                    for place in range(len(reply)):
                        client.sendall(reply[place : place + 1])
                        if self._closing.wait(0.05):
                            return None
            client.sendall(reply)
        return None

    def _forwarded(self, request: bytes) -> bytes:
        with socket.create_connection(self.upstream) as upstream:
            upstream.sendall(request)
            return _request(upstream)


def _request(peer: socket.socket, *, leave: int = 0) -> bytes:
    """Return a whole HTTP message, or nothing if the peer left; with `leave`, all but so many bytes of it."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += (more := peer.recv(65_536))
        if not more:
            return b""
    head = got.partition(b"\r\n\r\n")[0]
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    whole = len(head) + 4 + int(lengths[0].split(b":")[1]) - leave
    while len(got) < whole:
        got += (more := peer.recv(min(65_536, whole - len(got))))
        if not more:
            return b""
    return got


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    client.close()


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    host, _, port = upstream.removeprefix("http://").partition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = FaultProxy(listener.getsockname()[1], (host, int(port)))
        thread = threading.Thread(target=proxy.serve, args=(listener,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.stop()
            thread.join()
            proxy.close()
