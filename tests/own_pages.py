"""A shop with its pages on a real port, and somebody who holds its links."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ledger import SmallShop, until_noon
from people import add_person
from small_workspace import FILES, write_workspace
from sqlalchemy import Engine, text

from dispatcher import clock, consent
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.tokens import PreferenceTokens, UnsubscribeTokens, WayHome
from dispatcher.workspace import read_workspace

_LETTERS = {
    "en": "Letters from the shop", "de": "Briefe aus dem Laden", "fr": "Lettres de la boutique",
    "es": "Cartas de la tienda", "pt-BR": "Cartas da loja", "ro": "Scrisori din magazin",
}  # fmt: skip
_NEWS = {
    "en": "News, once a month", "de": "Neues, einmal im Monat", "fr": "Nouvelles, une fois par mois",
    "es": "Novedades, una vez al mes", "pt-BR": "Novidades, uma vez por mês", "ro": "Noutăți, o dată pe lună",
}  # fmt: skip
_OFFERS = {"en": "Offers", "de": "Angebote", "fr": "Offres", "es": "Ofertas", "pt-BR": "Ofertas", "ro": "Oferte"}


def _topic(name: str, titles: dict[str, str], channels: str, more: str = "") -> str:
    shown = ", ".join(f'"{language}" = "{title}"' for language, title in titles.items())
    return f"[topics.{name}]\ntitle = {{{shown}}}\nchannels = {channels}\n{more}\n"


TITLES = (
    _topic("offers", _OFFERS, '["email", "sms"]')
    + _topic("letters", _LETTERS, '["email"]')
    + _topic("news", _NEWS, '["email"]', "double_opt_in = true")
)
WORKSPACE = {
    "dispatcher.toml": FILES["dispatcher.toml"]
    .partition("[topics.offers]")[0]
    .replace("Small Shop", "The Gift Shop")
    .replace('sms = ["20:00-09:00"]', "sms = []")
    + TITLES,
    "campaigns/texts.yaml": "name: texts\nchannel: sms\ntopic: offers\nsegment: everybody\ntemplate: short\n",
    "templates/email/opt-in-confirmation/meta.yaml": "class: transactional\n",
    "templates/email/opt-in-confirmation/subject.txt": "Confirm {{ topic.title }}\n",
    "templates/email/opt-in-confirmation/body.html": (
        '<html lang="en"><body><p><a href="{{ confirm_url }}">Yes, {{ topic.title }}</a></p></body></html>\n'
    ),
    "templates/sms/opt-in-confirmation/meta.yaml": "class: transactional\nurgent: true\n",
    "templates/sms/opt-in-confirmation/body.txt": "Confirm {{ topic.title }}: {{ confirm_url }}\n",
    "templates/sms/short/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/short/body.txt": "{{ shop.name }}: news. Stop: {{ unsubscribe_url }}\n",
}


@dataclass(frozen=True)
class OwnPages:
    """Anna, who gets offers by e-mail, and has a phone; it is noon in London."""

    shop: SmallShop
    anna: int

    @property
    def database(self) -> Engine:
        return self.shop.database

    def one(self, query: str, **values: Any) -> Any:
        with self.database.connect() as connection:
            return connection.execute(text(query), values).scalar()

    def do(self, statement: str, **values: Any) -> None:
        with self.database.begin() as connection:
            connection.execute(text(statement), values)

    def address(self, channel: str = "email") -> int:
        return int(self.one(f"SELECT {channel}_address_id FROM contact WHERE id = :id", id=self.anna))

    def hand_over(self) -> None:
        """Leave what waits for her on the wire: authorised, and nobody knows yet whether it left."""
        self.do(
            """UPDATE message SET status = 'sending', authorised_at = clock_timestamp(), address_id = :address,
                      send_deadline = clock_timestamp() WHERE contact_id = :id""",
            id=self.anna,
            address=self.address(),
        )

    def page(self, channel: str = "email") -> str:
        """The path of her preference centre, as messages on this channel link to it."""
        way = WayHome(self.anna, channel, self.address(channel))
        return f"/p/{PreferenceTokens(self.shop.key_ring).make(way)}"

    def way_out(self) -> str:
        return f"/u/{UnsubscribeTokens(self.shop.key_ring).make(self.anna, 'email', 'offers', self.address())}"

    def state(self, topic: str = "offers", channel: str = "email") -> str:
        with self.database.connect() as connection:
            held = {(one.channel, one.topic): one.state for one in consent.state_of(connection, self.anna)}
        return held.get((channel, topic), "none")

    def mails(self) -> list[dict[str, Any]]:
        """Send what is due, and return everything that was accepted."""
        self.shop.send()
        log = self.shop.home / "sandbox" / "outbox.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def link_in_mail(self, kind: str) -> str:
        """The path of the newest link of a kind (`m`, `d`, `p` ...) in a message to her."""
        texts = [mail["text"] for mail in self.mails()]
        found = [match[0] for words in texts for match in re.finditer(rf"/{kind}/[\w.-]+", words)]
        return found[-1]

    def audited(self) -> list[tuple[str, str]]:
        with self.database.connect() as connection:
            rows = connection.execute(
                text("SELECT action, subject FROM audit WHERE actor = 'preference centre' ORDER BY id")
            )
            return [(row.action, row.subject) for row in rows]


def make_pages(database: Engine, key_ring: KeyRing, home: Path) -> OwnPages:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(home / "workspace", WORKSPACE)), by="test")
        clock.shift(connection, until_noon(), sandbox_only=True)
        anna = add_person(
            connection, key_ring, "anna", email="anna@mail.example", phone="+447700900123", zone="Europe/London"
        )
    return OwnPages(SmallShop(database, key_ring, home), anna)


class Fields(HTMLParser):
    """The forms of a page, each as what a browser would send if nothing was touched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.forms: list[list[tuple[str, str]]] = []
        self._selected: str | None = None
        self._select = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append([])
        elif tag == "select":
            self._select = values["name"]
        elif tag == "option" and "selected" in values:
            self.forms[-1].append((self._select, values["value"]))
        elif tag == "input" and "disabled" not in values:
            ticked = values.get("type") not in ("checkbox", "radio") or "checked" in values
            if ticked:
                self.forms[-1].append((values["name"], values.get("value", "on")))

    def form(self, do: str) -> list[tuple[str, str]]:
        return next(fields for fields in self.forms if ("do", do) in fields)


def encoded(fields: list[tuple[str, str]]) -> str:
    return urlencode(fields)
