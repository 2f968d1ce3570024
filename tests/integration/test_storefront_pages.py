"""What storefronts tell is taken by the page, and ends as it would one by one, in whatever pages it is cut."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from flows import Flows, make_flows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_rows import wait_until
from sqlalchemy import Engine, text
from storefronts import (
    email_consent,
    shopify_checkout,
    shopify_customer,
    shopify_order,
    sms_consent,
    woocommerce_order,
)

from dispatcher import clock, consent, mailroom, storefronts
from dispatcher.contacts import Particulars, find_contact, personal_of, save_contacts
from dispatcher.feedback import inbox
from dispatcher.keys import KeyRing
from dispatcher.storefronts import counting, taking

MAIL_CONSENT = "customers_email_marketing_consent/update"
TEXT_CONSENT = "customers_marketing_consent/update"
BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=6)


def at(minutes: int) -> str:
    return (BEGAN + timedelta(minutes=minutes)).isoformat()


@dataclass(frozen=True)
class World:
    """People, carts and orders of their own, so that one story can be told twice in one database."""

    number: int

    def id(self, small: int) -> int:
        return self.number * 10 + small

    def mail(self, name: str) -> str:
        return f"{name}@world-{self.number}.example"

    def own(self, value: str) -> str:
        """Return an id or a key without what is this world's."""
        return value.replace(str(self.number), "W")

    def customer(self, small: int, name: str | None, minutes: int, **more: Any) -> tuple[str, Any]:
        email = None if name is None else self.mail(name)
        record = {"email": email, "phone": None, "first_name": f"{name}-{minutes}", "updated_at": at(minutes)} | more
        return "customers/update", shopify_customer(self.id(small), **record)

    def order(self, small: int, name: str, minutes: int, **more: Any) -> tuple[str, Any]:
        customer = {"id": self.id(small), "email": self.mail(name), "first_name": name}
        return "orders/create", shopify_order(
            self.id(small), customer=customer, email=self.mail(name), checkout_token=f"cart-{self.id(small)}",
            created_at=at(minutes), processed_at=at(minutes), **more,
        )  # fmt: skip

    def cart(self, small: int, name: str, minutes: int) -> tuple[str, Any]:
        customer = {"id": self.id(small), "email": self.mail(name), "first_name": name}
        return "checkouts/update", shopify_checkout(
            f"cart-{self.id(small)}", customer=customer, email=self.mail(name), updated_at=at(minutes),
            created_at=at(0),
        )  # fmt: skip

    def consents(self, small: int, name: str, state: str, minutes: int | None) -> tuple[str, Any]:
        said_at = None if minutes is None else at(minutes)
        return MAIL_CONSENT, email_consent(self.id(small), state, said_at, email=self.mail(name))

    def texts(self, small: int, state: str, minutes: int) -> tuple[str, Any]:
        return TEXT_CONSENT, sms_consent(self.id(small), state, at(minutes), phone=None)

    def redact(self, small: int, name: str) -> tuple[str, Any]:
        return "customers/redact", {
            "customer": {"id": self.id(small), "email": self.mail(name)},
            "orders_to_redact": [],
        }

    def merge(self, kept: int, gone: int) -> tuple[str, Any]:
        ids = {"kept": kept, "deleted": gone}
        said = {f"admin_graphql_api_customer_{which}_id": self.id(small) for which, small in ids.items()}
        return "customers/merge", said | {"status": "completed"}

    def woo(self, small: int, name: str, status: str, minutes: int) -> tuple[str, Any]:
        billing = woocommerce_order()["billing"] | {"email": self.mail(name)}
        return "order.updated", woocommerce_order(
            self.id(small), customer_id=0, billing=billing, status=status, date_created_gmt=at(minutes)
        )


