"""Erasures and exports that storefronts ask for: done, or put before the operator."""

from __future__ import annotations

from datetime import timedelta

from storefronts import (
    MAIL_CONSENT,
    email_consent,
    shopify_checkout,
    shopify_customer,
    shopify_order,
    woocommerce_order,
)
from telling import Shop, ago, subscribe

from dispatcher import rights
from dispatcher.events import Event, record_events
from dispatcher.storefronts import requests

REDACT = {"shop_id": 1, "shop_domain": "s.myshopify.com", "orders_to_redact": [1001],
          "customer": {"id": 77, "email": "ana@people.example", "phone": "+40712345678"}}  # fmt: skip


def test_who_is_to_be_redacted_is_erased_and_nothing_brings_them_back(shop: Shop) -> None:
    subscribe(shop)
    shop.told("customers/update", shopify_customer())
    shop.told("customers/redact", REDACT)
    rights.finish_erasures(shop.database, shop.key_ring)
    shop.told("customers/redact", REDACT)
    shop.told("customers/update", shopify_customer())
    shop.told(MAIL_CONSENT, email_consent(77, "subscribed", ago(shop, days=1)))
    shop.told("orders/create", shopify_order())
    shop.told("checkouts/create", shopify_checkout(customer=None))

    assert shop.personal("shopify-77").email is None
    assert shop.events() == {}
    with shop.database.connect() as connection:
        [asked] = requests.list_requests(connection, every=True)
        assert requests.list_requests(connection) == []
    assert (asked.kind, asked.reference, asked.state, asked.done_by) == ("erasure", "77", "done", "shopify")
    assert asked.due_at - asked.requested_at == timedelta(days=30)
    assert shop.counts()[("orders/create", "erased")] == 1
    assert shop.kept() == []


def test_who_is_redacted_before_we_knew_them_stays_unknown(shop: Shop) -> None:
    shop.told("customers/redact", REDACT)
    rights.finish_erasures(shop.database, shop.key_ring)
    shop.told("orders/create", shopify_order())

    assert shop.events() == {}
    assert shop.rows("SELECT count(*) FROM contact WHERE sealed IS NOT NULL") == [0]


def test_a_data_request_waits_for_the_operator_and_makes_nobody_known(shop: Shop) -> None:
    shop.told("customers/update", shopify_customer())
    for number, customer in ((1, REDACT["customer"]), (2, {"id": 99, "email": "no@people.example"}), (1, {"id": 77})):
        shop.told(
            "customers/data_request", {"customer": customer, "data_request": {"id": number}, "orders_requested": []}
        )

    with shop.database.begin() as connection:
        asked = requests.list_requests(connection)
        assert [(one.reference, one.contact, one.state) for one in asked] == [
            ("1", "shopify-77", "open"),
            ("2", None, "open"),
        ]
        requests.settle(connection, asked[0].id, by="operator")
        assert [one.reference for one in requests.list_requests(connection)] == ["2"]
    assert shop.rows("SELECT count(*) FROM contact") == [1]
    actions = shop.rows("SELECT actor, action FROM audit WHERE action LIKE 'storefront.%' ORDER BY id")
    assert actions == [("shopify", "storefront.export")] * 2 + [("operator", "storefront.done")]


def test_a_shop_that_leaves_erases_nobody_until_it_is_confirmed_and_only_its_own(shop: Shop) -> None:
    shop.told("orders/create", shopify_order(1, customer={"id": 1, "email": "one@people.example"}))
    shop.told("checkouts/create", shopify_checkout(customer=None, email="guest@people.example"))
    shop.told("customers/update", shopify_customer(2, email="ben@people.example"))
    shop.told("customers/update", shopify_customer(3, email="both@people.example"))
    shop.told("order.created", woocommerce_order())  # ben is a customer there, too
    with shop.database.begin() as connection:
        record_events(connection, shop.key_ring, [Event("k", "shopify-3", "order.placed", shop.now)])
    shop.told("shop/redact", {"shop_id": 1, "shop_domain": "s.myshopify.com"})
    assert shop.rows("SELECT count(*) FROM contact WHERE erased_at IS NOT NULL") == [0]

    with shop.database.begin() as connection:
        [asked] = requests.list_requests(connection)
        assert (asked.kind, asked.reference, requests.known_only_from(connection, "shopify")) == (
            "shop_erasure", "s.myshopify.com", 2)  # fmt: skip
    assert requests.erase_shop(shop.database, shop.key_ring, asked.id, by="operator") == 2
    erased = shop.rows("SELECT external_id FROM contact WHERE erased_at IS NOT NULL ORDER BY 1")
    assert (len(erased), erased[0].startswith("email-"), erased[1]) == (2, True, "shopify-1")
    with shop.database.connect() as connection:
        assert requests.list_requests(connection) == []
