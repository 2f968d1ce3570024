"""How the tests visit the preference centre."""

from __future__ import annotations

from own_pages import Fields, encoded
from web_server import Answer, Web

FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html", "Accept-Language": "en"}


def get(web: Web, path: str, **headers: str) -> Answer:
    return web.ask("GET", path, headers={"Accept": "text/html", "Accept-Language": "en"} | headers)


def post(web: Web, path: str, fields: list[tuple[str, str]], **headers: str) -> Answer:
    return web.ask("POST", path, encoded(fields), FORM | headers)


def press(web: Web, path: str, do: str, **headers: str) -> Answer:
    """Open the page and press a button without touching anything else."""
    return post(web, path, Fields(get(web, path).text).form(do), **headers)


def tick(web: Web, path: str, *wanted: str) -> Answer:
    """Open the page, tick exactly these topics, and save."""
    fields = [field for field in Fields(get(web, path).text).form("topics") if field[0] != "topic"]
    return post(web, path, [*fields, *(("topic", one) for one in wanted)])
