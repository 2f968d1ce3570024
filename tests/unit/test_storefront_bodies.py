"""Bodies of storefronts in our words: every sample there is, and the rules they do not show."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from storefronts import (
    email_consent,
    shopify_checkout,
    shopify_customer,
    shopify_order,
    shopify_samples,
    sign,
    sms_consent,
    woocommerce_customer,
    woocommerce_order,
    woocommerce_samples,
)

from dispatcher.event_json import AHEAD
from dispatcher.feedback.inbox import NotUnderstood
from dispatcher.storefronts import shopify, woocommerce
from dispatcher.storefronts.reading import Reading, Told, load
from dispatcher.storefronts.signatures import is_ping, secrets_of, signed

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
INTERESTS = ("product_type", "category", "tags", "vendor")


def guest(channel: str, normal: str) -> str:
    return f"guest:{channel}:{normal}"


def read_shopify(topic: str, body: Any, interests: tuple[str, ...] = INTERESTS) -> Told | None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return shopify.read(topic, load(raw), Reading("shopify", NOW, interests, guest))


def read_woocommerce(topic: str, body: Any, interests: tuple[str, ...] = INTERESTS) -> Told | None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return woocommerce.read(topic, load(raw), Reading("woocommerce", NOW, interests, guest))


def told(topic: str, body: Any, **more: Any) -> Told:
    found = (read_woocommerce if "." in topic else read_shopify)(topic, body, **more)
    assert found is not None
    return found


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


def test_the_published_signature_of_shopify_is_right_and_a_spoilt_one_is_not(shared: Path) -> None:
    vector = json.loads((shared / "data/webhooks/signature-vectors/shopify_webhook.json").read_bytes())
    body, signature = vector["body"].encode(), vector["headers"]["X-Shopify-Hmac-Sha256"]

    assert signed([vector["secret"]], signature, body)
    assert signed(["a-new-secret", vector["secret"]], signature, body)
    assert not signed([vector["secret"]], signature, body + b" ")
    assert not signed([vector["secret"]], signature.lower(), body)
    assert not signed(["a-new-secret"], signature, body)
    assert not signed([], signature, body)


def test_a_list_of_secrets_is_one_only_if_none_could_be_guessed() -> None:
    assert secrets_of(" new-secret , old-secret ") == ("new-secret", "old-secret", "new-secret , old-secret")
    assert secrets_of("ab,Zk9[]{}-generated-by-woocommerce") == ("ab,Zk9[]{}-generated-by-woocommerce",)
    assert secrets_of("test_secret_key") == ("test_secret_key",)
    assert secrets_of("  ") == ()


def test_woocommerces_secret_may_be_given_as_it_stores_it() -> None:
    assert signed(["a&amp;b&lt;c&#039;d"], sign("a&b<c'd", b"{}"), b"{}")
    assert signed(["a&b<c'd"], sign("a&b<c'd", b"{}"), b"{}")
    assert not signed(["a&b<c'd"], sign("a&amp;b&lt;c&#039;d", b"{}"), b"{}")


@pytest.mark.parametrize("body", [b"webhook_id=", b"webhook_id=1&x=2", b"", b"{}", b"x webhook_id=1"])
def test_a_ping_says_the_webhooks_number_and_no_more(body: bytes) -> None:
    assert is_ping(b"webhook_id=17")
    assert not is_ping(body)


def test_an_order_is_whose_customer_it_names_and_what_they_paid() -> None:
    found = told("orders/create", shopify_order())
    [event], who = found.events, found.particulars

    assert who is not None
    assert (who.external_id, who.email, who.country, who.subdivision, who.postal_code, who.locale) == (
        "shopify-77", "ana@people.example", "RO", "CJ", "400001", "ro")  # fmt: skip
    assert (event.source, event.source_key, event.contact) == ("shopify", "order-1001", "shopify-77")
    assert event.occurred_at == datetime(2026, 11, 20, 15, tzinfo=UTC)
    assert event.properties == {
        "order_id": "1001",
        "cart_id": "cart-1",
        "number": "#1001",
        "total": 24.5,
        "currency": "EUR",
    }
    [item] = event.items
    assert (item.interests, item.quantity, item.value) == (("christmas", "Lumina"), 2, Decimal("24.5"))
    assert found.claims == ()  # a box ticked at the checkout has no time of its own


def test_what_names_interests_can_be_chosen() -> None:
    order = shopify_order(line_items=[{"title": "Mug", "price": "5", "quantity": 1, "tags": "tea, gifts ,",
                                       "vendor": "V",
                                       "category": {"name": "Kitchen"}}])  # fmt: skip

    assert told("orders/create", order).events[0].items[0].interests == ("Kitchen", "tea", "gifts", "V")
    assert told("orders/create", order, interests=("title",)).events[0].items[0].interests == ("Mug",)
    assert told("order.created", woocommerce_order()).events[0].items[0].interests == ("kitchen",)


def test_what_a_line_costs_is_less_what_was_taken_off_it() -> None:
    line = {
        "title": "Mug",
        "price": "10.00",
        "quantity": 3,
        "discount_allocations": [{"amount": "2.50"}, {"amount": "1"}],
    }

    [item] = told("orders/create", shopify_order(line_items=[line])).events[0].items
    assert (item.value, item.properties["price"]) == (Decimal("26.5"), 10)


def test_an_order_that_was_brought_in_happened_when_it_was_processed() -> None:
    found = told("orders/create", shopify_order(processed_at="2019-05-01T08:00:00Z"))
    assert found.events[0].occurred_at == datetime(2019, 5, 1, 8, tzinfo=UTC)


def test_a_guest_is_known_by_address_else_by_phone_else_not_at_all() -> None:
    nobody = shopify_order(customer=None, email="", phone=None)

    assert told("orders/create", nobody) == Told()
    by_phone = told("orders/create", nobody | {"phone": "+40712345678"}).particulars
    by_mail = told("orders/create", nobody | {"phone": "+40712345678", "email": "Eve@X.example"}).particulars
    assert by_phone is not None
    assert by_phone.external_id == "guest:sms:+40712345678"
    assert by_mail is not None
    assert by_mail.external_id == "guest:email:eve@x.example"


def test_a_checkout_that_was_completed_is_no_cart_any_more() -> None:
    [began] = told("checkouts/create", shopify_checkout()).events
    [done] = told("checkouts/update", shopify_checkout(completed_at="2026-11-20T15:00:01Z")).events

    assert (began.name, done.name) == ("checkout.started", "checkout.completed")
    assert began.properties["cart_id"] == "cart-1"
    assert began.private == {"checkout_url": "https://shop.example/recover?key=secret"}
    assert "checkout_url" not in began.properties


def test_each_state_of_a_checkout_is_an_event_and_a_repeated_one_is_the_same() -> None:
    first, again = (told("checkouts/create", shopify_checkout()).events[0] for _ in range(2))
    same_second = told("checkouts/update", shopify_checkout(total_price="30.00")).events[0]
    later = told("checkouts/update", shopify_checkout(updated_at="2026-11-20T09:31:00-05:00")).events[0]

    assert first.source_key == again.source_key
    assert len({first.source_key, same_second.source_key, later.source_key}) == 3


def test_consent_is_said_by_its_own_time_under_either_name_of_the_customer() -> None:
    [mail] = told(
        "customers_email_marketing_consent/update", email_consent(77, "subscribed", "2026-11-02T10:00:00Z")
    ).claims
    [text] = told("customers_marketing_consent/update", sms_consent(77, "unsubscribed", "2026-11-03T10:00:00Z")).claims

    assert (mail.channel, mail.action, mail.occurred_at) == ("email", "granted", datetime(2026, 11, 2, 10, tzinfo=UTC))
    assert (text.channel, text.action, text.occurred_at) == ("sms", "withdrawn", datetime(2026, 11, 3, 10, tzinfo=UTC))
    assert text.source == "shopify consent: collected from SHOPIFY"


@pytest.mark.parametrize(
    ("state", "action"),
    [("SUBSCRIBED", "granted"), ("pending", "requested"), ("unsubscribed", "withdrawn"), ("not_subscribed", None),
     ("invalid", None), ("redacted", None), (None, None), ("a state of next year", None)],
)  # fmt: skip
def test_a_state_of_consent_claims_what_it_means(state: str | None, action: str | None) -> None:
    record = shopify_customer(
        email_marketing_consent={
            "state": state,
            "consent_updated_at": "2026-11-02T10:00:00Z",
            "opt_in_level": "unknown",
        }
    )
    claims = told("customers/update", record).claims

    assert [(claim.action, claim.opt_in_level) for claim in claims] == ([(action, None)] if action else [])


def test_the_time_of_the_record_is_never_that_of_the_consent() -> None:
    record = shopify_customer(email_marketing_consent={"state": "subscribed", "consent_updated_at": None})

    [claim] = told("customers/update", record).claims
    assert claim.occurred_at is None  # so its arrival counts


def test_consent_without_a_time_or_of_nobody_is_read_as_what_it_says() -> None:
    said = {"state": "subscribed", "opt_in_level": "unknown"}  # as imported customers have it

    [claim] = told("customers/update", shopify_customer(email_marketing_consent=said)).claims
    assert (claim.action, claim.occurred_at, claim.opt_in_level) == ("granted", None, None)
    ticked = {"accepts_marketing": True, "accepts_marketing_updated_at": "2021-12-31T19:00:00-05:00"}
    nobody = shopify_customer(email=None, email_marketing_consent=None, sms_marketing_consent=None, **ticked)
    assert told("customers/create", nobody).claims == ()


def test_consent_before_2023_needs_its_time() -> None:
    ticked = shopify_customer(accepts_marketing=True, accepts_marketing_updated_at="2021-01-01T00:00:00Z")

    assert [c.action for c in told("customers/update", ticked).claims] == ["granted"]
    assert told("customers/update", ticked | {"accepts_marketing_updated_at": None}).claims == ()
    assert told("customers/update", ticked | {"accepts_marketing": False}).claims == ()


@pytest.mark.parametrize(
    ("status", "paid", "names"),
    [("processing", True, ["order.placed"]), ("completed", True, ["order.placed"]),
     ("on-hold", False, ["order.placed"]), ("wc-shipped", True, ["order.placed"]),
     ("refunded", True, ["order.placed"]), ("pending", False, ["checkout.started"]), ("failed", False, []),
     ("checkout-draft", False, []), ("cancelled", False, ["order.cancelled"]),
     ("cancelled", True, ["order.placed", "order.cancelled"])],
)  # fmt: skip
def test_what_an_order_of_woocommerce_is_by_its_status(status: str, paid: bool, names: list[str]) -> None:
    order = woocommerce_order(status=status, date_paid_gmt="2026-11-20T15:00:04" if paid else None)

    events = told("order.updated", order).events
    assert [event.name for event in events] == names
    assert {event.properties["cart_id"] for event in events} <= {"500"}


MERGE = {
    "admin_graphql_api_customer_kept_id": "gid://shopify/Customer/1",
    "admin_graphql_api_job_id": None,
    "admin_graphql_api_customer_deleted_id": "gid://shopify/Customer/2",
    "status": "completed",
    "errors": [],
}


@pytest.mark.parametrize(("status", "absorbed"), [("COMPLETED", "shopify-2"), ("failed", None), ("in_progress", None)])
def test_customers_are_one_once_their_merge_is_done(status: str, absorbed: str | None) -> None:
    found = told("customers/merge", MERGE | {"status": status})

    assert (found.absorbed, found.particulars and found.particulars.external_id) == (
        absorbed, "shopify-1" if absorbed else None)  # fmt: skip
    with pytest.raises(NotUnderstood, match="lacks status"):
        told("customers/merge", {name: value for name, value in MERGE.items() if name != "status"})


def of_v1(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body as the first version of WooCommerce's API writes it."""
    line = {"name": "Tea", "quantity": 1, "price": "9.50", "total": "9.50", "product_id": 3,
            "meta": [{"key": "category", "label": "Category", "value": "kitchen"}]}  # fmt: skip
    plain = {name: value for name, value in body.items() if not name.endswith("_gmt") and name != "meta_data"}
    return plain | ({"line_items": [line]} if "line_items" in body else {})


