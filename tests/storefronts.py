"""Storefronts, for tests: bodies as Shopify and WooCommerce write them, signed as they sign."""

from __future__ import annotations

import base64
import hmac
import json
from pathlib import Path
from typing import Any

MAIL_CONSENT = "customers_email_marketing_consent/update"
TEXT_CONSENT = "customers_marketing_consent/update"
#: Which topic a sample body is of, where its file is not named after it.
_EXEMPLARS = {"orders": "orders/create", "checkouts": "checkouts/update"}
_REST = {"order": "orders/create", "customer": "customers/update", "abandoned_checkout": "checkouts/create"}
_VERBS = {"create": "created", "retrieve": "updated", "update": "updated", "list": "updated", "delete": "deleted"}


def sign(secret: str, body: bytes) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), body, "sha256")).decode()


def as_sent(body: Any) -> bytes:
    """Return a body as JSON, and one that is bytes already as it is."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def shopify_samples(webhooks: Path) -> list[tuple[str, str, bytes]]:
    """Return (file, topic, body) of every sample."""
    found = []
    for path in sorted((webhooks / "shopify").glob("*/*.json")):
        kind = path.stem.split("__")[1] if "__" in path.stem else path.stem
        topic = path.stem.replace("__", "/")
        if path.parent.name == "exemplars":
            topic = _EXEMPLARS.get(kind, f"{kind}/update")
        elif path.parent.name == "rest":
            topic = _REST.get(kind, f"{kind}s/create")
        if path.name != "_index.json":
            found.append((f"{path.parent.name}/{path.name}", topic, path.read_bytes()))
    replicas = json.loads((webhooks / "webhookdb" / "shopify_order_v1.json").read_bytes())
    found += [
        (f"webhookdb/order/{n}", "orders/create", _dump(body)) for n, body in enumerate(_flat(replicas, "orders"))
    ]
    replicas = json.loads((webhooks / "webhookdb" / "shopify_customer_v1.json").read_bytes())
    bodies = enumerate(_flat(replicas, "customers"))
    return found + [(f"webhookdb/customer/{n}", "customers/update", _dump(body)) for n, body in bodies]


def _flat(bodies: list[Any], name: str) -> list[Any]:
    """Return the bodies; what came as an answer to a list is taken out of it."""
    return [one for body in bodies for one in body.get(name, [body])]


def _dump(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def woocommerce_samples(webhooks: Path) -> list[tuple[str, str, bytes]]:
    """Return (file, topic, body) of every sample."""
    found = []
    for path in sorted((webhooks / "woocommerce").glob("*.json")):
        kind, _, what = path.stem.split("__")
        found.append((path.name, f"{kind}.{_VERBS[what.split('-')[0]]}", path.read_bytes()))
    return found


def shopify_order(number: int = 1001, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "name": f"#{number}",
        "email": "ana@people.example",
        "created_at": "2026-11-20T10:00:00-05:00",
        "processed_at": "2026-11-20T09:59:58-05:00",
        "currency": "EUR",
        "total_price": "24.50",
        "checkout_token": "cart-1",
        "buyer_accepts_marketing": True,
        "customer": {"id": 77, "email": "Ana@People.example", "first_name": "Ana", "last_name": "Pop",
                     "phone": None, "default_address": {"country_code": "RO", "province_code": "CJ", "zip": "400001"}},
        "customer_locale": "ro",
        "line_items": [{"title": "Lantern", "price": "12.25", "quantity": 2, "vendor": "Lumina", "sku": "L-1",
                        "product_id": 5, "properties": [{"name": "product_type", "value": "christmas"}],
                        "discount_allocations": []}],
    } | changes  # fmt: skip


def shopify_checkout(token: str = "cart-1", **changes: Any) -> dict[str, Any]:
    order = shopify_order()
    return {
        "id": 1,
        "token": token,
        "email": "ana@people.example",
        "created_at": "2026-11-20T09:30:00-05:00",
        "updated_at": "2026-11-20T09:30:00-05:00",
        "completed_at": None,
        "currency": "EUR",
        "total_price": "24.50",
        "abandoned_checkout_url": "https://shop.example/recover?key=secret",
        "customer": order["customer"],
        "line_items": order["line_items"],
    } | changes


def shopify_customer(number: int = 77, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "email": "ana@people.example",
        "first_name": "Ana",
        "last_name": "Pop",
        "phone": "+40712345678",
        "created_at": "2026-11-01T10:00:00Z",
        "updated_at": "2026-11-01T10:00:00Z",
        "default_address": {"country_code": "RO", "province_code": "CJ", "zip": "400001"},
    } | changes


def shopify_merge(kept: int, gone: int) -> dict[str, Any]:
    ids = {"kept": kept, "deleted": gone}
    return {f"admin_graphql_api_customer_{which}_id": f"gid://shopify/Customer/{n}" for which, n in ids.items()} | {
        "admin_graphql_api_job_id": None, "status": "completed", "errors": []}  # fmt: skip


def email_consent(
    number: int, state: str | None, at: str | None, *, email: str = "ana@people.example"
) -> dict[str, Any]:
    said = {"state": state, "opt_in_level": "single_opt_in", "consent_updated_at": at}
    return {"customer_id": number, "email_address": email, "email_marketing_consent": said}


def sms_consent(
    number: int, state: str | None, at: str | None, *, phone: str | None = "+40712345678"
) -> dict[str, Any]:
    said = {
        "state": state,
        "opt_in_level": "single_opt_in",
        "consent_updated_at": at,
        "consent_collected_from": "SHOPIFY",
    }
    return {"id": number, "phone": phone, "sms_marketing_consent": said}


def woocommerce_order(number: int = 500, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "number": str(number),
        "status": "processing",
        "currency": "EUR",
        "date_created_gmt": "2026-11-20T15:00:00",
        "date_modified_gmt": "2026-11-20T15:00:05",
        "date_paid_gmt": "2026-11-20T15:00:04",
        "total": "30.00",
        "customer_id": 9,
        "billing": {"first_name": "Ben", "last_name": "Pop", "email": "ben@people.example", "phone": "020 7946 0000",
                    "country": "GB", "state": "", "postcode": "EC1A 7JQ"},
        "meta_data": [{"id": 1, "key": "_newsletter_opt_in", "value": "yes"}],
        "line_items": [{"id": 1, "name": "Tea &amp; Cake", "product_id": 3, "quantity": 3, "total": "30.00",
                        "price": 10, "sku": "T-1", "meta_data": [{"key": "category", "value": "kitchen"}]}],
    } | changes  # fmt: skip


def woocommerce_customer(number: int = 9, **changes: Any) -> dict[str, Any]:
    billing = woocommerce_order()["billing"]
    return {
        "id": number,
        "email": "ben@people.example",
        "first_name": "Ben",
        "last_name": "Pop",
        "date_created_gmt": "2026-11-01T10:00:00",
        "date_modified_gmt": "2026-11-01T10:00:00",
        "billing": billing,
        "meta_data": [{"id": 1, "key": "mailchimp_woocommerce_is_subscribed", "value": "1"}],
    } | changes
