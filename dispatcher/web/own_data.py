"""What we know of somebody, for themselves: to see, correct, take along and erase.

The address is a one-time link that was sent to them.  GET shows a button and changes nothing; the page holds a secret,
and the browser that posts it first has the link until it ends.  So there is no cookie, and a scanner that looked first
has nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
import orjson
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dispatcher import audit, rights, unsubscribe
from dispatcher.content.pages import LANGUAGES, Say, page_language, render_page
from dispatcher.definitions import Shop
from dispatcher.errors import InvalidFields
from dispatcher.locks import lock_identity
from dispatcher.masking import masked_address
from dispatcher.preferences import ACTOR, data_links, whose
from dispatcher.preferences.whose import Person
from dispatcher.rights import readable
from dispatcher.rights.correcting import OWN_FIELDS
from dispatcher.rights.exporting import SECTIONS
from dispatcher.shop import load_shop
from dispatcher.tokens import BadToken, WayToData
from dispatcher.web.forms import Form, came_from_elsewhere, read_form
from dispatcher.web.languages import chosen_locale
from dispatcher.web.link_pages import erasure_page, html, invalid, read_only, told_of_erasure
from dispatcher.web.room import Room, in_thread, in_transaction, room_of


@dataclass(frozen=True, slots=True)
class Opened:
    """A link that is good, and what its page needs."""

    way: WayToData
    key: str  #: the secret of the browser that has it
    person: Person
    shop: Shop


@dataclass(frozen=True, slots=True)
class Posted:
    """A form that the browser sent that has the link."""

    request: Request
    room: Room
    opened: Opened
    form: Form


async def link(request: Request) -> Response:
    room = room_of(request)
    try:
        way = room.data_links.read(request.path_params["token"])
        answer = _act if request.method == "POST" else _show
        return await told_of_erasure(request, way, lambda: answer(request, room, way))
    except BadToken:
        return invalid(request, "own_data_invalid")


async def _show(request: Request, room: Room, way: WayToData) -> Response:
    """GET and HEAD: the button."""

    def look(connection: Connection) -> Opened:
        person = data_links.look(connection, room.key_ring, way)
        return Opened(way, data_links.new_key(), person, load_shop(connection))

    opened = await in_thread(room.pools.pages, lambda: read_only(room, look))
    return _page(request, opened, "own_data_open")


async def _act(request: Request, room: Room, way: WayToData) -> Response:
    form = await read_form(request)
    action = _ACTIONS.get(form.one("do"))
    if action is None or came_from_elsewhere(request):
        raise BadToken  # nothing that a page of ours would have posted
    key = form.one("key")

    def open_(connection: Connection) -> Opened:
        person = data_links.open_with(connection, room.key_ring, way, key)
        return Opened(way, key, person, load_shop(connection))

    return await action(Posted(request, room, await in_transaction(room, open_), form))


async def _open(posted: Posted) -> Response:
    return _page(posted.request, posted.opened, "own_data")


async def _correct(posted: Posted) -> Response:
    key_ring, way = posted.room.key_ring, posted.opened.way
    given = {name: posted.form.one(name) for name in OWN_FIELDS if name in posted.form}

    def correct(connection: Connection) -> Person:
        lock_identity(connection)  # before the rows, as whoever saves a contact
        person = whose.hold(connection, key_ring, way)
        rights.correct_contact(connection, key_ring, person.contact_id, given, by=ACTOR)
        return whose.find(connection, key_ring, way)

    try:
        person = await in_transaction(posted.room, correct)
    except InvalidFields:  # of names and postal codes only the length can be wrong
        return _page(posted.request, posted.opened, "own_data", wrong="wrong_length")
    return _page(posted.request, replace(posted.opened, person=person), "own_data", said="said_corrected")


async def _show_all(posted: Posted) -> Response:
    exported = await in_transaction(posted.room, partial(_export, posted.room, posted.opened, form="page"))
    sections = [(name, readable.in_words(exported[name])) for name in SECTIONS]
    return _page(posted.request, posted.opened, "own_data_all", sections=sections)


async def _download(posted: Posted) -> Response:
    exported = await in_transaction(posted.room, partial(_export, posted.room, posted.opened, form="json"))
    body = orjson.dumps(exported, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    headers = {"Content-Disposition": 'attachment; filename="my-data.json"'}
    return Response(body, media_type="application/json", headers=headers)


def _export(room: Room, opened: Opened, connection: Connection, *, form: str) -> dict[str, Any]:
    contact_id = opened.person.contact_id
    exported = rights.export_contact(connection, room.key_ring, contact_id)
    audit.record(connection, ACTOR, "own_data.exported", f"contact {contact_id}", {"as": form})
    return dict(exported)


async def _erase(posted: Posted) -> Response:
    if posted.form.one("sure") != "yes":
        return _page(posted.request, posted.opened, "own_data", wrong="wrong_tick")

    def request_erasure(connection: Connection) -> rights.Erasure:
        erasure = rights.request_erasure(connection, posted.room.key_ring, posted.opened.person.contact_id, by=ACTOR)
        data_links.end(connection, posted.opened.way, posted.opened.person)
        return erasure

    erasure = await in_transaction(posted.room, request_erasure)
    return erasure_page(posted.request, await _finish(posted.room, erasure), after_post=True)


async def _finish(room: Room, erasure: rights.Erasure) -> rights.ErasureState:
    """Wait at the barrier, holding neither a thread nor a connection in between."""
    deadline = time.monotonic() + room.wait.total_seconds()
    while True:
        state = await in_thread(
            room.pools.withdrawals, lambda: rights.finish_erasure(room.database, room.key_ring, erasure.id)
        )
        if state.state == "done" or time.monotonic() >= deadline:
            return state
        await anyio.sleep(unsubscribe.LOOK_EVERY.total_seconds())


def _page(request: Request, opened: Opened, name: str, *, said: str = "", wrong: str = "", **more: Any) -> Response:
    person = opened.person
    language = chosen_locale(
        request.query_params.get("lang"), person.locale, request.headers.get("accept-language", "")
    )
    email = opened.shop.shop.from_email
    context = {
        "shop_name": opened.shop.shop.name,
        "masked_address": masked_address(opened.way.channel, person.address_on(opened.way.channel)),
        "post_url": f"{request.url.path}?lang={language}",
        "key": opened.key,
        "said": said,
        "wrong": wrong,
        "shop_email": email,
        "glance": _glance(Say(language), person),
        "fields": [(name, getattr(person.personal, name) or "") for name in OWN_FIELDS],
        **more,
    }
    return html(render_page(name, language, context), 200)


def _glance(say: Say, person: Person) -> list[tuple[str, str]]:
    language = LANGUAGES[page_language(person.locale)] if person.locale else ""
    known = {**{name: getattr(person.personal, name) or "" for name in _PERSONAL}, "language": language}
    return [(say(f"field_{name}"), value or say("field_empty")) for name, value in known.items()]


_PERSONAL = ("first_name", "last_name", "email", "phone", "postal_code")

Action = Callable[[Posted], Awaitable[Response]]

#: What a form may ask for.
_ACTIONS: dict[str, Action] = {
    "open": _open,
    "correct": _correct,
    "all": _show_all,
    "download": _download,
    "erase": _erase,
}

ROUTES = [Route("/m/{token:path}", link, methods=["GET", "POST"])]  # Starlette adds HEAD