#: Two customers, three mailboxes that either may have had, guests, and what may be told of them.
STORY = st.sampled_from(
    [(World.customer, 1, "ana", 10), (World.customer, 1, "eva", 20), (World.customer, 1, None, 30),
     (World.customer, 2, "eva", 15), (World.customer, 2, "ana", 25), (World.customer, 2, None, 5),
     (World.order, 1, "ana", 12), (World.order, 1, "eva", 12), (World.order, 2, "eva", 14),
     (World.cart, 1, "ana", 11), (World.cart, 1, "ana", 13), (World.cart, 2, "eva", 13),
     (World.consents, 1, "ana", "subscribed", 3), (World.consents, 1, "ana", "unsubscribed", 9),
     (World.consents, 2, "eva", "subscribed", None), (World.consents, 2, "eva", "pending", 4),
     (World.texts, 1, "unsubscribed", 6), (World.merge, 1, 2), (World.merge, 2, 1), (World.redact, 1, "ana"),
     (World.redact, 2, "zoe"),
     (World.woo, 3, "zoe", "pending", 2), (World.woo, 3, "zoe", "processing", 2), (World.woo, 3, "ana", "cancelled", 2)]
)  # fmt: skip
WORLDS = count(1_000_001)


def mails(world: World, story: Sequence[Any]) -> list[inbox.Mail]:
    return [mail_of(*tell(world, *arguments)) for tell, *arguments in story]


def mail_of(topic: str, body: Any) -> inbox.Mail:
    shopify = "/" in topic
    headers = {"x-shopify-topic" if shopify else "x-wc-webhook-topic": topic}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return inbox.Mail("shopify" if shopify else "woocommerce", raw, "", "", datetime.now(UTC), headers)


def end_of(flows: Flows, world: World) -> dict[str, Any]:
    """Return who is known, what they allow and what happened, under names that every world shares."""
    guests = {taking.guest_id(flows.key_ring, "email", world.mail(name)): name for name in ("ana", "eva", "zoe")}

    def own(value: object) -> str:
        return world.own(guests.get(str(value), str(value)))

    with flows.database.connect() as connection:

        def rows(query: str, **values: Any) -> list[tuple[str, ...]]:
            return sorted(tuple(map(own, row)) for row in connection.execute(text(query), values))

        aliases = connection.execute(
            text("""SELECT a.external_id, COALESCE(c.merged_into, c.id) FROM contact_alias a
                    JOIN contact c ON c.id = a.contact_id
                    WHERE strpos(a.external_id, :world) > 0 OR a.external_id = ANY(:guests)"""),
            {"world": str(world.number), "guests": list(guests)},
        ).all()
        people = {contact_id: {own(a) for a, whose in aliases if whose == contact_id} for _, contact_id in aliases}
        contacts = {}
        for contact_id, known_as in people.items():
            personal = personal_of(connection, flows.key_ring, contact_id)
            held = {(one.channel, one.topic, one.state) for one in consent.state_of(connection, contact_id)
                    if one.for_present_address or one.state == "withdrawn"}  # fmt: skip
            [(name,)] = rows("SELECT external_id FROM contact WHERE id = :id", id=contact_id)
            events = rows("""SELECT regexp_replace(source_key, '-[0-9a-f]{16}$', ''), name, occurred_at, value
                             FROM event WHERE contact_id = :id""", id=contact_id)  # fmt: skip
            messages = rows(
                """SELECT r.name, m.status, e.occurred_at FROM message m JOIN run r ON r.id = m.run_id
                   JOIN event e ON e.id = m.event_id WHERE m.contact_id = :id""",
                id=contact_id,
            )
            contacts[frozenset(known_as)] = (name, personal.first_name, own(personal.email), held, events, messages)
        evidence = rows(
            """SELECT k.channel, k.topic, k.action, k.actor,
                      CASE WHEN k.actor = 'shop' AND k.source NOT LIKE '%no time given%' THEN k.occurred_at END
               FROM consent_event k JOIN contact c ON c.id = k.contact_id
               WHERE COALESCE(c.merged_into, c.id) = ANY(:ids)""",
            ids=list(people),
        )
        newest = rows(
            "SELECT customer_id, changed_at FROM storefront_customer WHERE customer_id LIKE :own",
            own=f"{world.number}%",
        )
    return {"contacts": contacts, "evidence": evidence, "newest": newest}


