"""The link of an opt-in confirmation: GET shows one button, POST confirms."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dispatcher import opt_in
from dispatcher.tokens import BadToken, WayIn
from dispatcher.web.link_pages import Words, invalid, page, wants_a_page, who_clicked, words_for
from dispatcher.web.room import Room, in_thread, room_of


async def show(request: Request) -> Response:
    """GET and HEAD: the page with the button, or what became of it.  Scanners open every link: this changes nothing."""
    room = room_of(request)
    try:
        way_in = room.opt_ins.read(request.path_params["token"])
        offer, words = await in_thread(room.pools.pages, lambda: _look(room, way_in))
    except BadToken:
        return invalid(request)
    return page(request, "confirmed" if offer.used else "confirm", words, 200)


async def confirm(request: Request) -> Response:
    """POST: granted from now on; a second time says so again."""
    room = room_of(request)
    await request.body()  # read to its end, and ignored
    clicked = who_clicked(request)
    try:
        way_in = room.opt_ins.read(request.path_params["token"])
        words = await in_thread(room.pools.withdrawals, lambda: _confirm(room, way_in, clicked))
    except BadToken:
        return invalid(request)
    if not wants_a_page(request):
        return PlainTextResponse("It is confirmed.\n")
    return page(request, "confirmed", words, 200)


def _look(room: Room, way_in: WayIn) -> tuple[opt_in.Offer, Words]:
    """Return offer and words; the transaction is read-only, and the database holds us to it."""
    with room.database.connect() as connection:
        connection = connection.execution_options(postgresql_readonly=True)  # noqa: PLW2901
        with connection.begin():
            offer = opt_in.look(connection, way_in)
            return offer, words_for(connection, room.key_ring, replace(way_in, contact_id=offer.contact_id))


def _confirm(room: Room, way_in: WayIn, clicked: dict[str, str]) -> Words:
    with room.database.begin() as connection:
        offer = opt_in.confirm(connection, room.key_ring, way_in, sealed=clicked)
        return words_for(connection, room.key_ring, replace(way_in, contact_id=offer.contact_id))


async def link(request: Request) -> Response:
    return await (confirm(request) if request.method == "POST" else show(request))


ROUTES = [Route("/d/{token:path}", link, methods=["GET", "POST"])]  # Starlette adds HEAD
