"""A shop's ledger as the product itself writes it: planned, sent, refused, retried, unsubscribed, merged, cancelled."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from people import add_person
from small_workspace import FILES, write_workspace
from sqlalchemy import Connection, Engine, text

from dispatcher import audit_chain, clock, identity, messages, release, rights, runs, unsubscribe
from dispatcher.apply import apply
from dispatcher.consent import ConsentChange, record
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts
from dispatcher.plan import plan_page
from dispatcher.providers.sandbox import Sandbox
from dispatcher.registration import register
from dispatcher.rendering import Sender
from dispatcher.sending import Hands, send_batch
from dispatcher.tokens import WayOut
from dispatcher.workspace import read_workspace

RULES = FILES["dispatcher.toml"].replace(
    'max = 1\nwindow = "24h"',
    'max = 2\nwindow = "24h"\n[[caps]]\nname = "weekly"\nmax = 3\ncalendar = "week"',
)
WORKSPACE = {
    "dispatcher.toml": RULES,
    "campaigns/again.yaml": FILES["campaigns/hello.yaml"].replace("hello", "again"),
    "campaigns/third.yaml": FILES["campaigns/hello.yaml"].replace("hello", "third"),
    "campaigns/texts.yaml": (
        "name: texts\nchannel: sms\ntopic: offers\nsegment: everybody\ntemplate: short\n"
    ),
    "templates/sms/short/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/short/body.txt": "{{ shop.name }}: the shelf is full again.\nStop: {{ unsubscribe_url }}\n",
}  # fmt: skip


@dataclass(frozen=True)
class Ledger:
    """A shop that has been at work for a while."""

    database: Engine
    key_ring: KeyRing
    home: Path

    @property
    def log(self) -> Path:
        """What the sandbox accepted."""
        return self.home / "sandbox" / "outbox.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]


def make_ledger(database: Engine, key_ring: KeyRing, home: Path) -> Ledger:
    """Let a small shop live through a noon: fourteen people, five runs, an order, and most of what can happen."""
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(home / "workspace", WORKSPACE)), by="test")
        clock.shift(connection, until_noon(), sandbox_only=True)
        connection.execute(text("INSERT INTO lane (name, rate_per_second, burst) VALUES ('email.marketing', 500, 100)"))
        people = [add_person(connection, key_ring, f"p{number:02}") for number in range(10)]
        add_person(connection, key_ring, "no-consent", granted=())
        add_person(connection, key_ring, "p-phone", phone="+447700900001", email=None, granted=(("sms", "offers"),))
        add_person(connection, key_ring, "p-both", phone="+447700900002",
                   granted=(("sms", "offers"), ("email", "offers")))  # fmt: skip
        add_person(connection, key_ring, "p-gone", granted=(("email", "offers"),))
    shop = SmallShop(database, key_ring, home)
    shop.tell_sandbox(reject=["p03"], not_sent=["p04"], unknown=["p05"])
    shop.campaign("hello")
    shop.tell_sandbox()
    shop.wait(timedelta(minutes=1))
    shop.send()  # p04 again
    shop.unsubscribe(people[6])
    shop.merge(people[8], people[9])
    shop.campaign("again")
    shop.grant_again(people[6])
    shop.campaign("third")
    shop.campaign("texts")
    shop.order("p00")
    shop.cancelled_campaign("hello")
    shop.plan("texts")  # and not sent yet
    rights.erase(database, key_ring, people[7], by="test")
    audit_chain.link_new(database)
    return Ledger(database, key_ring, home)


def make_noon(connection: Connection) -> None:
    """Set the engine's clock to a working day's noon in London."""
    clock.shift(connection, until_noon(), sandbox_only=True)


def until_noon() -> timedelta:
    """Return how far it is to the next noon in London: no place is asleep, whenever the test runs."""
    now = datetime.now(UTC)
    day = now.astimezone(ZoneInfo("Europe/London")).date() + timedelta(days=1)
    return datetime.combine(day, time(12), ZoneInfo("Europe/London")) - now


class SmallShop:
    def __init__(self, database: Engine, key_ring: KeyRing, home: Path) -> None:
        self.database, self.key_ring, self.home = database, key_ring, home
        registration = register(database, home, kind="marketing", queues=["email.marketing", "sms.marketing"], slots=2)
        folder = home / "sandbox"
        self.hands = Hands(
            database,
            Sender(key_ring, "https://shop.example"),
            {"email": Sandbox(folder, "email"), "sms": Sandbox(folder, "sms")},
            registration.worker_id,
            threading.Event(),
        )

    def tell_sandbox(self, **faults: list[str]) -> None:
        (self.home / "sandbox" / "faults.json").write_text(json.dumps(faults))

    def plan(self, name: str, *, cancelled: bool = False) -> None:
        with self.database.begin() as connection:
            run_id = runs.start(connection, name, started_by="test", again=True)
            if cancelled:
                runs.cancel(connection, run_id, by="test")
        while plan_page(self.database, run_id):
            pass

    def campaign(self, name: str) -> None:
        self.plan(name)
        self.send()

    def cancelled_campaign(self, name: str) -> None:
        self.plan(name, cancelled=True)
        release.release(self.database)

    def send(self) -> None:
        release.release(self.database)
        with self.database.connect() as connection:
            ready = connection.scalars(text("SELECT id FROM batch WHERE state = 'ready' ORDER BY id")).all()
        for batch_id in ready:
            send_batch(self.hands, batch_id)
        release.release(self.database)

    def wait(self, duration: timedelta) -> None:
        with self.database.begin() as connection:
            offset = connection.scalar(text("SELECT clock_offset FROM engine"))
            clock.shift(connection, offset + duration, sandbox_only=True)

    def unsubscribe(self, contact_id: int) -> None:
        with self.database.connect() as connection:
            address_id = connection.scalar(
                text("SELECT email_address_id FROM contact WHERE id = :id"), {"id": contact_id}
            )
        way_out = WayOut(contact_id, "email", "offers", address_id)
        answer = unsubscribe.withdraw(self.database, self.key_ring, way_out, source="test")
        assert answer.status == unsubscribe.DONE

    def grant_again(self, contact_id: int) -> None:
        with self.database.begin() as connection:
            address_id = connection.scalar(
                text("SELECT email_address_id FROM contact WHERE id = :id"), {"id": contact_id}
            )
            lock_contacts(connection, [contact_id])
            lock_addresses(connection, [address_id])
            change = ConsentChange(
                contact_id, "email", "offers", "granted", "person", "form", address_id=address_id
            )  # fmt: skip
            record(connection, self.key_ring, [change], now=clock.read_now(connection))

    def merge(self, one: int, other: int) -> None:
        with self.database.begin() as connection:
            identity.merge(connection, self.key_ring, one, other)

    def order(self, external_id: str) -> None:
        with self.database.begin() as connection:
            wish = messages.Wish("order", "email", external_id, {})
            messages.submit(connection, self.key_ring, wish, client="shop", idempotency_key="order-1")
        self.send()


@contextmanager
def tampered(ledger: Ledger) -> Iterator[Connection]:
    """A connection on which the database refuses nothing; all that is done on it is undone."""
    with ledger.database.connect() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        yield connection
        connection.rollback()
