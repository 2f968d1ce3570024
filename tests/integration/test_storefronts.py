"""Storefronts over real HTTP: signed over raw bytes, stored before the answer, sorted once however often they come."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flows import Flows, make_flows
from ledger_rows import wait_until
from sqlalchemy import Engine, text
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
from web_server import Answer, Web, serving

from dispatcher import consent, figures, mailroom, rights
from dispatcher.clock import read_now
from dispatcher.contacts import Particulars, find_contact, personal_of, save_contact
from dispatcher.events import Event, record_events
from dispatcher.feedback import inbox
from dispatcher.keys import KeyRing
from dispatcher.storefronts import counting, requests

NEW, OLD = "a-new-secret", "an-old-secret"
MAIL_CONSENT = "customers_email_marketing_consent/update"
TEXT_CONSENT = "customers_marketing_consent/update"


@dataclass(frozen=True)
class Shop:
    """A shop that both storefronts tell of what happens there."""

    web: Web
    flows: Flows
    database: Engine
    key_ring: KeyRing

    def post(self, path: str, body: bytes, secret: str = NEW, **headers: str) -> Answer:
        by = "X-Shopify-Hmac-Sha256" if "shopify" in path else "X-WC-Webhook-Signature"
        said = {"Content-Type": "application/json", by: sign(secret, body)}
        return self.web.ask(
            "POST", path, body, said | {name.replace("_", "-"): value for name, value in headers.items()}
        )

    def tell(self, topic: str, body: Any, *, secret: str = NEW) -> None:
        """Let the storefront whose topic this is tell it, and have it answered."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        shopify = "/" in topic or "__" in topic
        headers = {"X_Shopify_Topic" if shopify else "X_WC_Webhook_Topic": topic}
        answer = self.post("/hooks/shopify" if shopify else "/hooks/woocommerce", raw, secret, **headers)
        assert (answer.status, answer.body) == (200, b"")

    def sort(self) -> None:
        inbox.sort_all(self.database, self.key_ring, mailroom.take)

    def told(self, topic: str, body: Any) -> None:
        self.tell(topic, body)
        self.sort()

    def rows(self, query: str, **values: Any) -> list[Any]:
        with self.database.connect() as connection:
            return [tuple(row) if len(row) > 1 else row[0] for row in connection.execute(text(query), values)]

    def find(self, wanted: str) -> int:
        with self.database.connect() as connection:
            return find_contact(connection, self.key_ring, wanted)

    def personal(self, wanted: str) -> Any:
        with self.database.connect() as connection:
            return personal_of(connection, self.key_ring, find_contact(connection, self.key_ring, wanted))

    def consents(self, wanted: str) -> dict[tuple[str, str], str]:
        with self.database.connect() as connection:
            held = consent.state_of(connection, find_contact(connection, self.key_ring, wanted))
        return {
            (one.channel, one.topic): one.state for one in held if one.for_present_address or one.state == "withdrawn"
        }

    def events(self, name: str = "%") -> Counter[str]:
        return Counter(self.rows("SELECT source_key FROM event WHERE name LIKE :name", name=name))

    def counts(self) -> dict[tuple[str, str], int]:
        with self.database.connect() as connection:
            return {(one.topic, one.outcome): one.requests for one in counting.counts(connection)}

    def kept(self) -> list[inbox.Kept]:
        with self.database.connect() as connection:
            return inbox.list_kept(connection, self.key_ring)

    def figures(self) -> dict[figures.Key, float]:
        with self.database.connect() as connection:
            return figures.read(connection)

    @property
    def now(self) -> datetime:
        return self.flows.now


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Shop]:
    flows = make_flows(database, key_ring, tmp_path)
    secrets = {"shopify_secret": f"{NEW},{OLD}", "woocommerce_secret": f"{NEW},{OLD}"}
    with serving(database, key_ring, tmp_path / "home", **secrets) as web:
        yield Shop(web, flows, database, key_ring)


def ago(shop: Shop, **how_long: float) -> str:
    return (shop.now - timedelta(**how_long)).isoformat()


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


def test_an_older_record_overwrites_nothing_and_fills_what_is_blank(shop: Shop) -> None:
    shop.told("customers/update", shopify_customer(first_name="Anna", phone=None, updated_at=ago(shop, days=1)))
    shop.told(
        "customers/update", shopify_customer(first_name="Ana", email="old@people.example", updated_at=ago(shop, days=2))
    )

    assert (shop.personal("shopify-77").first_name, shop.personal("shopify-77").phone) == ("Anna", "+40712345678")
    assert shop.personal("shopify-77").email == "ana@people.example"
    shop.told("customers/update", shopify_customer(email="new@people.example", updated_at=ago(shop, hours=1)))
    assert shop.personal("shopify-77").email == "new@people.example"


