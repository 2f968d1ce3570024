"""Every sample there is of what storefronts send, in our words."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path

from reading_bodies import read_shopify, told
from storefronts import shopify_samples, woocommerce_samples

from dispatcher.storefronts import woocommerce
from dispatcher.storefronts.reading import Told

HEEDED = {
    "orders/create", "orders/cancelled", "checkouts/create", "checkouts/update", "customers/create", "customers/update",
    "customers/delete", "customers/merge", "customers_email_marketing_consent/update",
    "customers_marketing_consent/update", "customers/data_request", "customers/redact", "shop/redact",
}  # fmt: skip
#: What the samples of Shopify's reference are about: contact, e-mail, events (name, source key, value), request.
REFERENCE: dict[str, tuple[str | None, str | None, list[tuple[str, str, str]], str | None]] = {
    "orders/create": ("shopify-115310627314723950", "john@example.com",
                      [("order.placed", "order-820982911946154500", "359.97")], None),
    "orders/cancelled": ("shopify-115310627314723950", "john@example.com",
                         [("order.cancelled", "order-820982911946154500-cancelled", "359.97")], None),
    "checkouts/create": ("shopify-603851970716743400", "john@example.com",
                         [("checkout.started", "checkout-123123123-", "421.88")], None),
    "checkouts/update": ("shopify-603851970716743400", "john@example.com",
                         [("checkout.started", "checkout-123123123-", "421.88")], None),
    "customers/create": ("shopify-706405506930370000", "bob@biller.com",
                         [("customer.created", "customer-706405506930370000-created", "0")], None),
    "customers/update": ("shopify-706405506930370000", "bob@biller.com", [], None),
    "customers/delete": ("shopify-706405506930370000", None,
                         [("customer.deleted", "customer-706405506930370000-deleted", "0")], None),
    "customers/merge": (None, None, [], None),  # the sample is of one that failed
    "customers_email_marketing_consent/update": ("shopify-706405506930370000", "bob@biller.com", [], None),
    "customers_marketing_consent/update": ("shopify-706405506930370000", None, [], None),
    "customers/data_request": ("shopify-191167", "john@example.com", [], "export"),
    "customers/redact": ("shopify-191167", "john@example.com", [], "erasure"),
    "shop/redact": (None, None, [], "shop_erasure"),
}  # fmt: skip
#: In the older reference the e-mail addresses of customers are left out; then the checkout's own counts.
OLDER_EMAIL = {"checkouts/create": "example@email.com", "checkouts/update": "example@email.com",
               "customers/create": None, "customers/update": None}  # fmt: skip


def test_every_topic_of_shopifys_reference_says_what_it_should(shared: Path) -> None:
    seen = Counter()
    for file, topic, body in shopify_samples(shared / "data/webhooks"):
        if not file.startswith("20"):
            continue
        found = read_shopify(topic, body)
        assert (found is not None) == (topic in HEEDED), file
        if found is None:
            continue
        contact, email, events, request = REFERENCE[topic]
        email = OLDER_EMAIL.get(topic, email) if file.startswith("2024-10") else email
        who = found.particulars
        assert (who and who.external_id, who and who.email) == (contact, email), file
        assert [(e.name, str(e.value)) for e in found.events] == [(name, value) for name, _, value in events], file
        assert all(e.source_key.startswith(key) for e, (_, key, _) in zip(found.events, events, strict=True)), file
        assert (found.request and found.request.kind) == request, file
        assert found.claims == (), file  # not_subscribed, or null: a box that was not ticked
        seen[topic] += 1
    assert set(seen.values()) == {2}
    assert set(seen) == HEEDED


def test_every_other_sample_of_shopify_is_read_as_it_is_written(shared: Path) -> None:
    """Captured bodies, the objects of the REST reference, and those of a replicator's tests."""
    seen: Counter[str] = Counter()
    for file, topic, body in shopify_samples(shared / "data/webhooks"):
        if file.startswith("20"):
            continue
        found, raw = read_shopify(topic, body), json.loads(body, parse_float=Decimal)
        assert (found is not None) == (topic in HEEDED), file
        if found is None:
            continue
        seen[topic] += 1
        customer = raw.get("customer") or ({} if "line_items" in raw else raw)
        number = customer.get("customer_id") or customer.get("id")
        if number is None and not raw.get("email"):
            assert found == Told(), file  # sold over the counter, to nobody we know
            continue
        assert found.particulars is not None
        assert found.particulars.external_id == (f"shopify-{number}" if number else f"guest:email:{raw['email']}"), file
        for event in found.events:
            total = raw["total_price"]
            assert event.value == (Decimal(total) if total != "example string" else 0), file
            assert [str(item.quantity) for item in event.items] == [str(line["quantity"]) for line in raw["line_items"]]
        if topic in ("orders/create", "checkouts/create", "checkouts/update"):
            done = raw.get("completed_at") is not None
            name = "order.placed" if "orders" in topic else "checkout.completed" if done else "checkout.started"
            assert [event.name for event in found.events] == [name], file
    assert seen == {"orders/create": 27, "checkouts/update": 7, "customers/update": 21, "checkouts/create": 1,
                    "customers_email_marketing_consent/update": 1, "customers_marketing_consent/update": 1}  # fmt: skip


def test_every_sample_of_woocommerce_says_what_it_should(shared: Path) -> None:
    expected = {
        "customer__01__create-a-customer.json": ("woocommerce-25", "John", ["customer.created"]),
        "customer__02__retrieve-a-customer.json": ("woocommerce-25", "John", []),
        "customer__04__update-a-customer.json": ("woocommerce-25", "James", []),
        "customer__05__delete-a-customer.json": ("woocommerce-25", None, ["customer.deleted"]),
        "order__01__create-an-order.json": ("guest:email:john.doe@example.com", "John", ["order.placed"]),
        "order__02__retrieve-an-order.json": ("guest:email:john.doe@example.com", "John", ["order.placed"]),
        "order__04__update-an-order.json": ("guest:email:john.doe@example.com", "John", ["order.placed"]),
        "order__05__delete-an-order.json": (None, None, ["order.deleted"]),
    }
    read = set()
    for file, topic, body in woocommerce_samples(shared / "data/webhooks"):
        if topic.split(".")[0] not in ("order", "customer"):
            assert topic not in woocommerce.TOPICS
            continue
        found = told(topic, body)
        who = found.particulars
        assert (who and who.external_id, who and who.first_name, [e.name for e in found.events]) == expected[file], file
        assert found.claims == ()
        if "order.placed" in expected[file][2]:
            [event] = found.events
            assert (event.value, str(event.occurred_at)) == (Decimal("29.35"), "2017-03-22 19:28:02+00:00")
            assert [(item.value, item.quantity) for item in event.items] == [(6, 2), (12, 1)]
            assert (who and who.phone, event.properties["currency"]) == ("+15555555555", "USD")
        read.add(file)
    assert read == set(expected)
