"""Who may tell, over real HTTP: signed over raw bytes, and stored sealed before the answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ledger_rows import wait_until
from sqlalchemy import Engine
from storefronts import shopify_customer, shopify_order, sign, woocommerce_customer
from telling import NEW, OLD, Shop
from web_server import serving

from dispatcher.keys import KeyRing


def test_what_was_told_is_stored_sealed_before_it_is_answered(shop: Shop) -> None:
    shop.tell("customers/update", shopify_customer())

    [sealed] = shop.rows("SELECT sealed FROM feedback_inbox")
    assert b"ana" not in bytes(sealed)
    assert shop.rows("SELECT count(*) FROM contact") == [0]
    shop.sort()
    assert (shop.rows("SELECT count(*) FROM feedback_inbox"), shop.personal("shopify-77").email) == (
        [0],
        "ana@people.example",
    )


@pytest.mark.parametrize("path", ["/hooks/shopify", "/hooks/woocommerce"])
def test_a_stranger_is_not_let_in_and_nothing_of_theirs_is_stored(shop: Shop, path: str) -> None:
    body = json.dumps(shopify_customer()).encode()
    spoilt = {"X-Shopify-Hmac-Sha256": sign(NEW, body), "X-WC-Webhook-Signature": sign(NEW, body)}
    answers = [
        shop.web.ask("POST", path, body),
        shop.web.ask("POST", path, body, dict.fromkeys(spoilt, "")),
        shop.web.ask("POST", path, body, dict.fromkeys(spoilt, "é!")),
        shop.web.ask("POST", path, body + b" ", spoilt),
        shop.post(path, body, "another-secret"),
        shop.post(path, body, f"{NEW},{OLD}x"),
    ]

    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    assert shop.rows("SELECT count(*) FROM feedback_inbox") == [0]
    counted = ("webhook_signature_failures", (path.rpartition("/")[2],))
    wait_until(lambda: shop.figures().get(counted) == len(answers))
    assert shop.web.ask("GET", path).status == 405


def test_without_a_secret_nothing_is_taken_not_even_a_ping(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    with serving(database, key_ring, tmp_path / "home") as web:
        for path in ("/hooks/shopify", "/hooks/woocommerce"):
            signed = {"X-Shopify-Hmac-Sha256": sign("", b"{}"), "X-WC-Webhook-Signature": sign("", b"{}")}
            assert web.ask("POST", path, b"{}", signed).status == 401
        assert web.ask("POST", "/hooks/woocommerce", "webhook_id=3").status == 401


def test_the_old_secret_is_good_until_it_is_taken_out(shop: Shop) -> None:
    shop.tell("customers/update", shopify_customer(1, email="a@people.example"), secret=OLD)
    shop.tell("customer.updated", woocommerce_customer(2), secret=OLD)
    shop.sort()

    assert shop.find("shopify-1") != shop.find("woocommerce-2")


def test_woocommerces_ping_is_answered_and_nothing_else_that_is_unsigned(shop: Shop) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    assert shop.web.ask("POST", "/hooks/woocommerce", "webhook_id=17", form).status == 200
    assert shop.web.ask("POST", "/hooks/woocommerce", "webhook_id=17&and=more", form).status == 401
    assert shop.web.ask("POST", "/hooks/woocommerce", "webhook_id=" + "1" * 500, form).status == 401
    assert shop.web.ask("POST", "/hooks/shopify", "webhook_id=17", form).status == 401
    assert shop.rows("SELECT count(*) FROM feedback_inbox") == [0]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "text/plain", "image/png", ""])
def test_what_a_body_is_called_makes_no_difference(shop: Shop, content_type: str) -> None:
    body = json.dumps(shopify_customer(first_name="Ágnes"), ensure_ascii=False).encode()
    headers = {"Content_Type": content_type, "X_Shopify_Topic": "customers/update"}

    assert shop.post("/hooks/shopify", body, **headers).status == 200
    shop.sort()
    assert shop.personal("shopify-77").first_name == "Ágnes"


def test_an_order_of_five_megabytes_is_taken_and_one_of_eleven_is_not(shop: Shop) -> None:
    line = shopify_order()["line_items"][0] | {"padding": "x" * 5_000}
    order = shopify_order(line_items=[line] * 1_000)
    body = json.dumps(order).encode()
    assert len(body) > 5_000_000

    began = datetime.now(UTC)
    shop.tell("orders/create", body)
    assert datetime.now(UTC) - began < timedelta(seconds=5)  # Shopify waits no longer
    shop.sort()
    assert shop.rows("SELECT count(*) FROM event_item") == [1_000]
    assert shop.post("/hooks/shopify", b" " * 11_000_000).status == 413
