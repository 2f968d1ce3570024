"""Who calls /v1: a good key within its limit, and a body that is JSON, before anything of the request is looked at.

401 goes before everything, so nothing is told to who has no key; then 429, 415, and 403 for a scope that is missing,
before it is looked whether the thing exists: a key never learns what it may not see.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from email.message import Message as MediaType
from functools import partial
from http import HTTPStatus

from fastapi import Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from dispatcher import api_keys
from dispatcher.api_keys import ApiKey, NotAuthenticated
from dispatcher.web.guard import ANSWER_HEADERS
from dispatcher.web.problems import answer_for
from dispatcher.web.room import Room, in_thread, room_of

PREFIX = "/v1/"


class Callers:
    """The middleware in front of /v1; behind it `request.state.key` is the caller's."""

    path = PREFIX  #: what the log calls a request that was not let in: it has no route yet

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            await _admit(request)
        except Exception as error:
            refusal = answer_for(error)
            if refusal is None:
                raise
            scope["route"] = self
            await refusal(scope, receive, send)
            return
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        asked = {**scope, "method": "GET"}  # the server leaves the body out, as it knows what it was asked for
        await self._app(asked, receive, send)
        scope.update({name: asked[name] for name in ("endpoint", "route") if name in asked})


async def _admit(request: Request) -> None:
    kind, _, bearer = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not bearer.strip():
        raise NotAuthenticated("send an API key: Authorization: Bearer dsp_...")
    room = room_of(request)
    key, headers = await in_thread(room.pools.api, partial(_look_up, room, bearer.strip()))
    request.state.key = key
    setattr(request.state, ANSWER_HEADERS, headers)
    _refuse_other_media(request.headers)


def _look_up(room: Room, bearer: str) -> tuple[ApiKey, dict[str, str]]:
    with room.database.begin() as connection:  # its own: the note of use must not wait for the work
        key = api_keys.authenticate(connection, bearer)
    return key, room.rate_limit.take(key.id, key.requests_per_minute).headers


def _refuse_other_media(headers: Headers) -> None:
    """A body is JSON and says so: guessing would take a form of another site for a request of the shop."""
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    said = MediaType()
    said["content-type"] = headers.get("content-type", "application/octet-stream")
    if said.get_content_type() != "application/json" or said.get_content_charset("utf-8") != "utf-8":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON: Content-Type: application/json")


def permit(scope: str) -> Callable[..., Awaitable[ApiKey]]:
    """Return a dependency: the caller's key, which must have `scope`."""

    async def permitted(request: Request) -> ApiKey:
        key: ApiKey = request.state.key
        api_keys.require(key, scope)
        return key

    return permitted
