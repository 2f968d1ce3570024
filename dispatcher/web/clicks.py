"""The links whose clicks are counted: GET leads on, to where the link led when its message left.

Nothing in the request can change where: the path names a row, and the query is not read.
"""

from __future__ import annotations

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dispatcher import clicks
from dispatcher.tokens import BadToken, ClickedLink
from dispatcher.web.link_pages import invalid
from dispatcher.web.room import Room, in_thread, room_of

_PURPOSES = ("sec-purpose", "purpose", "x-purpose", "x-moz")


async def follow(request: Request) -> Response:
    """GET and HEAD: the redirect, whoever asks; what asked is noted after the answer."""
    room = room_of(request)
    look = clicks.Look(
        request.method,
        request.headers.get("user-agent", ""),
        tuple(request.headers[name] for name in _PURPOSES if name in request.headers),
    )
    try:
        clicked = room.clicks.read(request.path_params["token"])
        click = await in_thread(room.pools.clicks, lambda: _find(room, clicked))
    except BadToken:
        return invalid(request)
    return Response(
        status_code=302,
        headers={"Location": click.destination},
        background=BackgroundTask(_note, room, click, look),
    )


def _find(room: Room, clicked: ClickedLink) -> clicks.Click:
    with room.database.connect() as connection:
        connection = connection.execution_options(postgresql_readonly=True)  # noqa: PLW2901
        with connection.begin():
            return clicks.find(connection, room.key_ring, clicked)


async def _note(room: Room, click: clicks.Click, look: clicks.Look) -> None:
    await in_thread(room.pools.notes, lambda: clicks.note(room.database, room.key_ring, click, look))


ROUTES = [Route("/c/{token:path}", follow)]  # Starlette adds HEAD
