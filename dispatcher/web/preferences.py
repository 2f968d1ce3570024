"""The preference centre: GET shows it, POST does the one thing its `do` names, and shows it again with what came of it.

Everything is a plain form, so it works without scripts.  Scanners open every link and some post to it: without a `do`
that we know nothing changes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date
from functools import partial

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dispatcher import unsubscribe
from dispatcher.content.pages import LANGUAGES, render_page
from dispatcher.definitions import Shop
from dispatcher.preferences import choices, data_links, standing, whose, wishes
from dispatcher.preferences.choices import Chosen, Pair
from dispatcher.preferences.standing import Standing
from dispatcher.shop import load_shop
from dispatcher.tokens import BadToken, WayHome
from dispatcher.web import preference_words
from dispatcher.web.forms import Form, came_from_elsewhere, read_form
from dispatcher.web.languages import chosen_locale
from dispatcher.web.link_pages import html, invalid, read_only, told_of_erasure, who_clicked
from dispatcher.web.links import wait
from dispatcher.web.preference_words import Notice, QuietForm
from dispatcher.web.room import Room, in_thread, in_transaction, room_of

DONE, WORKING_ON_IT, FORBIDDEN = unsubscribe.DONE, unsubscribe.WORKING_ON_IT, 403


@dataclass(frozen=True, slots=True)
class View:
    """What the page needs to know, read in one go."""

    shop: Shop
    standing: Standing


@dataclass(frozen=True, slots=True)
class Posted:
    """A form that somebody sent, on the page of a good link."""

    request: Request
    room: Room
    way: WayHome
    form: Form


@dataclass(slots=True)
class Outcome:
    """What an action came to."""

    notices: list[Notice] = field(default_factory=list)
    section: str = ""  #: the one that stays open
    status: int = DONE
    language: str | None = None  #: that the person has just chosen
    quiet: QuietForm | None = None  #: what was typed in, if it could not be taken


async def link(request: Request) -> Response:
    room = room_of(request)
    try:
        way = room.homes.read(request.path_params["token"])
        return await told_of_erasure(request, way, lambda: _answer(request, room, way))
    except BadToken:
        return invalid(request)


async def _answer(request: Request, room: Room, way: WayHome) -> Response:
    outcome = await _act(request, room, way) if request.method == "POST" else Outcome()
    view = await in_thread(room.pools.pages, lambda: read_only(room, partial(_look, room, way=way)))
    return _page(request, view, outcome)


def _look(room: Room, connection: Connection, *, way: WayHome) -> View:
    shop = load_shop(connection)
    person = whose.find(connection, room.key_ring, way)
    return View(shop, standing.stand(connection, shop, person, way))


def _page(request: Request, view: View, outcome: Outcome) -> Response:
    language = outcome.language or language_for(request, view)
    context = preference_words.context(view.shop, view.standing, language, outcome.notices, outcome.quiet)
    context |= {"post_url": f"{request.url.path}?lang={language}", "section": outcome.section}
    return html(render_page("preferences", language, context), outcome.status)


def language_for(request: Request, view: View) -> str:
    accepted = request.headers.get("accept-language", "")
    return chosen_locale(request.query_params.get("lang"), view.standing.person.locale, accepted)


async def _act(request: Request, room: Room, way: WayHome) -> Outcome:
    form = await read_form(request)
    action = _ACTIONS.get(form.one("do"))
    if action is None:
        return Outcome()
    if came_from_elsewhere(request):
        return Outcome([Notice("wrong_place", wrong=True)], status=FORBIDDEN)
    return await action(Posted(request, room, way, form))


async def _choose(posted: Posted) -> Outcome:
    room, way = posted.room, posted.way
    view = await in_thread(room.pools.pages, lambda: read_only(room, partial(_look, room, way=way)))
    language = language_for(posted.request, view)
    work = partial(
        choices.choose, room.database, room.key_ring, way, shown=_pairs(posted.form.one("shown").split()),
        wanted=_pairs(posted.form.all("topic")), words=preference_words.wordings(view.shop, view.standing, language),
        sealed=who_clicked(posted.request),
    )  # fmt: skip
    chosen = await in_thread(room.pools.withdrawals, work)
    return await _settle(room, chosen, [Notice("said_left", pair=pair) for pair in chosen.left])


async def _stop(posted: Posted) -> Outcome:
    room, way = posted.room, posted.way
    work = partial(choices.leave_everything, room.database, room.key_ring, way, who_clicked(posted.request))
    chosen = await in_thread(room.pools.withdrawals, work)
    return await _settle(room, chosen, [Notice("said_all_left")])


async def _settle(room: Room, chosen: Chosen, notices: list[Notice]) -> Outcome:
    """Wait at the barrier: done is said only once nothing is on the wire, as by the unsubscribe link."""
    await wait(room, *chosen.withdrawals)

    def answer() -> list[int]:
        return [unsubscribe.answer(room.database, withdrawal).status for withdrawal in chosen.withdrawals]

    status = max(await in_thread(room.pools.withdrawals, answer), default=DONE)
    if status == WORKING_ON_IT:
        notices.append(Notice("working_note"))
    for key, pairs in (
        ("said_joined", chosen.joined), ("said_asked", chosen.asked), ("said_asked_lately", chosen.asked_lately),
        ("said_refused", chosen.refused),
    ):  # fmt: skip
        notices += [Notice(key, pair=pair, wrong=key == "said_refused") for pair in pairs]
    return Outcome(notices or [Notice("said_nothing")], "topics", status)


async def _pause(posted: Posted) -> Outcome:
    room, way = posted.room, posted.way
    wanted: str | date = posted.form.one("for")
    if wanted not in wishes.PAUSES:
        try:
            wanted = date.fromisoformat(posted.form.one("day"))
        except ValueError:
            return Outcome([Notice("wrong_day", wrong=True)], "pause")
    try:
        until = await in_transaction(room, lambda connection: wishes.pause(connection, room.key_ring, way, wanted))
    except wishes.NotADay:
        return Outcome([Notice("wrong_day", wrong=True)], "pause")
    return Outcome([Notice("said_paused", until=until)], "pause")


async def _resume(posted: Posted) -> Outcome:
    room, way = posted.room, posted.way
    await in_transaction(room, lambda connection: wishes.pause(connection, room.key_ring, way, None))
    return Outcome([Notice("said_resumed")], "pause")


async def _keep_quiet(posted: Posted) -> Outcome:
    room, way = posted.room, posted.way
    typed = QuietForm(
        posted.form.one("from"), posted.form.one("to"), tuple(posted.form.all("day")), tuple(posted.form.all("whole"))
    )
    try:
        silences = typed.silences()
    except preference_words.NoDays:
        return Outcome([Notice("wrong_days", wrong=True)], "quiet", quiet=typed)
    except ValueError:
        return Outcome([Notice("wrong_hours", wrong=True)], "quiet", quiet=typed)
    try:
        await in_transaction(room, lambda connection: wishes.keep_quiet(connection, room.key_ring, way, silences))
    except wishes.NoTimeLeft:
        return Outcome([Notice("wrong_no_time", wrong=True)], "quiet", quiet=typed)
    return Outcome([Notice("said_quiet")], "quiet")


async def _speak(posted: Posted) -> Outcome:
    room, way = posted.room, posted.way
    locale = posted.form.one("locale")
    if locale not in LANGUAGES:
        return Outcome([Notice("said_nothing")], "language")
    await in_transaction(room, lambda connection: wishes.speak(connection, room.key_ring, way, locale))
    return Outcome([Notice("said_language")], "language", language=locale)


async def _send_data_link(posted: Posted) -> Outcome:
    room, way = posted.room, posted.way
    asked = await in_transaction(room, lambda connection: data_links.ask(connection, room.key_ring, way))
    key = {"sent": "said_data_sent", "sent already": "said_data_sent_already", "unreachable": "said_data_unreachable"}
    notice = Notice(key[asked.became], address=(asked.channel, asked.address), wrong=asked.became == "unreachable")
    return Outcome([notice], "data")


def _pairs(texts: list[str]) -> set[Pair]:
    """Return the (channel, topic) of each `channel:topic`; what is none of ours is refused where it is looked up."""
    return {(channel, topic) for channel, colon, topic in (text.partition(":") for text in texts) if colon}


Action = Callable[[Posted], Awaitable[Outcome]]

#: What a form may ask for.
_ACTIONS: dict[str, Action] = {
    "topics": _choose,
    "stop": _stop,
    "pause": _pause,
    "resume": _resume,
    "quiet": _keep_quiet,
    "language": _speak,
    "data": _send_data_link,
}

ROUTES = [Route("/p/{token:path}", link, methods=["GET", "POST"])]  # Starlette adds HEAD