def tell(flows: Flows, told: Sequence[inbox.Mail]) -> list[str | None]:
    return mailroom.take(flows.database, flows.key_ring, told)


@pytest.fixture
def flows(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Flows:
    return make_flows(database, key_ring, tmp_path)


def ends_the_same(flows: Flows, story: Sequence[Any], cuts: Sequence[int]) -> None:
    """Tell the story to one world one by one, and to another in pages of these sizes."""
    alone, paged = World(next(WORLDS)), World(next(WORLDS))
    one_by_one = [flaw for mail in mails(alone, story) for flaw in tell(flows, [mail])]
    left, by_the_page = mails(paged, story), []
    for size in (*cuts, len(story)):
        by_the_page += tell(flows, left[:size])
        left = left[size:]

    assert [bool(flaw) for flaw in by_the_page] == [bool(flaw) for flaw in one_by_one]
    assert end_of(flows, paged) == end_of(flows, alone)


@pytest.mark.thorough
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=st.lists(STORY, min_size=2, max_size=9), cuts=st.lists(st.integers(1, 9), max_size=3))
def test_in_whatever_pages_a_story_is_told_it_ends_the_same(flows: Flows, story: list[Any], cuts: list[int]) -> None:
    ends_the_same(flows, story, cuts)


STORIES = {
    "the newest record wins in a page": [
        (World.customer, 1, "ana", 20), (World.customer, 1, "ana", 30), (World.customer, 1, "ana", 10)],
    "an older record comes after one that is left out": [
        (World.customer, 1, "ana", 5), (World.redact, 2, "zoe"), (World.customer, 1, "zoe", 20),
        (World.customer, 1, "ana", 10)],
    "two become one after a withdrawal": [
        (World.customer, 1, "ana", 5), (World.customer, 2, None, 5), (World.consents, 1, "ana", "unsubscribed", 3),
        (World.customer, 2, "ana", 25), (World.consents, 2, "ana", "subscribed", 4)],
    "consent for an address that is left": [
        (World.consents, 1, "ana", "subscribed", 3), (World.customer, 1, "eva", 20), (World.customer, 1, "ana", 30)],
    "one who is erased allowed something at an address that was left": [
        (World.consents, 1, "ana", "subscribed", 3), (World.customer, 1, "eva", 20), (World.redact, 1, "ana")],
    "a guest becomes a customer": [
        (World.cart, 1, "ana", 11), (World.woo, 3, "ana", "processing", 2), (World.order, 1, "ana", 12)],
    "a cart told of after its order": [
        (World.order, 1, "ana", 12), (World.cart, 1, "ana", 13), (World.cart, 1, "ana", 11)],
    "another order under a known number": [(World.order, 1, "ana", 12), (World.order, 1, "eva", 12)],
    "one who is erased between two orders": [
        (World.order, 1, "ana", 12), (World.redact, 1, "ana"), (World.order, 2, "ana", 12)],
}  # fmt: skip


@pytest.mark.parametrize("name", STORIES)
def test_a_page_ends_as_its_requests_do_one_by_one(flows: Flows, name: str) -> None:
    ends_the_same(flows, STORIES[name], [])


def test_a_withdrawal_told_before_two_became_one_wins_over_what_the_other_had_said(flows: Flows) -> None:
    world = World(next(WORLDS))
    tell(flows, [mail_of(*world.customer(2, None, 5)), mail_of(*world.customer(1, "ana", 5))])
    with flows.database.begin() as connection:
        ana = find_contact(connection, flows.key_ring, f"shopify-{world.id(1)}")
        address_id = connection.scalar(text("SELECT email_address_id FROM contact WHERE id = :id"), {"id": ana})
        form = consent.ConsentChange(ana, "email", "offers", "granted", "person", "form", None, address_id)
        consent.record(connection, flows.key_ring, [form], now=clock.read_now(connection))
    said = email_consent(world.id(2), "unsubscribed", at(3)) | {"email_address": None}
    tell(flows, [mail_of(MAIL_CONSENT, said), mail_of(*world.customer(2, "ana", 25))])

    with flows.database.connect() as connection:
        one = find_contact(connection, flows.key_ring, world.mail("ana"))
        assert find_contact(connection, flows.key_ring, f"shopify-{world.id(2)}") == one
        assert {held.state for held in consent.state_of(connection, one)} == {"withdrawn"}


