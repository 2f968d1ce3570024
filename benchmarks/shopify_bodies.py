"""Bodies of Shopify's webhooks for the benchmark: as many fields as real ones have, of people who do not exist."""

from __future__ import annotations

import base64
import hmac
from datetime import datetime, timedelta
from typing import Any

_MONEY = {"shop_money": {"amount": "24.50", "currency_code": "GBP"},
          "presentment_money": {"amount": "24.50", "currency_code": "GBP"}}  # fmt: skip


def signed(secret: str, body: bytes) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), body, "sha256")).decode()


def customer_of(number: int, now: datetime) -> dict[str, Any]:
    return _person(number) | {
        "created_at": (now - timedelta(days=number % 900)).isoformat(timespec="seconds"),
        "updated_at": (now - timedelta(seconds=30)).isoformat(timespec="seconds"),
        "email_marketing_consent": {"state": "subscribed", "opt_in_level": "single_opt_in",
                                    "consent_updated_at": (now - timedelta(days=9)).isoformat(timespec="seconds")},
        "sms_marketing_consent": None,
        "orders_count": 1, "total_spent": "24.50", "tags": "vip, newsletter", "addresses": [_address(number)],
    }  # fmt: skip


def checkout_of(number: int, now: datetime) -> dict[str, Any]:
    at = (now - timedelta(minutes=5)).isoformat(timespec="seconds")
    return {
        "id": 70_000_000 + number, "token": f"c{number:031x}", "cart_token": f"t{number:031x}",
        "email": f"shopper{number}@mail-{number % 50}.example", "created_at": at, "updated_at": at,
        "completed_at": None, "currency": "GBP", "total_price": "49.00", "subtotal_price": "44.10", "total_tax": "4.90",
        "abandoned_checkout_url": f"https://shop.example/1/checkouts/ac/c{number:031x}/recover?key={number:032x}",
        "line_items": _lines(number), "customer": _person(number), "shipping_address": _address(number),
        "billing_address": _address(number), "note_attributes": [], "discount_codes": [], "tax_lines": _taxes(),
    }  # fmt: skip


def order_of(number: int, now: datetime) -> dict[str, Any]:
    at = (now - timedelta(seconds=20)).isoformat(timespec="seconds")
    return {
        "id": 5_500_000_000_000 + number, "admin_graphql_api_id": f"gid://shopify/Order/{5_500_000_000_000 + number}",
        "app_id": 580111, "browser_ip": "192.0.2.7", "buyer_accepts_marketing": False, "cancelled_at": None,
        "checkout_id": 70_000_000 + number, "checkout_token": f"c{number:031x}", "cart_token": f"t{number:031x}",
        "client_details": {"accept_language": "en-GB", "browser_ip": "192.0.2.7", "user_agent": "Mozilla/5.0 " * 8},
        "confirmed": True, "contact_email": f"shopper{number}@mail-{number % 50}.example", "created_at": at,
        "currency": "GBP", "current_total_price": "49.00", "current_total_price_set": _MONEY,
        "email": f"shopper{number}@mail-{number % 50}.example", "customer_locale": "en-GB",
        "financial_status": "paid", "fulfillments": [],
        "line_items": _lines(number), "name": f"#{1001 + number}", "note_attributes": [], "order_number": 1001 + number,
        "order_status_url": f"https://shop.example/1/orders/{number:032x}/authenticate?key={number:032x}",
        "payment_gateway_names": ["shopify_payments"], "phone": None, "processed_at": at, "source_name": "web",
        "subtotal_price": "44.10", "subtotal_price_set": _MONEY, "tax_lines": _taxes(), "taxes_included": True,
        "test": False, "token": f"o{number:031x}", "total_discounts": "0.00", "total_discounts_set": _MONEY,
        "total_price": "49.00", "total_price_set": _MONEY, "total_tax": "4.90", "updated_at": at,
        "billing_address": _address(number), "shipping_address": _address(number), "customer": _person(number),
        "shipping_lines": [{"code": "Standard", "price": "0.00", "price_set": _MONEY, "title": "Standard"}],
    }  # fmt: skip


def _person(number: int) -> dict[str, Any]:
    return {
        "id": 7_000_000_000_000 + number,
        "admin_graphql_api_id": f"gid://shopify/Customer/{7_000_000_000_000 + number}",
        "email": f"shopper{number}@mail-{number % 50}.example", "first_name": f"First{number}",
        "last_name": f"Last{number}", "phone": f"+4479460{number % 90000 + 10000:05}", "state": "enabled",
        "verified_email": True, "currency": "GBP", "default_address": _address(number),
    }  # fmt: skip


def _address(number: int) -> dict[str, Any]:
    return {
        "first_name": f"First{number}", "last_name": f"Last{number}", "address1": f"{number} High Street",
        "address2": None, "city": "London", "zip": "EC1A 7JQ", "province": "England", "province_code": "ENG",
        "country": "United Kingdom", "country_code": "GB", "phone": None, "latitude": 51.5, "longitude": -0.1,
    }  # fmt: skip


def _lines(number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": 900_000_000 + number * 2 + line, "title": title, "name": title, "vendor": vendor, "quantity": 1,
            "price": "24.50", "price_set": _MONEY, "sku": f"SKU-{number % 200}-{line}", "product_id": 100 + number,
            "variant_id": 300 + number % 200, "variant_title": "Red", "requires_shipping": True, "taxable": True,
            "gift_card": False, "grams": 500, "fulfillable_quantity": 1, "properties": [], "tax_lines": _taxes(),
            "discount_allocations": [], "total_discount": "0.00", "total_discount_set": _MONEY,
        }
        for line, (title, vendor) in enumerate((("Lantern", "Lumina"), ("Paper chain", "Fest")))
    ]  # fmt: skip


def _taxes() -> list[dict[str, Any]]:
    return [{"price": "2.45", "rate": 0.1, "title": "VAT", "price_set": _MONEY, "channel_liable": False}]
