"""A shop that asks for a confirmation, and what the tests ask of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from ledger import SmallShop
from people import add_address
from small_workspace import FILES
from sqlalchemy import Connection, Engine, text
from unsubscribing import everything

from dispatcher import consent, opt_in, unsubscribe
from dispatcher.contacts import hold_contact
from dispatcher.keys import KeyRing
from dispatcher.shop import load_shop
from dispatcher.tokens import BadToken, WayIn, WayOut

TOPIC = "letters"
WORKSPACE: dict[str, str | None] = {
    "dispatcher.toml": FILES["dispatcher.toml"].replace(
        'title = {en = "Letters"}\nchannels = ["email"]',
        'title = {en = "Letters", de = "Briefe"}\nchannels = ["email", "sms"]\ndouble_opt_in = true',
    ).replace('sms = ["20:00-09:00"]', "sms = []"),
    "campaigns/letter.yaml": "name: letter\nchannel: email\ntopic: letters\nsegment: everybody\ntemplate: christmas\n",
    "templates/email/opt-in-confirmation/meta.yaml": "class: transactional\n",
    "templates/email/opt-in-confirmation/subject.txt": "Confirm {{ topic.title }}\n",
    "templates/email/opt-in-confirmation/body.html":
        '<html lang="en"><body><p><a href="{{ confirm_url }}">Yes, {{ topic.title }}</a></p></body></html>\n',
    "templates/sms/opt-in-confirmation/meta.yaml": "class: transactional\nurgent: true\n",
    "templates/sms/opt-in-confirmation/body.txt": "Confirm {{ topic.title }}: {{ confirm_url }}\n",
}  # fmt: skip


@dataclass(frozen=True)
class House:
    """A shop whose topic `letters` needs a confirmed opt-in, and what can be done in it."""

    shop: SmallShop
    anna: int

    @property
    def database(self) -> Engine:
        return self.shop.database

    @property
    def key_ring(self) -> KeyRing:
        return self.shop.key_ring

    def one(self, query: str, **values: Any) -> Any:
        with self.database.connect() as connection:
            return connection.execute(text(query), values).scalar()

    def request(self, contact: str = "anna", channel: str = "email", topic: str = TOPIC) -> opt_in.Asked:
        with self.database.begin() as connection:
            held = hold_contact(connection, self.key_ring, contact, channel)
            return opt_in.request(
                connection, self.key_ring, load_shop(connection), held, topic, actor="person", source="form"
            )

    def way_in(self, asked: opt_in.Asked, contact_id: int | None = None, channel: str = "email") -> WayIn:
        contact_id = contact_id or self.anna
        address = self.address(contact_id, channel)
        assert asked.request_id is not None
        return WayIn(contact_id, channel, TOPIC, address, asked.request_id)

    def confirm(self, way_in: WayIn) -> opt_in.Offer:
        with self.database.begin() as connection:
            return opt_in.confirm(
                connection, self.key_ring, way_in, sealed={"ip": "192.0.2.9", "user_agent": "Firefox"}
            )

    def withdraw(self, topic: str = TOPIC, channel: str = "email") -> None:
        way_out = WayOut(self.anna, channel, topic, self.address(self.anna, channel))
        assert unsubscribe.withdraw(self.database, self.key_ring, way_out, source="link").status == unsubscribe.DONE

    def address(self, contact_id: int, channel: str = "email") -> int:
        return int(self.one(f"SELECT {channel}_address_id FROM contact WHERE id = :id", id=contact_id))

    def state(self, channel: str = "email", topic: str = TOPIC) -> tuple[str, bool]:
        with self.database.connect() as connection:
            held = {(one.channel, one.topic): one for one in consent.state_of(connection, self.anna)}
        one = held.get((channel, topic))
        return (one.state, one.confirmed) if one else ("none", False)

    def mails(self) -> list[dict[str, Any]]:
        log = self.shop.home / "sandbox" / "outbox.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _move(connection: Connection, house: House, email: str) -> None:
    address_id = add_address(connection, house.key_ring, "email", email)
    connection.execute(
        text("UPDATE contact SET email_address_id = :address, version = version + 1 WHERE id = :id"),
        {"address": address_id, "id": house.anna},
    )


def refused(house: House, way_in: WayIn) -> None:
    before = everything(house.database)
    with pytest.raises(BadToken):
        house.confirm(way_in)
    with house.database.connect() as connection, pytest.raises(BadToken):
        opt_in.look(connection, way_in)
    assert everything(house.database) == before
