"""A shop that both storefronts tell of what happens there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flows import Flows
from sqlalchemy import Engine, text
from storefronts import MAIL_CONSENT, as_sent, email_consent, sign
from web_server import Answer, Web

from dispatcher import consent, figures, mailroom
from dispatcher.contacts import find_contact, personal_of
from dispatcher.feedback import inbox
from dispatcher.keys import KeyRing
from dispatcher.storefronts import counting

NEW, OLD = "a-new-secret", "an-old-secret"


@dataclass(frozen=True)
class Shop:
    """A shop that both storefronts tell of what happens there."""

    web: Web
    flows: Flows
    database: Engine
    key_ring: KeyRing

    def post(self, path: str, body: bytes, secret: str = NEW, **headers: str) -> Answer:
        by = "X-Shopify-Hmac-Sha256" if "shopify" in path else "X-WC-Webhook-Signature"
        said = {"Content-Type": "application/json", by: sign(secret, body)}
        return self.web.ask(
            "POST", path, body, said | {name.replace("_", "-"): value for name, value in headers.items()}
        )

    def tell(self, topic: str, body: Any, *, secret: str = NEW) -> None:
        """Let the storefront whose topic this is tell it, and have it answered."""
        shopify = "/" in topic or "__" in topic
        headers = {"X_Shopify_Topic" if shopify else "X_WC_Webhook_Topic": topic}
        answer = self.post("/hooks/shopify" if shopify else "/hooks/woocommerce", as_sent(body), secret, **headers)
        assert (answer.status, answer.body) == (200, b"")

    def sort(self) -> None:
        inbox.sort_all(self.database, self.key_ring, mailroom.take)

    def told(self, topic: str, body: Any) -> None:
        self.tell(topic, body)
        self.sort()

    def rows(self, query: str, **values: Any) -> list[Any]:
        with self.database.connect() as connection:
            return [tuple(row) if len(row) > 1 else row[0] for row in connection.execute(text(query), values)]

    def find(self, wanted: str) -> int:
        with self.database.connect() as connection:
            return find_contact(connection, self.key_ring, wanted)

    def personal(self, wanted: str) -> Any:
        with self.database.connect() as connection:
            return personal_of(connection, self.key_ring, find_contact(connection, self.key_ring, wanted))

    def consents(self, wanted: str) -> dict[tuple[str, str], str]:
        with self.database.connect() as connection:
            held = consent.state_of(connection, find_contact(connection, self.key_ring, wanted))
        return {
            (one.channel, one.topic): one.state for one in held if one.for_present_address or one.state == "withdrawn"
        }

    def events(self, name: str = "%") -> Counter[str]:
        return Counter(self.rows("SELECT source_key FROM event WHERE name LIKE :name", name=name))

    def counts(self) -> dict[tuple[str, str], int]:
        with self.database.connect() as connection:
            return {(one.topic, one.outcome): one.requests for one in counting.counts(connection)}

    def kept(self) -> list[inbox.Kept]:
        with self.database.connect() as connection:
            return inbox.list_kept(connection, self.key_ring)

    def figures(self) -> dict[figures.Key, float]:
        with self.database.connect() as connection:
            return figures.read(connection)

    @property
    def now(self) -> datetime:
        return self.flows.now


def ago(shop: Shop, **how_long: float) -> str:
    return (shop.now - timedelta(**how_long)).isoformat()


def subscribe(shop: Shop) -> None:
    shop.told(MAIL_CONSENT, email_consent(77, "subscribed", ago(shop, days=5)))
