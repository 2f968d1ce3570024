"""Whatever is wrong in a body, it is read as far as it goes, or not understood."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from reading_bodies import NOW, told
from storefronts import (
    MAIL_CONSENT,
    TEXT_CONSENT,
    email_consent,
    shopify_checkout,
    shopify_customer,
    shopify_merge,
    shopify_order,
    sms_consent,
    woocommerce_customer,
    woocommerce_order,
)

from dispatcher.event_json import AHEAD
from dispatcher.feedback.inbox import NotUnderstood
from dispatcher.storefronts.reading import load


@pytest.mark.parametrize(
    ("topic", "body", "reason"),
    [
        ("orders/create", {"id": 1}, "lacks line_items"),
        ("orders/create", {"id": "x", "line_items": []}, "id is missing"),
        ("customers/redact", {"customer": {"id": 1}, "data_request": {"id": 2}}, "lacks orders_to_redact"),
        ("customers/redact", {"customer": {"phone": "1"}, "orders_to_redact": []}, "who is to be erased"),
        ("shop/redact", {"shop_id": 1, "shop_domain": "x", "customer": {}}, "about a shop"),
        ("customers/update", {"id": 1}, "about a customer"),
        ("customers/update", shopify_order(), "about a customer"),
        ("order.created", {"id": 1, "email": "a@b.example", "billing": {}}, "lacks status"),
        ("customer.updated", {"id": 0, "email": "a@b.example", "billing": {}}, "id is missing"),
    ],
)
def test_a_body_that_is_not_of_its_topic_is_not_understood(topic: str, body: Any, reason: str) -> None:
    with pytest.raises(NotUnderstood, match=reason):
        told(topic, body)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe{}", b"NaN", b'{"id": ' + b"9" * 5_000 + b"}",
                                  b"[" * 100_000, b'{"id": Infinity}'])  # fmt: skip
def test_nonsense_is_not_understood_whatever_it_is(body: bytes) -> None:
    with pytest.raises(NotUnderstood, match="not"):
        load(body)


def test_a_field_that_cannot_be_read_costs_nothing_else() -> None:
    order = shopify_order(
        total_price="a lot", created_at="yesterday", processed_at=None, currency=["EUR"], customer_locale=7,
        shipping_address=[], email="not an address",
        line_items=[{"title": None, "price": {}, "quantity": -2}, "x", None],
        customer={"id": 77, "email": "ana@people.example", "phone": "call me", "first_name": "A\0n\ud800a" + "x" * 999,
                  "default_address": {"country_code": "Narnia", "province_code": "Kentucky"}},
    )  # fmt: skip
    found = told("orders/create", order)
    [event], who = found.events, found.particulars

    assert who is not None
    assert (who.email, who.phone, who.country, who.subdivision, who.locale) == (
        "ana@people.example",
        None,
        None,
        None,
        None,
    )
    assert (event.value, event.occurred_at, event.properties.get("currency")) == (0, NOW, None)
    assert [(item.quantity, item.properties["name"]) for item in event.items] == [(1, "")]


def test_ids_beyond_what_javascript_can_count_are_kept_to_the_digit() -> None:
    found = told("customers/update", b'{"id": 706405506930370084, "first_name": null, "last_name": null}')
    assert found.customer_id == "706405506930370084"


def spoilt(body: Any, chance: random.Random) -> Any:
    """Return the body with some of its values replaced by others that JSON knows."""
    others = [None, True, "", "x" * 3_000, "\ud800\0", -1, 10**40, 1.5e308, [], [[]], {}, {"id": None}, [None, 1],
              "2026-13-45T99:99:99Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]  # fmt: skip
    if chance.random() < 0.08:
        return chance.choice(others)
    if isinstance(body, dict):
        return {name: spoilt(value, chance) for name, value in body.items() if chance.random() > 0.03}
    return [spoilt(value, chance) for value in body] if isinstance(body, list) else body


WHOLE: list[tuple[str, Any]] = [
    ("orders/create", shopify_order()),
    ("orders/cancelled", shopify_order(cancelled_at="2026-11-21T00:00:00Z", cancel_reason="customer")),
    ("checkouts/update", shopify_checkout()),
    ("customers/create", shopify_customer(email_marketing_consent={"state": "subscribed", "consent_updated_at": None})),
    ("customers/delete", {"id": 7}),
    ("customers/merge", shopify_merge(1, 2)),
    (MAIL_CONSENT, email_consent(7, "subscribed", "2026-11-02T10:00:00Z")),
    (TEXT_CONSENT, sms_consent(7, "subscribed", "2026-11-02T10:00:00Z")),
    ("customers/redact", {"customer": {"id": 7, "email": "a@b.example"}, "orders_to_redact": [1]}),
    ("customers/data_request", {"customer": {"id": 7}, "data_request": {"id": 8}, "orders_requested": [1]}),
    ("shop/redact", {"shop_id": 1, "shop_domain": "s.myshopify.com"}),
    ("order.updated", woocommerce_order(status="cancelled")),
    ("order.deleted", {"id": 7}),
    ("customer.created", woocommerce_customer()),
    ("customer.deleted", {"id": 7}),
]


@pytest.mark.parametrize(("topic", "body"), WHOLE, ids=[topic for topic, _ in WHOLE])
def test_whatever_is_wrong_in_a_body_it_is_read_or_not_understood(topic: str, body: Any) -> None:
    chance = random.Random(topic)
    for _ in range(300):
        raw = spoilt(body, chance)
        try:
            found = told(topic, json.dumps(raw).encode()) if isinstance(raw, dict) else None
        except NotUnderstood:
            continue
        for event in found.events if found else ():
            assert event.occurred_at <= NOW + AHEAD
            json.dumps(event.properties, allow_nan=False)
