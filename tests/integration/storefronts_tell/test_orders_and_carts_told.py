"""Orders stay as they were placed, and carts that are left alone are reminded of."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from storefronts import shopify_checkout, shopify_order, woocommerce_order
from telling import Shop, ago, subscribe


def test_another_order_under_a_known_number_is_refused_and_listed(shop: Shop) -> None:
    shop.told("orders/create", shopify_order())
    shop.told("orders/create", shopify_order(total_price="9999.00"))

    assert shop.rows("SELECT value::text FROM event") == ["24.5"]
    assert [kept.reason for kept in shop.kept()] == ["source_key order-1001 is already recorded with another body"]


def test_an_order_of_woocommerce_that_is_changed_later_stays_as_it_was_placed(shop: Shop) -> None:
    shop.told("order.updated", woocommerce_order(status="completed"))
    shop.told("order.created", woocommerce_order())
    shop.told("order.updated", woocommerce_order(total="12.00"))
    shop.told("order.updated", woocommerce_order(status="cancelled", date_modified_gmt="2026-11-21T00:00:00"))
    shop.told("order.deleted", {"id": 500})
    shop.told("order.deleted", {"id": 501})

    assert shop.events() == {"order-500": 1, "order-500-cancelled": 1, "order-500-deleted": 1}
    assert (shop.kept(), shop.personal("woocommerce-9").email) == ([], "ben@people.example")
    assert shop.counts()[("order.deleted", "nobody")] == 1
    assert shop.personal("woocommerce-9").phone == "+442079460000"


def checkout_of(shop: Shop, minutes: float, **changes: Any) -> dict[str, Any]:
    return shopify_checkout(updated_at=ago(shop, minutes=minutes), created_at=ago(shop, minutes=minutes), **changes)


def test_a_cart_left_alone_is_reminded_of_with_the_link_that_no_event_keeps(shop: Shop) -> None:
    subject = "{{ event.cart_id }} {{ event.checkout_url }} {{ event.items[0].name }}\n"
    shop.flows.apply({"templates/email/cart/subject.txt": subject})
    subscribe(shop)
    shop.told("checkouts/create", checkout_of(shop, 50))
    shop.told("checkouts/update", checkout_of(shop, 10, total_price="30.00"))  # the hour begins again
    [row] = shop.flows.messages()
    assert (row.status, row.name, row.due_at - shop.now > timedelta(minutes=45)) == ("pending", "abandoned-cart", True)
    shop.flows.wait(timedelta(minutes=51))
    shop.flows.send()

    assert [mail["subject"] for mail in shop.flows.mails()] == [
        "cart-1 https://shop.example/recover?key=secret Lantern"
    ]
    assert shop.rows("SELECT count(*) FROM event WHERE properties::text LIKE '%secret%'") == [0]


@pytest.mark.parametrize("order_first", [False, True])
def test_an_order_closes_its_cart_whichever_arrives_first(shop: Shop, order_first: bool) -> None:
    subscribe(shop)
    order = shopify_order(created_at=ago(shop, minutes=40), processed_at=ago(shop, minutes=40))
    tellings = [("checkouts/create", checkout_of(shop, 50)), ("orders/create", order)]
    for topic, body in reversed(tellings) if order_first else tellings:
        shop.told(topic, body)
    # Shopify tells of the checkout once more when it has become an order; and a late update says nothing of that.
    shop.told("checkouts/update", checkout_of(shop, 39, completed_at=ago(shop, minutes=39)))
    shop.told("checkouts/update", checkout_of(shop, 38))
    shop.flows.wait(timedelta(hours=2))
    shop.flows.send()

    reminders = [row for row in shop.flows.messages() if row.name == "abandoned-cart"]
    assert {row.because for row in reminders} <= {"FLOW_EXIT"}
    assert all("Cart" not in mail["subject"] for mail in shop.flows.mails())


def test_an_order_that_names_no_cart_closes_that_of_whoever_placed_it(shop: Shop) -> None:
    """Shopify gives `checkout_token: null` with orders made by hand or over the API."""
    subscribe(shop)
    shop.told("checkouts/create", checkout_of(shop, 50))
    placed = {"created_at": ago(shop, minutes=40), "processed_at": ago(shop, minutes=40)}
    shop.told("orders/create", shopify_order(checkout_token=None, **placed))
    shop.flows.wait(timedelta(hours=2))
    shop.flows.send()

    assert [row.because for row in shop.flows.messages() if row.name == "abandoned-cart"] == ["FLOW_EXIT"]


def test_an_unpaid_order_of_woocommerce_is_a_cart_until_it_is_paid(shop: Shop) -> None:
    shop.told("order.created", woocommerce_order(status="pending", date_created_gmt=ago(shop, minutes=30)))
    [row] = [row for row in shop.flows.messages() if row.name == "abandoned-cart"]
    shop.told("order.updated", woocommerce_order(date_created_gmt=ago(shop, minutes=30)))
    shop.flows.wait(timedelta(hours=1))
    shop.flows.send()

    assert row.status == "pending"
    assert "abandoned-cart" not in {row.name for row in shop.flows.messages() if row.status == "sent"}