def test_an_order_says_of_its_customer_only_what_was_not_known(shop: Shop) -> None:
    shop.told("customers/update", shopify_customer(first_name="Anna"))
    shop.told("orders/create", shopify_order(customer={"id": 77, "email": "other@people.example", "first_name": "A."}))

    assert (shop.personal("shopify-77").first_name, shop.personal("shopify-77").email) == ("Anna", "ana@people.example")
    assert shop.rows("SELECT locale FROM contact") == ["ro"]


def test_a_guest_who_becomes_a_customer_is_one_contact_that_the_shop_may_correct(shop: Shop) -> None:
    shop.told("checkouts/create", shopify_checkout(customer=None))
    [guest] = shop.rows("SELECT external_id FROM contact")
    assert guest.startswith("email-")
    shop.told("orders/create", shopify_order())
    shop.told("customers/update", shopify_customer(email="new@people.example"))

    assert shop.rows("SELECT external_id FROM contact") == ["shopify-77"]
    assert shop.find(guest) == shop.find("shopify-77") == shop.find("new@people.example")


def test_consent_is_by_its_own_time_in_whatever_order_it_comes(shop: Shop) -> None:
    shop.told("customers/update", shopify_customer())
    shop.told(MAIL_CONSENT, email_consent(77, "unsubscribed", ago(shop, days=2)))
    shop.told(MAIL_CONSENT, email_consent(77, "subscribed", ago(shop, days=5)))
    shop.told(TEXT_CONSENT, sms_consent(77, "subscribed", ago(shop, days=5)))

    assert shop.consents("shopify-77") == {("email", "offers"): "withdrawn", ("email", "letters"): "withdrawn",
                                           ("sms", "offers"): "granted"}  # fmt: skip
    times = shop.rows("SELECT DISTINCT occurred_at FROM consent_event WHERE action = 'granted' AND channel = 'sms'")
    assert shop.now - times[0] > timedelta(days=4)


def test_a_storefront_never_grants_again_what_the_person_withdrew(shop: Shop) -> None:
    shop.told("customers/update", shopify_customer())
    shop.told(MAIL_CONSENT, email_consent(77, "subscribed", ago(shop, days=5)))
    with shop.database.begin() as connection:
        contact_id = find_contact(connection, shop.key_ring, "shopify-77")
        address_id = connection.scalar(text("SELECT email_address_id FROM contact"))
        consent.withdraw(connection, shop.key_ring, contact_id, "email", ["offers"], address_id=address_id,
                         source="link", now=read_now(connection))  # fmt: skip
    for state, at in (
        ("subscribed", ago(shop, seconds=-60)),
        ("subscribed", None),
        ("pending", ago(shop, seconds=-90)),
    ):
        shop.told(MAIL_CONSENT, email_consent(77, state, at))

    assert shop.consents("shopify-77")[("email", "offers")] == "withdrawn"
    assert shop.rows("SELECT count(*) > 2 FROM consent_event WHERE topic = 'offers' AND actor = 'shop'") == [True]


def test_consent_may_come_before_the_customer_does(shop: Shop) -> None:
    shop.told(MAIL_CONSENT, email_consent(77, "subscribed", ago(shop, days=5)))
    shop.told(TEXT_CONSENT, sms_consent(77, "unsubscribed", ago(shop, days=5), phone=None))
    shop.told("customers/create", shopify_customer())

    assert shop.consents("shopify-77")[("email", "offers")] == "granted"
    assert shop.consents("shopify-77")[("sms", "offers")] == "withdrawn"
    assert shop.rows("SELECT count(*) FROM contact") == [1]


def test_a_shop_chooses_the_topics_that_its_consent_speaks_for(shop: Shop) -> None:
    toml = (shop.flows.home / "workspace" / "dispatcher.toml").read_text()
    shop.flows.apply({"dispatcher.toml": toml + '\n[shopify]\ntopics = ["letters"]\ninterests = ["vendor"]\n'})
    shop.told(MAIL_CONSENT, email_consent(77, "subscribed", ago(shop, days=5)))
    shop.told("orders/create", shopify_order())

    assert set(shop.consents("shopify-77")) == {("email", "letters")}
    assert shop.rows("SELECT interests FROM event_item") == [["Lumina"]]


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


def subscribe(shop: Shop) -> None:
    shop.told(MAIL_CONSENT, email_consent(77, "subscribed", ago(shop, days=5)))


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


