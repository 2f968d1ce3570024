"""Bodies read as if they came from one shop, at one moment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from storefronts import as_sent

from dispatcher.storefronts import shopify, woocommerce
from dispatcher.storefronts.reading import Reading, Told, load

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
INTERESTS = ("product_type", "category", "tags", "vendor")


def guest(channel: str, normal: str) -> str:
    return f"guest:{channel}:{normal}"


def read_shopify(topic: str, body: Any, interests: tuple[str, ...] = INTERESTS) -> Told | None:
    return shopify.read(topic, load(as_sent(body)), Reading("shopify", NOW, interests, guest))


def read_woocommerce(topic: str, body: Any, interests: tuple[str, ...] = INTERESTS) -> Told | None:
    return woocommerce.read(topic, load(as_sent(body)), Reading("woocommerce", NOW, interests, guest))


def told(topic: str, body: Any, **more: Any) -> Told:
    found = (read_woocommerce if "." in topic else read_shopify)(topic, body, **more)
    assert found is not None
    return found
