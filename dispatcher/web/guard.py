"""What surrounds every request: its id, limits on its body, safe headers on the answer, one line in the log,
one more in the figures.

The line names the route, never the path: a path holds a token, and a token is a person's way out.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Mapping
from http import HTTPStatus
from uuid import uuid4

import anyio
import structlog
from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dispatcher.web.problems import problem

log = structlog.get_logger()

BODY_LIMIT = 256 * 1024
#: SendGrid sends its events in arrays of up to 768 KB; an order of hundreds of lines has megabytes.
_LARGER: dict[str, int] = {
    "/hooks/sendgrid": 4 * 1024 * 1024,
    "/hooks/shopify": 10 * 1024 * 1024,
    "/hooks/woocommerce": 10 * 1024 * 1024,
}
#: From the first byte of a request's body that is asked for to the last: whoever drips holds no worker.
BODY_SECONDS = 30.0
#: In the state of a request: headers that its answer carries, whatever it is.
ANSWER_HEADERS = "answer_headers"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

#: A page with a style or a form of its own sets its own Content-Security-Policy.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: Where the links in messages are https, no browser that was here once goes over plain http again.
_HTTPS_HEADERS = {"Strict-Transport-Security": "max-age=31536000"}


class _BodyTooLarge(HTTPException):
    """FastAPI lets an HTTPException through while it reads a body, and takes any other for a broken one."""

    def __init__(self, limit: int) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {limit} bytes")


class _BodyTooSlow(HTTPException):
    """Like _BodyTooLarge."""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.REQUEST_TIMEOUT, f"a body has to be here within {BODY_SECONDS:.0f} seconds")


class Guard:
    """The outermost middleware of ours."""

    def __init__(self, app: ASGIApp, *, is_public_https: bool = False, body_seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._headers = _HEADERS | (_HTTPS_HEADERS if is_public_https else {})
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send, self._headers)
        limit = _LARGER.get(scope["path"], BODY_LIMIT)
        try:
            if _announced(scope, limit) > limit:
                raise _BodyTooLarge(limit)
            await self._app(scope, _limited(receive, limit, self._body_seconds), answer.send)
        except (_BodyTooLarge, _BodyTooSlow) as error:
            await answer.instead(problem(error.status_code, error.detail))
        except Exception as error:
            answer.log_error(error)
            await answer.instead(problem(HTTPStatus.INTERNAL_SERVER_ERROR, request_id=answer.request_id))
        finally:
            answer.log()


class _Answer:
    """One answer on its way: adds the headers, remembers the status."""

    def __init__(self, scope: Scope, send: Send, headers: Mapping[str, str]) -> None:
        self._scope, self._send, self._headers = scope, send, headers
        self._began = time.perf_counter()
        self._status: int | None = None
        asked = Headers(scope=scope).get("x-request-id", "")
        self.request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid4().hex

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers.setdefault(name, value)
            headers.update(self._scope.get("state", {}).get(ANSWER_HEADERS, {}))
            headers["X-Request-Id"] = self.request_id
        await self._send(message)

    async def instead(self, response: Response) -> None:
        """Send `response`, unless an answer has begun: then the connection just ends."""
        if self._status is None:
            await response(self._scope, _nothing, self.send)

    def log_error(self, error: Exception) -> None:
        """Say where it broke, but not the error's own words: they may quote what was sent."""
        frames = traceback.extract_tb(error.__traceback__)[-6:]
        where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
        log.error("http.broke", error=type(error).__name__, where=where, request_id=self.request_id)

    def log(self) -> None:
        route = _route_of(self._scope)
        if "app" in self._scope:
            self._scope["app"].state.room.figures.count("http_requests", route, str(self._status or 0))
        log.info(
            "http.request",
            method=self._scope["method"] if self._scope["method"].isalpha() else "?",
            route=route,
            status=self._status,
            milliseconds=round((time.perf_counter() - self._began) * 1000, 1),
            request_id=self.request_id,
        )


def _route_of(scope: Scope) -> str:
    """Return the route's template, such as /u/{token:path}."""
    endpoint = scope.get("endpoint")
    routes = scope["app"].routes if endpoint is not None and "app" in scope else ()
    plain = next((route.path for route in routes if getattr(route, "endpoint", None) is endpoint), None)
    return str(plain or getattr(scope.get("route"), "path", "no such route"))


def _announced(scope: Scope, limit: int) -> int:
    length = Headers(scope=scope).get("content-length", "0")
    return int(length) if length.isdecimal() and len(length) < 20 else limit + 1


def _limited(receive: Receive, limit: int, seconds: float) -> Receive:
    """Return `receive` with a count, since a chunked body announces no length, and with a clock until the body ends."""
    got, deadline, is_whole = 0, 0.0, False

    async def counted() -> Message:
        nonlocal got, deadline, is_whole
        if is_whole:  # what comes now is that the client left: that may take as long as it likes
            return await receive()
        deadline = deadline or anyio.current_time() + seconds
        try:
            with anyio.fail_after(deadline - anyio.current_time()):
                message = await receive()
        except TimeoutError:
            raise _BodyTooSlow from None
        is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        got += len(message.get("body", b""))
        if got > limit:
            raise _BodyTooLarge(limit)
        return message

    return counted


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
