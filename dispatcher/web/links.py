"""The link in every marketing message: GET shows one button, POST stops it (RFC 8058).

No cookie, login, redirect or confirmation; what stands in the body does not matter, since posting here is the wish.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from sqlalchemy import Connection, text
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from dispatcher import unsubscribe
from dispatcher.contacts import open_personal
from dispatcher.content import page_policy, render_page
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.shop import load_shop
from dispatcher.tokens import BadToken, WayOut
from dispatcher.web.languages import wanted_locale
from dispatcher.web.masking import masked_address
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
        words = await in_thread(room.pools.pages, lambda: _read_words(room, way_out))
    except BadToken:
        return _invalid(request)
    return _page(request, "unsubscribe", words, 200)


async def withdraw(request: Request) -> Response:
    """POST: the withdrawal, then 200 once nothing is on the wire, else 202."""
    room = room_of(request)
    await request.body()  # read to its end, and ignored
    try:
        way_out = room.tokens.read(request.path_params["token"])
        begin = partial(unsubscribe.begin, room.database, room.key_ring, way_out, source="unsubscribe link")
        withdrawal = await in_thread(room.pools.withdrawals, begin)
    except BadToken:
        return _invalid(request)
    await _wait(room, withdrawal)
    answer = await in_thread(room.pools.withdrawals, lambda: unsubscribe.answer(room.database, withdrawal))
    if not _wants_a_page(request):
        return PlainTextResponse(_SAID[answer.status], answer.status)
    words = await in_thread(room.pools.pages, lambda: _read_words(room, way_out))
    return _page(request, _PAGES[answer.status], words, answer.status)


async def _wait(room: Room, withdrawal: unsubscribe.Withdrawal) -> None:
    """Wait for what is on the wire, holding neither a thread nor a connection in between."""
    deadline = time.monotonic() + room.wait.total_seconds()
    while time.monotonic() < deadline:
        if not await in_thread(room.pools.looks, lambda: unsubscribe.is_on_the_wire(room.database, withdrawal)):
            return
        await anyio.sleep(unsubscribe.LOOK_EVERY.total_seconds())


def _wants_a_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


@dataclass(frozen=True, slots=True)
class _Words:
    """What a page may know of the reader."""

    locale: str | None
    context: dict[str, Any]


def _read_words(room: Room, way_out: WayOut) -> _Words:
    """Return the page's words; the transaction is read-only, and the database holds us to it."""
    with room.database.connect() as connection:
        connection = connection.execution_options(postgresql_readonly=True)  # noqa: PLW2901
        with connection.begin():
            return _words(connection, room.key_ring, way_out)


def _words(connection: Connection, key_ring: KeyRing, way_out: WayOut) -> _Words:
    contact = connection.execute(
        text(
            "SELECT locale, data_key, sealed, email_address_id AS email, sms_address_id AS sms "
            "FROM contact WHERE id = :id"
        ),
        {"id": way_out.contact_id},
    ).one_or_none()
    if contact is None:
        raise BadToken
    context = {"channel": way_out.channel, "topic_title": way_out.topic}
    try:
        shop = load_shop(connection)
    except Refused:  # a workspace was never applied here; the way out works all the same
        shop = None
    if shop is not None:
        context["shop_name"] = shop.shop.name
    is_present = contact._mapping[way_out.channel] == way_out.address_id
    if is_present:
        personal = open_personal(key_ring, contact.data_key, contact.sealed)
        address = personal.email if way_out.channel == "email" else personal.phone
        context["masked_address"] = masked_address(way_out.channel, address) if address else ""
    return _Words(contact.locale, context | {"titles": shop.topics.get(way_out.topic) if shop else None})


def _page(request: Request, name: str, words: _Words, status: int) -> Response:
    locale = wanted_locale(request.headers.get("accept-language", ""), words.locale)
    context = {key: value for key, value in words.context.items() if key != "titles"}
    if titles := words.context["titles"]:
        context["topic_title"] = titles.title_for(locale)
    context["post_url"] = request.url.path
    return _html(render_page(name, locale, context), status)


def _invalid(request: Request) -> Response:
    """The same answer for every token that is none: it teaches nothing about those that are."""
    if not _wants_a_page(request) and request.method == "POST":
        return PlainTextResponse("This link does not work.\n", 404)
    return _html(render_page("invalid_link", wanted_locale(request.headers.get("accept-language", ""), None), {}), 404)


def _html(page: str, status: int) -> Response:
    return HTMLResponse(page, status, {"Content-Security-Policy": page_policy()})


async def link(request: Request) -> Response:
    return await (withdraw(request) if request.method == "POST" else show(request))


ROUTES = [Route("/u/{token:path}", link, methods=["GET", "POST"])]  # Starlette adds HEAD