def test_the_first_version_of_woocommerces_api_writes_utc_and_calls_meta_otherwise() -> None:
    order = of_v1(woocommerce_order(date_created="2026-11-25T11:58:00", date_paid="2026-11-26T00:58:05",
                                    date_modified="2026-11-25T11:59:00", status="cancelled"))  # fmt: skip

    placed, cancelled = told("order.updated", order).events  # it was paid, by a clock that is 13 hours ahead of UTC
    assert (placed.occurred_at, cancelled.occurred_at) == (
        NOW.replace(hour=11, minute=58),
        NOW.replace(hour=11, minute=59),
    )
    assert (placed.items[0].interests, placed.items[0].value) == (("kitchen",), Decimal("9.5"))
    customer = of_v1(woocommerce_customer(date_created="2026-11-01T10:00:00", date_modified="2026-11-20T10:00:00"))
    assert told("customer.updated", customer).changed_at == datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert told("customer.created", customer).events[0].occurred_at == datetime(2026, 11, 1, 10, tzinfo=UTC)


def test_local_times_of_woocommerce_count_for_nothing_where_it_gives_utc() -> None:
    local = {"date_created": "2026-11-20T10:00:00", "date_modified": "2026-11-24T10:00:00", "date_modified_gmt": None}

    assert told("order.created", woocommerce_order(**local)).events[0].occurred_at == datetime(
        2026, 11, 20, 15, tzinfo=UTC
    )
    undated = woocommerce_order(**local | {"date_created_gmt": None})
    assert (
        told("order.created", undated).events[0].occurred_at == NOW
    )  # its arrival: the shop's zone is not ours to know
    assert told("customer.updated", woocommerce_customer(**local)).changed_at == datetime(2026, 11, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("status", ["checkout-draft", "failed", "auto-draft", "trash"])
def test_what_somebody_typed_and_never_sent_makes_nobody_known(status: str) -> None:
    assert told("order.updated", woocommerce_order(status=status)) == Told()


def test_whoever_wordpress_has_erased_is_nobody_and_no_address_is_shared_by_all_of_them() -> None:
    billing = woocommerce_order()["billing"] | {"email": "deleted@site.invalid", "first_name": "[deleted]"}

    assert told("order.updated", woocommerce_order(customer_id=0, billing=billing)) == Told()
    who = told("order.updated", woocommerce_order(customer_id=9, billing=billing)).particulars
    assert who is not None
    assert (who.external_id, who.email, who.first_name) == ("woocommerce-9", None, None)


def test_a_body_of_woocommerces_legacy_api_says_what_to_do() -> None:
    with pytest.raises(NotUnderstood, match="legacy API; set the API version"):
        told("order.created", {"order": {"id": 645, "order_number": "645", "created_at": "2015-01-26T20:00:21Z"}})


def test_woocommerce_never_says_that_anybody_agreed() -> None:
    for topic, body in (("order.created", woocommerce_order()), ("customer.updated", woocommerce_customer())):
        assert told(topic, body).claims == ()


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
    ("customers/merge", MERGE),
    ("customers_email_marketing_consent/update", email_consent(7, "subscribed", "2026-11-02T10:00:00Z")),
    ("customers_marketing_consent/update", sms_consent(7, "subscribed", "2026-11-02T10:00:00Z")),
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
