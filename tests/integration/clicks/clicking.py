"""A shop that counts clicks, and somebody who clicks."""

from __future__ import annotations

import re
from typing import Any

from ledger import SmallShop
from small_workspace import FILES
from sqlalchemy import Engine, text
from web_server import Answer, Web

PEOPLE = 6
PERSON = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0"}
FOOTER = '<p><a href="{{ unsubscribe_url }}">Stop</a></p><p>{{ shop.postal_address }}</p></body></html>\n'
COUNTED = FILES["campaigns/hello.yaml"] + "track_clicks: true\nutm: {source: letter}\n"
WORKSPACE = {
    "campaigns/hello.yaml": COUNTED,
    "campaigns/texts.yaml": "name: texts\nchannel: sms\ntopic: offers\nsegment: everybody\ntemplate: short\n"
    "track_clicks: true\n",
    "templates/sms/short/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/short/body.txt": "The shelf is full: https://small.example/a/rather/long/path?that=costs "
    "Stop: {{ unsubscribe_url }}\n",
    "templates/email/christmas/body.html": """\
<html lang="en"><body><p>Hello {{ contact.first_name }}</p>
<p><a href="https://small.example/shelf?a=1&amp;b=2#top">Shelf</a> <a href="https://www.small.example/">Shop</a></p>
<p><a href="https://small.example/orders/{{ contact.email }}?n=1">Yours</a> <a href="mailto:a@small.example">Write</a>
<a href="tel:+442070000000">Call</a></p>
"""
    + FOOTER,
}
SHELF = "https://small.example/shelf?a=1&b=2&utm_source=letter&utm_medium=email&utm_campaign=hello#top"
OWN = "https://small.example/orders/{}?n=1&utm_source=letter&utm_medium=email&utm_campaign=hello"


def mails(shop: SmallShop) -> dict[str, dict[str, Any]]:
    """What was sent, by contact."""
    import json

    lines = (shop.home / "sandbox" / "outbox.jsonl").read_text().splitlines()
    return {line["contact"]: line for line in map(json.loads, lines)}


def links(mail: dict[str, Any]) -> list[str]:
    """The counted links of a mail in the order of its HTML part, else of its text."""
    return re.findall(r"https://shop\.example(/c/[A-Za-z0-9_-]+)", mail["html"] or mail["text"])


def follow(web: Web, link: str, method: str = "GET", **headers: str) -> Answer:
    return web.ask(method, link, headers=PERSON | headers)


def noted(database: Engine) -> list[tuple[int, str | None]]:
    """Link number and bot of each click that is written down."""
    with database.connect() as connection:
        return [
            tuple(r)
            for r in connection.execute(text("SELECT link, bot FROM feedback WHERE source = 'link' ORDER BY id"))
        ]
