"""What storefronts tell is taken by the page, and ends as it would one by one, in whatever pages it is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from flows import Flows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages_told import at, mail_of
from sqlalchemy import text
from storefronts import (
    MAIL_CONSENT,
    TEXT_CONSENT,
    email_consent,
    shopify_checkout,
    shopify_customer,
    shopify_order,
    sms_consent,
    woocommerce_order,
)

from dispatcher import clock, consent, mailroom
from dispatcher.contacts import find_contact, personal_of
from dispatcher.feedback import inbox
from dispatcher.storefronts import taking


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
