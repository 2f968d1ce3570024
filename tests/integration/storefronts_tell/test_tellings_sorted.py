"""What was told is sorted once, however often it comes, and what makes no sense is kept."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from ledger_rows import wait_until
from sqlalchemy import Engine
from storefronts import shopify_customer, shopify_order, shopify_samples, woocommerce_samples
from telling import Shop, ago

from dispatcher import rights
from dispatcher.feedback import inbox
from dispatcher.keys import KeyRing
from dispatcher.storefronts import requests


def test_every_sample_of_shopify_is_taken_and_becomes_contacts_and_events(shop: Shop, shared: Path) -> None:
    samples = shopify_samples(shared / "data/webhooks")
    # Who is erased in one sample orders in another: so what erases comes last.
    for _, topic, body in sorted(samples, key=lambda sample: sample[1] == "customers/redact"):
        shop.tell(topic, body)
    shop.sort()

    assert shop.rows("SELECT count(*) FROM feedback_inbox WHERE flaw IS NULL") == [0]
    # Orders of the reference come in several states of one order; what differs is refused, and listed.
    assert {kept.reason.partition(" ")[0] for kept in shop.kept()} == {"source_key"}
    assert sum(shop.counts().values()) == len(samples)
    assert shop.personal("shopify-706405506930370000").email == "bob@biller.com"
    assert shop.find("shopify-115310627314723950") == shop.find("shopify-191167")  # by their address
    assert shop.personal("shopify-207119551").phone is not None
    placed = dict(shop.rows("SELECT source_key, value::text FROM event WHERE name = 'order.placed'"))
    assert {"order-820982911946154500": "359.97", "order-1073459969": "199"}.items() <= placed.items()
    assert shop.events("order.cancelled") == {"order-820982911946154500-cancelled": 1}
    assert len(shop.events("checkout.started")) >= 2
    assert shop.rows("SELECT count(*) FROM consent WHERE state = 'granted'") == [0]
    with shop.database.connect() as connection:
        asked = requests.list_requests(connection, every=True)
        erased = rights.erasure_state(connection, shop.find("shopify-191167"))
    assert Counter(one.kind for one in asked) == {"export": 1, "erasure": 1, "shop_erasure": 1}
    assert erased is not None


def test_every_sample_of_woocommerce_is_taken_and_becomes_contacts_and_events(shop: Shop, shared: Path) -> None:
    samples = woocommerce_samples(shared / "data/webhooks")
    for _, topic, body in samples:
        shop.tell(topic, body)
    shop.sort()

    assert (shop.kept(), sum(shop.counts().values())) == ([], len(samples))
    assert shop.events() == {"customer-25-created": 1, "customer-25-deleted": 1, "order-727": 1, "order-727-deleted": 1}
    assert shop.rows("SELECT value::text FROM event WHERE source_key = 'order-727'") == ["29.35"]
    # The guest of the order is the customer: they have one address, and so are one contact.
    assert shop.find("woocommerce-25") == shop.find("john.doe@example.com")
    assert shop.rows("SELECT external_id FROM contact WHERE merged_into IS NULL") == ["woocommerce-25"]
    assert shop.personal("woocommerce-25").first_name == "James"
    assert shop.rows("SELECT count(*) FROM consent_event") == [0]


def test_a_topic_we_do_not_heed_is_accepted_and_counted_whatever_it_says(shop: Shop) -> None:
    shop.tell("products/update", {"id": 1})
    shop.tell("themes/create", b"no JSON at all")
    shop.tell("coupon.created", {"id": 1})
    shop.sort()

    assert shop.counts() == {(topic, "unheeded"): 1 for topic in ("products/update", "themes/create", "coupon.created")}
    assert shop.kept() == []


def test_what_makes_no_sense_is_kept_with_the_reason_and_its_neighbours_are_taken(shop: Shop) -> None:
    shop.tell("customers/update", b"{ no JSON")
    shop.tell("customers/update", shopify_customer())
    shop.tell("orders/create", {"id": 5, "note": "no lines"})
    shop.sort()

    assert [(kept.source, kept.topic, kept.reason) for kept in shop.kept()] == [
        ("shopify", "customers/update", "not JSON: Expecting property name enclosed in double quotes at character 2"),
        ("shopify", "orders/create", "a body of this topic has line_items; this one lacks line_items"),
    ]
    assert shop.personal("shopify-77").first_name == "Ana"
    assert shop.counts()[("customers/update", "not understood")] == 1
    first, second = shop.kept()
    with shop.database.begin() as connection:
        assert inbox.waiting(connection) == (0, 0)
        assert inbox.open_kept(connection, shop.key_ring, first.id).body == b"{ no JSON"
        inbox.drop(connection, first.id)
        inbox.try_again(connection, second.id)
    shop.sort()
    assert [kept.id for kept in shop.kept()] == [second.id]
    shop.flows.wait(inbox.KEPT_FOR + timedelta(days=1))
    assert (inbox.forget_old(shop.database), shop.kept()) == (1, [])


def test_a_delivery_that_comes_again_changes_nothing(shop: Shop) -> None:
    said = {"state": "subscribed", "opt_in_level": "confirmed_opt_in", "consent_updated_at": ago(shop, days=9)}
    for _ in range(3):
        shop.tell("orders/create", shopify_order())
        shop.tell("customers/create", shopify_customer(email_marketing_consent=said))
        shop.tell("customers/update", shopify_customer())
        shop.sort()
        shop.sort()

    assert shop.events() == {"order-1001": 1, "customer-77-created": 1}
    assert shop.rows("SELECT count(*) FROM consent_event") == [len(shop.consents("shopify-77"))]
    assert shop.counts()[("orders/create", "again")] == 2
    assert shop.kept() == []


def test_two_sorters_take_each_request_once(shop: Shop) -> None:
    for number in range(24):
        shop.tell("orders/create", shopify_order(2_000 + number % 12))
        shop.tell(
            "customers/update", shopify_customer(77, updated_at=ago(shop, minutes=100 - number), last_name=str(number))
        )
    threads = [threading.Thread(target=shop.sort) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    shop.sort()

    with shop.database.connect() as connection:
        assert inbox.waiting(connection)[0] == 0 or wait_until(lambda: not inbox.waiting(connection)[0]) is None
    assert set(shop.events("order.placed").values()) == {1}
    assert len(shop.events("order.placed")) == 12
    assert shop.rows("SELECT count(*) FROM contact") == [1]
    assert shop.personal("shopify-77").last_name == "23"


def test_what_providers_tell_does_not_wait_behind_what_storefronts_tell(shop: Shop) -> None:
    for number in range(60):
        shop.tell("products/update", {"id": number})
    with shop.database.begin() as connection:
        inbox.store(connection, shop.key_ring, "sendgrid", b"[]")
    heeded: list[str] = []

    def take(database: Engine, key_ring: KeyRing, mails: Sequence[inbox.Mail]) -> list[None]:
        left = shop.rows("SELECT count(*) FROM feedback_inbox WHERE source = 'sendgrid'")
        heeded.extend("before" if left == [0] else "behind" for _ in mails)
        return [None] * len(mails)

    inbox.sort_all(shop.database, shop.key_ring, take)
    assert heeded == ["before"] * 60
