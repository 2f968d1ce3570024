"""One HTTP session for the providers of a process, on an event loop of its own: a request is made once, or not at all.

What matters after a failure is whether anything was written.  aiohttp's hook on the headers says so: it runs right
before the first byte, which is also where the deadline is looked at.  Sockets linger for zero seconds, so that nothing
of a killed process is flushed after its death.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any, Literal

import aiohttp
from yarl import URL

from dispatcher.providers.protocol import PAST_DEADLINE, boot_seconds

_CONNECT_SECONDS = 5.0
#: From the first try to connect to the last byte of the answer.  With the 20 s of a send deadline before it this stays
#: well under the two minutes after which a worker counts as wedged.
ANSWER_SECONDS = 45.0
#: Under the time after which any peer closes an idle connection: a request on a dying one would be in doubt.
_IDLE_SECONDS = 4.0
_MOST_AT_ONCE = 32
_LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Request:
    url: str = field(repr=False)  # may name whom it is about
    body: bytes = field(repr=False)  # addresses
    headers: Mapping[str, str] = field(repr=False)  # the key
    method: Literal["POST", "GET", "DELETE"] = "POST"
    most_bytes: int = 1_000_000  #: of an answer's body; a longer one is not whole


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side said.  Where the body is not `whole`, only the status can be relied on."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    whole: bool
    first_byte: float  #: boot time


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Bytes may have been written, and what came back is no answer."""

    detail: str
    first_byte: float  #: boot time


@dataclass(frozen=True, slots=True)
class NotWritten:
    """Proof that not one byte of the request was written."""

    detail: str


Exchange = Answer | NoAnswer | NotWritten


_SHORTEST_WAIT, _LONGEST_WAIT = timedelta(seconds=1), timedelta(hours=1)
_LONGEST_RESET = timedelta(seconds=60)
_WAIT = timedelta(seconds=5)


def retry_wait(headers: Mapping[str, str]) -> timedelta:
    """Return how long to wait after a 429: as `Retry-After` says, else until `X-RateLimit-Reset`, else five seconds."""
    said = headers.get("Retry-After", "").strip()
    if said.isdecimal():
        return _within(timedelta(seconds=min(int(said), 1_000_000)), _LONGEST_WAIT)
    try:
        if said:
            return _within(parsedate_to_datetime(said) - datetime.now(UTC), _LONGEST_WAIT)
    except (ValueError, TypeError):  # no date, or one without a zone
        pass
    reset = headers.get("X-RateLimit-Reset", "").strip()
    if reset.isdecimal():
        return _within(timedelta(seconds=min(int(reset), 10**11) - time.time()), _LONGEST_RESET)
    return _WAIT


def _within(wait: timedelta, longest: timedelta) -> timedelta:
    return min(max(wait, _SHORTEST_WAIT), longest)


class Http:
    """Makes requests; made itself at once, opened with the first of them.  Safe to share between threads."""

    def __init__(self, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._answer_seconds = answer_seconds
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._session: aiohttp.ClientSession | None = None

    def post(self, requests: Sequence[Request], deadline: float) -> list[Exchange]:
        """Make each request once, many at a time, and return what came of each, in order.

        None of them begins at or after `deadline` (boot time); that one was NotWritten.
        """
        return asyncio.run_coroutine_threadsafe(self._post_all(requests, deadline), self._opened()).result()

    def close(self) -> None:
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._close_session(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _opened(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A daemon: what is on the wire must not keep a process that was told to end.
                self._thread = threading.Thread(target=self._loop.run_forever, name="http", daemon=True)
                self._thread.start()
            return self._loop

    async def _post_all(self, requests: Sequence[Request], deadline: float) -> list[Exchange]:
        session = self._session = self._session or _new_session(self._answer_seconds)
        return list(await asyncio.gather(*(_post(session, request, deadline) for request in requests)))

    async def _close_session(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class _TooLateError(Exception):
    """The deadline was over when the first byte could have been written."""


@dataclass(slots=True)
class _Wire:
    """What happened to one request on its way."""

    deadline: float
    first_byte: float | None = None


async def _mark_first_byte(_session: aiohttp.ClientSession, context: SimpleNamespace, _: Any) -> None:
    wire: _Wire = context.trace_request_ctx
    now = boot_seconds()
    if now >= wire.deadline:
        raise _TooLateError
    wire.first_byte = now


def _socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    return made


def _new_session(answer_seconds: float) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_mark_first_byte)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=_MOST_AT_ONCE, keepalive_timeout=_IDLE_SECONDS, socket_factory=_socket, ttl_dns_cache=60
        ),
        timeout=aiohttp.ClientTimeout(total=answer_seconds, sock_connect=_CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "Dispatcher"},
        trace_configs=[trace],
    )


async def _post(session: aiohttp.ClientSession, request: Request, deadline: float) -> Exchange:
    wire = _Wire(deadline)
    try:
        async with session.request(
            request.method,
            _as_written(request.url),
            data=request.body or None,
            headers=request.headers,
            allow_redirects=False,
            trace_request_ctx=wire,
        ) as response:
            body, whole = await _read(response, request.most_bytes)
            assert wire.first_byte is not None  # there is no answer without a question
            return Answer(response.status, response.headers, body, whole, wire.first_byte)
    except _TooLateError:
        return NotWritten(PAST_DEADLINE)
    except Exception as error:  # whatever it was: what counts is whether a byte was written
        if wire.first_byte is None:
            return NotWritten(f"no connection ({type(error).__name__})")
        return NoAnswer(f"no answer ({type(error).__name__})", wire.first_byte)


def _as_written(url: str) -> URL:
    """Return the address with its percent signs as they are: an @ in a path stays %40."""
    return URL(url, encoded=True)


async def _read(response: aiohttp.ClientResponse, most_bytes: int) -> tuple[bytes, bool]:
    """Return the body as far as it came, and whether that is all of it."""
    body = bytearray()
    try:
        async for chunk in response.content.iter_chunked(65_536):
            body += chunk
            if len(body) > most_bytes:
                return bytes(body), False
    except (aiohttp.ClientError, TimeoutError, OSError):
        return bytes(body), False
    return bytes(body), True
