"""A shop with triggers, for tests: people, events as the shop writes them, and a worker that sends what is due."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from small_workspace import FILES, write_workspace
from sqlalchemy import Engine, Row, text

from dispatcher import clock, release
from dispatcher.apply import apply
from dispatcher.events import Event, Recorded, record_events
from dispatcher.keys import KeyRing
from dispatcher.providers.sandbox import Sandbox
from dispatcher.registration import register
from dispatcher.rendering import Sender
from dispatcher.sending import Hands, send_batch
from dispatcher.triggers.arrivals import Starting
from dispatcher.workspace import read_workspace

CART = """\
name: abandoned-cart
on: checkout.started
key: "{{ event.cart_id }}"
after: 1h
unless: {event: order.placed, since: trigger}
cancel: checkout.cancelled
channel: email
template: cart
expires_after: 24h
"""
TRIGGERS: dict[str, str | None] = {
    "dispatcher.toml": FILES["dispatcher.toml"].replace("max = 1\n", "max = 100\n"),
    "triggers/abandoned-cart.yaml": CART,
    "triggers/order-confirmation.yaml": (
        'name: order-confirmation\non: order.placed\nkey: "{{ event.source_key }}"\nchannel: email\ntemplate: thanks\n'
    ),
    "templates/email/cart/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/email/cart/subject.txt": "Cart {{ event.cart_id }} of {{ event.value }}\n",
    "templates/email/cart/body.html": FILES["templates/email/christmas/body.html"].replace(
        "<p>Hello", "<p>{{ event.occurred_at }}</p><p>Hello"
    ),
    "templates/email/thanks/meta.yaml": "class: transactional\n",
    "templates/email/thanks/subject.txt": "Order {{ event.source_key }}\n",
    "templates/email/thanks/body.html": FILES["templates/email/order/body.html"],
}  # fmt: skip


@dataclass(frozen=True)
class Flows:
    """A shop whose events start messages."""

    database: Engine
    key_ring: KeyRing
    home: Path
    hands: Hands

    @property
    def now(self) -> datetime:
        with self.database.connect() as connection:
            return clock.read_now(connection)

    def apply(self, changes: dict[str, str | None] | None = None) -> dict[str, str]:
        """Apply the workspace with some files changed; return what became of its triggers."""
        for file in (self.home / "workspace").rglob("*.yaml"):
            file.unlink()
        folder = write_workspace(self.home / "workspace", TRIGGERS | (changes or {}))
        with self.database.begin() as connection:
            changed = apply(connection, read_workspace(folder), by="test")
        return {change.name: change.action for change in changed if change.kind == "trigger"}

    def arrive(self, *events: Event, starting: Starting = Starting.UNTIL_EXPIRY) -> Recorded:
        with self.database.begin() as connection:
            return record_events(connection, self.key_ring, events, starting=starting)

    def wait(self, duration: timedelta) -> None:
        with self.database.begin() as connection:
            offset = connection.scalar(text("SELECT clock_offset FROM engine"))
            clock.shift(connection, offset + duration, sandbox_only=True)

    def send(self) -> None:
        """Send what is due."""
        release.release(self.database)
        with self.database.connect() as connection:
            ready = connection.scalars(text("SELECT id FROM batch WHERE state = 'ready' ORDER BY id")).all()
        for batch_id in ready:
            send_batch(self.hands, batch_id)
        release.release(self.database)

    def messages(self) -> list[Row[Any]]:
        with self.database.connect() as connection:
            return list(
                connection.execute(
                    text("""SELECT m.*, COALESCE(m.reason, m.deferred_reason) AS because, r.name, r.occurrence_key,
                                   r.lane, c.external_id FROM message m
                            JOIN run r ON r.id = m.run_id JOIN contact c ON c.id = m.contact_id ORDER BY m.id""")
                )
            )

    def became(self) -> Counter[str]:
        return Counter(row.because or row.status for row in self.messages())

    def mails(self) -> list[dict[str, Any]]:
        log = self.home / "sandbox" / "outbox.jsonl"
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def make_flows(database: Engine, key_ring: KeyRing, home: Path) -> Flows:
    """Return the shop, its workspace applied."""
    worker = register(database, home, kind="marketing", queues=["email.marketing", "email.transactional"], slots=2)
    sandbox = Sandbox(home / "sandbox", "email")
    hands = Hands(
        database, Sender(key_ring, "https://shop.example"), {"email": sandbox}, worker.worker_id, threading.Event()
    )
    flows = Flows(database, key_ring, home, hands)
    flows.apply()
    return flows


_numbers = iter(range(1, 10**9))


def event(name: str, at: datetime, contact: str = "ana", *, key: str = "", value: int = 10, **properties: Any) -> Event:
    """Return an event; its key is new unless given."""
    return Event(key or f"e{next(_numbers):09}", contact, name, at, Decimal(value), properties)


def cart(at: datetime, contact: str = "ana", cart_id: str = "cart-1", **more: Any) -> Event:
    return event("checkout.started", at, contact, cart_id=cart_id, **more)


def order(at: datetime, contact: str = "ana", **more: Any) -> Event:
    return event("order.placed", at, contact, **more)
