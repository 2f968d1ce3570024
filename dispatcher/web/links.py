"""The link in every marketing message: GET shows one button, POST stops it (RFC 8058).

No cookie, login, redirect or confirmation; what stands in the body does not matter, since posting here is the wish.
"""

from __future__ import annotations

import time
from functools import partial

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dispatcher import unsubscribe
from dispatcher.tokens import BadToken
from dispatcher.web.link_pages import invalid, page, read_words, wants_a_page, who_clicked
from dispatcher.web.room import Room, in_thread, room_of

_SAID = {
    unsubscribe.DONE: "You are unsubscribed. Nothing more will be sent.\n",
    unsubscribe.WORKING_ON_IT: "Your request is recorded. One message may have been on its way already.\n",
}
_PAGES = {unsubscribe.DONE: "unsubscribed", unsubscribe.WORKING_ON_IT: "working_on_it"}


async def show(request: Request) -> Response:
    """GET and HEAD: the page with the button.  Scanners open every link, so this changes nothing, ever."""
    room = room_of(request)
    try:
        way_out = room.tokens.read(request.path_params["token"])
        words = await in_thread(room.pools.pages, lambda: read_words(room, way_out))
    except BadToken:
        return invalid(request)
    return page(request, "unsubscribe", words, 200)


async def withdraw(request: Request) -> Response:
    """POST: the withdrawal, then 200 once nothing is on the wire, else 202."""
    room = room_of(request)
    await request.body()  # read to its end, and ignored
    try:
        way_out = room.tokens.read(request.path_params["token"])
        begin = partial(
            unsubscribe.begin, room.database, room.key_ring, way_out,
            source="unsubscribe link", sealed=who_clicked(request),
        )  # fmt: skip
        withdrawal = await in_thread(room.pools.withdrawals, begin)
    except BadToken:
        return invalid(request)
    await wait(room, withdrawal)
    answer = await in_thread(room.pools.withdrawals, lambda: unsubscribe.answer(room.database, withdrawal))
    if not wants_a_page(request):
        return PlainTextResponse(_SAID[answer.status], answer.status)
    words = await in_thread(room.pools.pages, lambda: read_words(room, way_out))
    return page(request, _PAGES[answer.status], words, answer.status)


async def wait(room: Room, *withdrawals: unsubscribe.Withdrawal) -> None:
    """Wait for what is on the wire, holding neither a thread nor a connection in between."""

    def on_the_wire() -> bool:
        return any(unsubscribe.is_on_the_wire(room.database, withdrawal) for withdrawal in withdrawals)

    deadline = time.monotonic() + room.wait.total_seconds()
    while time.monotonic() < deadline:
        if not await in_thread(room.pools.looks, on_the_wire):
            return
        await anyio.sleep(unsubscribe.LOOK_EVERY.total_seconds())


async def link(request: Request) -> Response:
    return await (withdraw(request) if request.method == "POST" else show(request))


ROUTES = [Route("/u/{token:path}", link, methods=["GET", "POST"])]  # Starlette adds HEAD