def test_a_customer_that_shopify_deletes_is_no_erasure(shop: Shop) -> None:
    shop.told("customers/update", shopify_customer())
    shop.told("customers/delete", {"id": 77})
    shop.told("customers/delete", {"id": 78})

    assert shop.personal("shopify-77").email == "ana@people.example"
    assert shop.events("customer.deleted") == {"customer-77-deleted": 1}
    assert shop.rows("SELECT count(*) FROM contact") == [1]


def merged(kept: int, gone: int) -> dict[str, Any]:
    ids = {"kept": kept, "deleted": gone}
    return {f"admin_graphql_api_customer_{which}_id": f"gid://shopify/Customer/{n}" for which, n in ids.items()} | {
        "admin_graphql_api_job_id": None, "status": "completed", "errors": []}  # fmt: skip


@pytest.mark.parametrize(("kept", "gone"), [(1, 2), (2, 1)])
def test_customers_that_shopify_made_one_are_one_contact_by_the_name_of_the_kept(
    shop: Shop, kept: int, gone: int
) -> None:
    for number in (1, 2):
        email = f"c{number}@people.example"
        shop.told("customers/update", shopify_customer(number, email=email, first_name=f"C{number}", phone=None))
        shop.told(MAIL_CONSENT, email_consent(number, "subscribed", ago(shop, days=5), email=email))
        shop.told("orders/create", shopify_order(number, customer={"id": number, "email": email}))
    shop.told("customers/merge", merged(kept, gone))
    shop.told("customers/merge", merged(kept, gone))

    one = shop.find(f"shopify-{kept}")
    assert shop.find(f"shopify-{gone}") == one
    assert shop.rows("SELECT external_id FROM contact WHERE merged_into IS NULL") == [f"shopify-{kept}"]
    person = shop.personal(f"shopify-{gone}")
    assert (person.email, person.first_name) == (f"c{kept}@people.example", f"C{kept}")
    assert shop.consents(f"shopify-{kept}")[("email", "offers")] == "granted"
    assert shop.rows("SELECT DISTINCT contact_id FROM event") == [one]
    assert shop.counts()[("customers/merge", "taken")] == shop.counts()[("customers/merge", "again")] == 1
    # What is told of either from now on finds the one, and the kept one's record overwrites.
    shop.told("customers/update", shopify_customer(gone, email="late@people.example", updated_at=ago(shop, hours=2)))
    shop.told("customers/update", shopify_customer(kept, email="new@people.example", updated_at=ago(shop, hours=1)))
    assert shop.personal(f"shopify-{gone}").email == "new@people.example"
    shop.told("customers/redact", {"customer": {"id": kept}, "orders_to_redact": []})
    rights.finish_erasures(shop.database, shop.key_ring)
    assert shop.rows("SELECT count(*) FROM contact WHERE sealed IS NOT NULL") == [0]


def test_a_merge_that_comes_before_either_customer_holds_and_one_with_somebody_erased_does_not(shop: Shop) -> None:
    shop.told("customers/merge", merged(1, 2))
    shop.told("customers/update", shopify_customer(2, email="two@people.example", first_name="Two"))
    shop.told("customers/update", shopify_customer(1, email="one@people.example", first_name="One"))
    assert shop.find("shopify-1") == shop.find("shopify-2")
    assert (shop.personal("shopify-2").email, shop.personal("shopify-2").first_name) == ("one@people.example", "One")

    shop.told("customers/update", shopify_customer(3, email="three@people.example"))
    shop.told("customers/redact", {"customer": {"id": 4}, "orders_to_redact": []})
    rights.finish_erasures(shop.database, shop.key_ring)
    shop.told("customers/merge", merged(4, 3))
    assert shop.counts()[("customers/merge", "erased")] == 1
    assert shop.find("shopify-3") != shop.find("shopify-4")


def test_of_two_that_become_one_a_withdrawal_holds_and_an_own_id_stays_first(shop: Shop) -> None:
    with shop.database.begin() as connection:
        own = Particulars("own-9", email="ana@people.example", first_name="Anna")
        save_contact(connection, shop.key_ring, own)
    shop.told("customers/update", shopify_customer(1, email="ana@people.example"))
    shop.told("customers/update", shopify_customer(2, email="other@people.example", first_name="Other"))
    shop.told(MAIL_CONSENT, email_consent(1, "subscribed", ago(shop, days=1)))
    shop.told(MAIL_CONSENT, email_consent(2, "unsubscribed", ago(shop, days=5), email="other@people.example"))
    shop.told("customers/merge", merged(2, 1))

    assert shop.rows("SELECT external_id FROM contact WHERE merged_into IS NULL") == ["own-9"]
    assert (shop.personal("shopify-2").email, shop.personal("shopify-2").first_name) == ("ana@people.example", "Anna")
    assert shop.consents("own-9")[("email", "offers")] == "withdrawn"


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