def store(flows: Flows, told: Sequence[tuple[str, Any]]) -> None:
    with flows.database.begin() as connection:
        for mail in (mail_of(topic, body) for topic, body in told):
            later = not storefronts.is_urgent(mail.source, inbox.topic_of(mail))
            inbox.store(connection, flows.key_ring, mail.source, mail.body, headers=mail.headers, later=later)


def sort(flows: Flows, rounds: int = 1_000) -> None:
    inbox.sort_all(flows.database, flows.key_ring, mailroom.take, rounds=rounds)


def rows(flows: Flows, query: str) -> list[Any]:
    with flows.database.connect() as connection:
        return [row[0] if len(row) == 1 else tuple(row) for row in connection.execute(text(query))]


def counted(flows: Flows) -> dict[tuple[str, str], int]:
    with flows.database.connect() as connection:
        return {(one.topic, one.outcome): one.requests for one in counting.counts(connection)}


def test_an_order_does_not_wait_behind_what_was_changed_in_bulk(flows: Flows) -> None:
    store(flows, [("customers/update", shopify_customer(n, email=f"c{n}@people.example")) for n in range(1, 251)])
    store(flows, [("products/update", {"id": n}) for n in range(50)])
    store(flows, [("orders/create", shopify_order()), (MAIL_CONSENT, email_consent(77, "subscribed", at(1)))])
    store(flows, [("customers/redact", {"customer": {"id": 999}, "orders_to_redact": []})])
    sort(flows, rounds=1)

    assert rows(flows, "SELECT count(*) FROM feedback_inbox") == [103]
    assert rows(flows, "SELECT source_key FROM event") == ["order-1001"]
    assert rows(flows, "SELECT reference FROM storefront_request") == ["999"]
    sort(flows)
    assert rows(flows, "SELECT count(*) FROM storefront_customer") == [250]


@pytest.mark.parametrize(
    ("topic", "urgent"),
    [("orders/create", True), ("ORDERS_CANCELLED", True), ("checkouts/update", True), (MAIL_CONSENT, True),
     ("customers/redact", True), ("customers/update", False), ("customers/create", False), ("inventory/update", False),
     ("", False)],
)  # fmt: skip
def test_somebody_waits_for_what_is_about_an_order_or_a_wish(topic: str, urgent: bool) -> None:
    assert storefronts.is_urgent("shopify", topic) is urgent
    assert storefronts.is_urgent("woocommerce", "order.updated")
    assert not storefronts.is_urgent("woocommerce", "customer.updated")


