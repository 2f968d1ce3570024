"""What the pages behind links share: words, language, policy, and the one answer for a bad link."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, text
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from dispatcher import suppression
from dispatcher.contacts import open_personal
from dispatcher.content import page_policy, render_page
from dispatcher.content.pages import page_language
from dispatcher.keys import KeyRing
from dispatcher.masking import masked_address
from dispatcher.rights import ErasureState, erasure_state
from dispatcher.shop import find_shop
from dispatcher.tokens import BadToken, PreferenceTokens, WayHome, WayIn, WayOut, WayToData
from dispatcher.web.languages import chosen_locale, wanted_locale
from dispatcher.web.room import Room, in_thread, room_of

T = TypeVar("T")

LONGEST_USER_AGENT = 300


def wants_a_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


@dataclass(frozen=True, slots=True)
class Words:
    """What a page may know of the reader."""

    locale: str | None
    context: dict[str, Any]


def read_words(room: Room, link: WayOut | WayIn) -> Words:
    """Return the page's words."""
    return read_only(room, lambda connection: words_for(connection, room.key_ring, link))


def read_only(room: Room, look: Callable[[Connection], T]) -> T:
    """Return what `look` returns; the transaction is read-only, and the database holds us to it."""
    with room.database.connect() as connection:
        connection = connection.execution_options(postgresql_readonly=True)  # noqa: PLW2901
        with connection.begin():
            return look(connection)


def words_for(connection: Connection, key_ring: KeyRing, link: WayOut | WayIn) -> Words:
    """Return what a page may say; BadToken if there is no such contact."""
    contact = connection.execute(
        text(
            "SELECT locale, data_key, sealed, email_address_id AS email, sms_address_id AS sms "
            "FROM contact WHERE id = :id"
        ),
        {"id": link.contact_id},
    ).one_or_none()
    if contact is None:
        raise BadToken
    context = {"channel": link.channel, "topic_title": link.topic}
    shop = find_shop(connection)
    if shop is not None:  # the way out works all the same
        context["shop_name"] = shop.shop.name
    is_present = contact._mapping[link.channel] == link.address_id
    if is_present:
        home = WayHome(link.contact_id, link.channel, link.address_id)
        context["more_url"] = f"/p/{PreferenceTokens(key_ring).make(home)}"
        context["all_url"] = context["more_url"]
        personal = open_personal(key_ring, contact.data_key, contact.sealed)
        address = personal.email if link.channel == "email" else personal.phone
        context["masked_address"] = masked_address(link.channel, address) if address else ""
    return Words(contact.locale, context | {"titles": shop.topics.get(link.topic) if shop else None})


def page(request: Request, name: str, words: Words, status: int) -> Response:
    locale = wanted_locale(request.headers.get("accept-language", ""), words.locale)
    context = {key: value for key, value in words.context.items() if key != "titles"}
    for key in ("more_url", "all_url"):  # what they lead to speaks the language that the reader sees here
        if key in context:
            context[key] += f"?lang={page_language(locale)}"
    if titles := words.context["titles"]:
        context["topic_title"] = titles.title_for(locale)
    context["post_url"] = request.url.path
    return html(render_page(name, locale, context), status)


def invalid(request: Request, name: str = "invalid_link") -> Response:
    """The same answer for every token that is none: it teaches nothing about those that are.

    Who tries many gets it without the page.
    """
    if not room_of(request).bad_links.may_try(request.client.host if request.client else ""):
        return PlainTextResponse("This link does not work.\n", 429, {"Retry-After": "60"})
    if not wants_a_page(request) and request.method == "POST":
        return PlainTextResponse("This link does not work.\n", 404)
    return html(render_page(name, wanted_locale(request.headers.get("accept-language", ""), None), {}), 404)


async def told_of_erasure(
    request: Request, way: WayHome | WayToData, answer: Callable[[], Awaitable[Response]]
) -> Response:
    """Return what `answer` returns; of somebody who asks to be erased, or has, how far that is instead.

    Not at a former address that somebody else has by now: a link to that opens nothing.
    BadToken from `answer` is asked about once more: an erasure may have closed the link while the request waited for
    it, as the second of two clicks does.
    """
    room = room_of(request)

    def look(connection: Connection) -> ErasureState | None:
        theirs = suppression.was_erased(connection, way.address_id)
        return erasure_state(connection, way.contact_id) if theirs else None

    async def erasure() -> ErasureState | None:
        return await in_thread(room.pools.pages, lambda: read_only(room, look))

    if (begun := await erasure()) is not None:
        return erasure_page(request, begun)
    try:
        return await answer()
    except BadToken:
        if (begun := await erasure()) is None:
            raise
        return erasure_page(request, begun, after_post=request.method == "POST")


def erasure_page(request: Request, erasure: ErasureState, *, after_post: bool = False) -> Response:
    """How far an erasure has come, for whoever holds a link of that person: it says nothing of them any more.

    202 while something is in flight, if it was just asked for.
    """
    locale = chosen_locale(request.query_params.get("lang"), None, request.headers.get("accept-language", ""))
    in_progress = erasure.state == "in progress"
    page = render_page("erasure", locale, {"in_progress": in_progress, "post_url": f"{request.url.path}?lang={locale}"})
    return html(page, 202 if after_post and in_progress else 200)


def html(page: str, status: int) -> Response:
    return HTMLResponse(page, status, {"Content-Security-Policy": page_policy()})


def who_clicked(request: Request) -> dict[str, str]:
    """Return IP and user agent of a click, for the evidence: sealed under the contact's key, and in no log."""
    agent = request.headers.get("user-agent", "")[:LONGEST_USER_AGENT]
    return {"ip": request.client.host if request.client else "", "user_agent": agent}
