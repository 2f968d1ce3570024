"""Requests of storefronts as the inbox hands them on, and the moments they speak of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from storefronts import as_sent

from dispatcher.feedback import inbox

BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=6)


def at(minutes: int) -> str:
    return (BEGAN + timedelta(minutes=minutes)).isoformat()


def mail_of(topic: str, body: Any) -> inbox.Mail:
    shopify = "/" in topic
    headers = {"x-shopify-topic" if shopify else "x-wc-webhook-topic": topic}
    return inbox.Mail("shopify" if shopify else "woocommerce", as_sent(body), "", "", datetime.now(UTC), headers)
