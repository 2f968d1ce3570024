"""Somebody who may click the link, and what the ledger says of them afterwards."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from ledger_rows import add_contact, add_message
from sqlalchemy import Connection, Engine, text
from web_server import Answer, Web

from dispatcher import clock, consent
from dispatcher.consent import ConsentChange
from dispatcher.keys import KeyRing
from dispatcher.tokens import UnsubscribeTokens

ONE_CLICK = {"Content-Type": "application/x-www-form-urlencoded"}
BODY = b"List-Unsubscribe=One-Click"
SHOP = {
    "shop": {"name": "Example Shop", "from_email": "hello@shop.example", "postal_address": "1 High Street, London"},
    "topics": {"offers": {"title": {"en": "Offers", "de": "Angebote", "ro": "Oferte"}, "channels": ["email", "sms"]}},
}


@dataclass(frozen=True)
class Person:
    contact_id: int
    address_id: int
    token: str
    pending: object


def add_person(database: Engine, key_ring: KeyRing) -> Person:
    """Return somebody with granted consent, and a message that waits for its turn."""
    with database.begin() as connection:
        connection.execute(text("UPDATE engine SET shop = CAST(:shop AS jsonb)"), {"shop": json.dumps(SHOP)})
        contact_id = add_contact(connection, key_ring, "c1", email="jane@good.example")
        address_id = present_address(connection, contact_id)
        grant(connection, key_ring, contact_id, address_id)
        pending = add_message(connection, contact_id, address_id)
    return Person(
        contact_id, address_id, UnsubscribeTokens(key_ring).make(contact_id, "email", "offers", address_id), pending
    )


def grant(connection: Connection, key_ring: KeyRing, contact_id: int, address_id: int, channel: str = "email") -> None:
    now = clock.read_now(connection)
    change = ConsentChange(contact_id, channel, "offers", "granted", "person", "a test", now, address_id)
    consent.record(connection, key_ring, [change], now=now)


def present_address(connection: Connection, contact_id: int, channel: str = "email") -> int:
    return connection.execute(
        text(f"SELECT {channel}_address_id FROM contact WHERE id = :id"), {"id": contact_id}
    ).scalar_one()


def consent_state(database: Engine, contact_id: int, channel: str = "email") -> str | None:
    with database.connect() as connection:
        states = consent.state_of(connection, contact_id)
    return next((held.state for held in states if (held.channel, held.topic) == (channel, "offers")), None)


def message(database: Engine, message_id: object) -> tuple[str, str | None]:
    with database.connect() as connection:
        row = connection.execute(text("SELECT status, reason FROM message WHERE id = :id"), {"id": message_id}).one()
        return row.status, row.reason


def everything(database: Engine) -> str:
    """A fingerprint of every row of every table, but for how many requests there were."""
    digest = hashlib.sha256()
    with database.connect() as connection:
        tables = connection.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'figure' ORDER BY 1")
        ).all()
        for table in tables:
            rows = connection.scalars(text(f"SELECT t::text || t.xmin::text || t.ctid::text FROM {table} t")).all()
            digest.update(repr((table, sorted(rows))).encode())
    return digest.hexdigest()


def answers(database: Engine) -> list[tuple[int | None, datetime | None]]:
    with database.connect() as connection:
        return [tuple(r) for r in connection.execute(text("SELECT answer, answered_at FROM unsubscribe ORDER BY id"))]


def events(database: Engine, action: str = "withdrawn") -> int:
    with database.connect() as connection:
        return connection.execute(
            text("SELECT count(*) FROM consent_event WHERE action = :action"), {"action": action}
        ).scalar_one()


def post(web: Web, token: str, **headers: str) -> Answer:
    return web.ask("POST", f"/u/{token}", BODY, ONE_CLICK | headers)