def test_what_fails_costs_its_neighbours_nothing_and_is_tried_again(
    flows: Flows, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = taking.read

    def read(mail: inbox.Mail, *how: Any) -> Any:
        if b'"id": 7,' in mail.body:
            raise RuntimeError("a fault of ours")
        return whole(mail, *how)

    monkeypatch.setattr(taking, "read", read)
    store(flows, [("orders/create", shopify_order(number)) for number in range(1, 12)])
    sort(flows)
    assert rows(flows, "SELECT count(*) FROM event") == [10]
    assert rows(flows, "SELECT failures, flaw FROM feedback_inbox") == [(1, None)]

    monkeypatch.undo()
    with flows.database.begin() as connection:
        connection.execute(text("UPDATE feedback_inbox SET retry_at = NULL"))
    sort(flows)
    assert rows(flows, "SELECT count(*) FROM event") == [11]
    assert rows(flows, "SELECT count(*) FROM feedback_inbox") == [0]


def test_topics_beyond_what_is_told_apart_share_one_row(flows: Flows) -> None:
    store(flows, [(f"topic-{number % 230}/x", {}) for number in range(400)])
    store(flows, [("orders/create", shopify_order()), ("orders/create", shopify_order())])
    sort(flows)

    found = counted(flows)
    assert sum(found.values()) == 402
    assert found[("orders/create", "taken")] == found[("orders/create", "again")] == 1
    assert 1 < found[("others", "unheeded")] < 100
    assert len(found) == 202


def days(number: int) -> list[tuple[str, Any]]:
    """Return what many customers did, each request twice, in an order of its own."""
    told: list[tuple[str, Any]] = []
    for n in range(1, 21):
        customer = {"id": n, "email": f"c{n % 15}@people.example", "first_name": f"C{n}"}
        told += [
            ("customers/update", shopify_customer(n, email=customer["email"], phone=None, updated_at=at(n))),
            ("checkouts/create", shopify_checkout(f"cart-{n}", customer=customer, updated_at=at(200 + n))),
            ("orders/create", shopify_order(n, customer=customer, checkout_token=f"cart-{n}", created_at=at(300 + n),
                                            processed_at=at(300 + n))),
            (MAIL_CONSENT, email_consent(n, "subscribed", at(1), email=customer["email"])),
        ]  # fmt: skip
    told *= 2
    random.Random(number).shuffle(told)
    return told


def test_several_sorters_beside_other_writers_take_everything_once(flows: Flows) -> None:
    store(flows, days(7))
    people = [f"shopify-{n}" for n in range(1, 4)]
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with flows.database.begin() as connection:
                save_contacts(connection, flows.key_ring, [Particulars(one, country="GB") for one in people[::-1]])

    writer, *sorters = (threading.Thread(target=work) for work in (write, *[lambda: sort(flows)] * 2))
    writer.start()
    for sorter in sorters:
        sorter.start()
    for sorter in sorters:
        sorter.join(timeout=60)
    stop.set()
    writer.join(timeout=30)
    sort(flows)

    assert rows(flows, "SELECT count(*) FROM feedback_inbox") == [0]
    assert rows(flows, "SELECT name, count(*) FROM event GROUP BY 1 ORDER BY 1") == [
        ("checkout.started", 20), ("order.placed", 20)]  # fmt: skip
    assert rows(flows, "SELECT count(*) FROM contact WHERE merged_into IS NULL") == [15]
    assert sum(counted(flows).values()) == 160
    with flows.database.connect() as connection:
        assert consent.verify_chain(connection) == []


SORTER = """
import sys
from pathlib import Path
from dispatcher import mailroom
from dispatcher.db import engine_for
from dispatcher.feedback import inbox
from dispatcher.keys import open_key_ring
database = engine_for(sys.argv[1])
with database.begin() as connection:
    key_ring = open_key_ring(connection, Path(sys.argv[2]), None)
inbox.sort_all(database, key_ring, mailroom.take)
"""


def test_a_sorter_that_is_killed_between_the_people_and_their_orders_loses_nothing(
    flows: Flows, database_url: str, tmp_path: Path
) -> None:
    store(flows, days(11))
    with flows.database.connect() as blocking:
        blocking.execute(text("LOCK TABLE event IN SHARE ROW EXCLUSIVE MODE"))
        sorter = subprocess.Popen([sys.executable, "-c", SORTER, database_url, str(tmp_path / "home")])
        wait_until(lambda: rows(flows, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' LIMIT 1") != [])
        assert rows(flows, "SELECT count(*) > 0 FROM contact") == [True]
        sorter.kill()
        sorter.wait()
    assert rows(flows, "SELECT count(*) FROM event") == [0]
    assert rows(flows, "SELECT count(*) FROM feedback_inbox") == [160]

    def all_sorted() -> bool:
        sort(flows)
        return rows(flows, "SELECT count(*) FROM feedback_inbox") == [0]

    wait_until(all_sorted)
    assert rows(flows, "SELECT count(*) FROM event") == [40]
    assert rows(flows, "SELECT count(*) FROM contact WHERE merged_into IS NULL") == [15]
    assert rows(flows, "SELECT sum(requests) FROM storefront_count") == [160]
