"""The sandbox's mailbox in a browser: what it accepted last, and each message as its reader would see it.

It shows addresses and bodies in clear, as a mailbox does, so it is there only while nothing but the sandbox is
configured, and only for a browser on this machine.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from dispatcher.web.local import asked_from_here
from dispatcher.web.room import in_thread, room_of

MOST_SHOWN = 100
_BLOCK = 256 * 1024
#: How far back a single message is looked for; older ones are in the file itself.
_LOOKS_BACK = 64 * 1024 * 1024
_FOLDER = Path(__file__).parent / "pages"


async def show_outbox(request: Request) -> Response:
    """The newest messages first."""
    outbox = _outbox_for(request)

    def newest() -> list[dict[str, Any]]:
        return [line for line, _ in zip(read_newest(outbox), range(MOST_SHOWN), strict=False)]

    lines = await in_thread(room_of(request).pools.pages, newest)
    return _page("sandbox.html", messages=lines, most=MOST_SHOWN)


async def show_message(request: Request) -> Response:
    """One message: its HTML in a frame without rights, its text, its headers."""
    outbox, message_id = _outbox_for(request), request.path_params["message_id"]

    def find() -> dict[str, Any] | None:
        return next((line for line in read_newest(outbox) if line.get("message_id") == message_id), None)

    found = await in_thread(room_of(request).pools.pages, find)
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return _page("sandbox_message.html", message=found)


def read_newest(outbox: Path) -> Iterator[dict[str, Any]]:
    """Yield the outbox's messages from the newest back, reading no more of the file than is asked for.

    A line that is still being written, or was torn by a crash, is passed over.
    """
    for line in _lines_from_the_end(outbox):
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(message, dict):
            yield message


def _lines_from_the_end(path: Path) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        position = end = file.seek(0, 2)
        rest = b""
        while position > 0 and end - position < _LOOKS_BACK:
            size = min(_BLOCK, position)
            position -= size
            file.seek(position)
            lines = (file.read(size) + rest).split(b"\n")
            rest = lines[0]
            yield from (line for line in reversed(lines[1:]) if line)
        if position == 0 and rest:
            yield rest


def _outbox_for(request: Request) -> Path:
    outbox = room_of(request).outbox
    if outbox is None or not asked_from_here(request):
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return outbox


def _page(name: str, **context: Any) -> Response:
    style = _style()
    page = _environment().get_template(name).render(style=Markup(style), **context)  # noqa: S704 - our own file
    return HTMLResponse(page, headers={"Content-Security-Policy": _policy(name)})


@cache
def _policy(name: str) -> str:
    """A mail brings its own styles and the frame inherits this policy; everything active stays out in either."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    styles = "'unsafe-inline'" if name == "sandbox_message.html" else f"'sha256-{digest}'"
    nothing = "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    return f"default-src 'none'; style-src {styles}; img-src data:; {nothing}"


@cache
def _style() -> str:
    return (_FOLDER / "sandbox.css").read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


ROUTES = [Route("/sandbox", show_outbox), Route("/sandbox/{message_id}", show_message)]
