"""Orders, carts and customers of Shopify: the rules that the samples do not show."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from reading_bodies import told
from storefronts import shopify_checkout, shopify_merge, shopify_order, woocommerce_order

from dispatcher.feedback.inbox import NotUnderstood
from dispatcher.storefronts.reading import Told


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


@pytest.mark.parametrize(("status", "absorbed"), [("COMPLETED", "shopify-2"), ("failed", None), ("in_progress", None)])
def test_customers_are_one_once_their_merge_is_done(status: str, absorbed: str | None) -> None:
    found = told("customers/merge", shopify_merge(1, 2) | {"status": status})

    assert (found.absorbed, found.particulars and found.particulars.external_id) == (
        absorbed, "shopify-1" if absorbed else None)  # fmt: skip
    with pytest.raises(NotUnderstood, match="lacks status"):
        told("customers/merge", {name: value for name, value in shopify_merge(1, 2).items() if name != "status"})
