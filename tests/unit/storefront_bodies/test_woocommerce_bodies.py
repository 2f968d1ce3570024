"""Bodies of WooCommerce: states, clocks, versions of its API, and whoever was erased."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from reading_bodies import NOW, told
from storefronts import woocommerce_customer, woocommerce_order

from dispatcher.feedback.inbox import NotUnderstood
from dispatcher.storefronts.reading import Told


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
