"""/metrics, for whoever watches this house.

It tells how much is sent and how well that goes, which is nobody else's business: it needs an API key with the scope
metrics:read.  Only the sandbox tells whoever asks on its own machine.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dispatcher import api_keys
from dispatcher.api_keys import NotAuthenticated
from dispatcher.web.local import asked_from_here
from dispatcher.web.room import Room, in_thread, room_of

SCOPE = "metrics:read"


async def metrics(request: Request) -> Response:
    """The metrics in Prometheus' text format, or in OpenMetrics if that is asked for."""
    room = room_of(request)
    if not (room.sandbox_only and asked_from_here(request)):
        sent = request.headers.get("authorization", "")
        await in_thread(room.pools.metrics, lambda: _authenticate(room, sent))
    accept = request.headers.get("accept", "")
    content, content_type = await in_thread(room.pools.metrics, lambda: room.metrics.scrape(accept))
    return Response(content, headers={"Content-Type": content_type})


def _authenticate(room: Room, sent: str) -> None:
    kind, _, key = sent.partition(" ")
    if kind.lower() != "bearer":
        raise NotAuthenticated(f"send an API key with the scope {SCOPE}: Authorization: Bearer dsp_...")
    with room.database.begin() as connection:
        api_keys.require(api_keys.authenticate(connection, key.strip()), SCOPE)


ROUTES = [Route("/metrics", metrics)]
