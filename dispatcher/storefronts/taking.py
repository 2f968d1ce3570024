"""What a storefront told us, written down: who, what they allow, what happened, what is asked for.

Every step may be done twice, and in any order: a contact is known by its id and address, a consent by its own time, an
event by its key, a request by its number; and what a record says of a person overwrites nothing newer.  So deliveries
need no memory of their own ids (which are not signed, either).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import structlog
from psycopg.errors import DeadlockDetected, UniqueViolation
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from dispatcher import consent
from dispatcher.clock import read_now
from dispatcher.contacts import Saved, save_contact
from dispatcher.contacts.saving import Outcome as SavedAs
from dispatcher.definitions import Shop, Storefront
from dispatcher.events import Event, record_events
from dispatcher.feedback.inbox import Mail, NotUnderstood, topic_of
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_identity
from dispatcher.shop import load_shop
from dispatcher.storefronts import reading, requests, shopify, woocommerce
from dispatcher.storefronts.counting import count
from dispatcher.storefronts.reading import Reading, Told

log = structlog.get_logger()

_TRIES = 5
#: What another writer of the same people can cause; COPY speaks in the driver's own words.
_OTHER_WRITER = (IntegrityError, OperationalError, UniqueViolation, DeadlockDetected)


class Outcome(StrEnum):
    """What became of one request of a storefront."""

    TAKEN = "taken"
    AGAIN = "again"  #: it told nothing that was not known
    NOBODY = "nobody"  #: about nobody who could be known again, or whom we do not know
    ERASED = "erased"  #: about somebody who was erased: left out
    UNHEEDED = "unheeded"  #: of a topic that is nothing to us
    NOT_UNDERSTOOD = "not understood"  #: kept in the inbox


def take(database: Engine, key_ring: KeyRing, mail: Mail) -> Outcome:
    """Write down what a storefront told; return what became of it.  NotUnderstood if no sense can be made of it."""
    try:
        outcome = _take(database, key_ring, mail)
    except NotUnderstood:
        _count(database, mail, Outcome.NOT_UNDERSTOOD)
        raise
    _count(database, mail, outcome)
    return outcome


def _count(database: Engine, mail: Mail, outcome: Outcome) -> None:
    with database.begin() as connection:
        count(connection, mail.source, topic_of(mail), outcome)


def _take(database: Engine, key_ring: KeyRing, mail: Mail) -> Outcome:
    with database.connect() as connection:
        shop = load_shop(connection)
    told = read(mail, key_ring, shop)
    if told is None:
        return Outcome.UNHEEDED
    taking = _Taking(database, key_ring, mail.source, told, _topics(shop, storefront_of(shop, mail.source)))
    return taking.take()


def read(mail: Mail, key_ring: KeyRing, shop: Shop) -> Told | None:
    """Return what a request says; None if its topic is nothing to us; NotUnderstood if it makes no sense."""
    topic, translate, topics = topic_of(mail), woocommerce.read, woocommerce.TOPICS
    if mail.source == "shopify":
        translate, topics = shopify.read, shopify.TOPICS
    if topic.strip().lower().replace("/", "_") not in topics:
        return None
    how = Reading(
        "shopify" if mail.source == "shopify" else "woocommerce",
        mail.received_at,
        storefront_of(shop, mail.source).interests,
        lambda channel, normal: guest_id(key_ring, channel, normal),
    )
    return translate(topic, reading.load(mail.body), how)


def storefront_of(shop: Shop, source: str) -> Storefront:
    return shop.shopify if source == "shopify" else shop.woocommerce


def guest_id(key_ring: KeyRing, channel: str, normal: str) -> str:
    """Return the external id of somebody who has no number: their address, hashed, as in a list of addresses."""
    return f"{'email' if channel == 'email' else 'phone'}-{key_ring.address_hash(channel, normal).hex()[:16]}"


def _topics(shop: Shop, storefront: Storefront) -> dict[str, list[str]]:
    """Return the topics that a consent on each channel speaks for."""
    return {
        channel: [
            name for name, topic in shop.topics.items()
            if channel in topic.channels and (storefront.topics is None or name in storefront.topics)
        ]
        for channel in ("email", "sms")
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Taking:
    """One body on its way in: first the person, then what they did, each in a transaction of its own.

    The locks of a person come before those of whoever else an event may concern.
    """

    database: Engine
    key_ring: KeyRing
    source: str
    told: Told
    topics: dict[str, list[str]]

    def take(self) -> Outcome:
        told = self.told
        if told.order is not None:
            return self._again_if_other_writer(self._record_of_order)
        if told.request is not None:
            if told.request.kind == "erasure":
                self._again_if_other_writer(self._make_known)
            return self._again_if_other_writer(self._ask)
        if told.particulars is None:
            return Outcome.NOBODY
        outcome = self._again_if_other_writer(self._save)
        if outcome in (Outcome.ERASED, Outcome.NOBODY) or not told.events:
            return outcome
        recorded = self._again_if_other_writer(lambda connection: self._record(connection, told.events))
        return outcome if recorded is Outcome.AGAIN else recorded

    def _again_if_other_writer(self, step: Callable[[Connection], Outcome]) -> Outcome:
        for tries_left in reversed(range(_TRIES)):
            try:
                with self.database.begin() as connection:
                    return step(connection)
            except _OTHER_WRITER:
                if tries_left == 0:
                    raise
        raise AssertionError("unreachable")

    def _save(self, connection: Connection) -> Outcome:
        """Write the person down, and what is said of their consent."""
        told, particulars = self.told, self.told.particulars
        assert particulars is not None
        lock_identity(connection)
        if told.only_if_known:
            return Outcome.AGAIN if _is_known(connection, particulars.external_id) else Outcome.NOBODY
        newest = self._is_newest(connection)
        saved = save_contact(connection, self.key_ring, replace(particulars, only_fills=not newest))
        if saved.contact_id is None:
            return Outcome.ERASED
        outcomes = consent.record(connection, self.key_ring, self._changes(saved), now=read_now(connection))
        if newest:
            self._remember(connection)
        news = any(outcome is not consent.Outcome.KNOWN for outcome in outcomes)
        return Outcome.TAKEN if news or saved.outcome is not SavedAs.UNCHANGED else Outcome.AGAIN

    def _is_newest(self, connection: Connection) -> bool:
        """Whether the record is as new as anything that overwrote the contact; nobody else can say so meanwhile."""
        if self.told.changed_at is None or self.told.customer_id is None:
            return False
        known = connection.scalar(
            text("SELECT changed_at FROM storefront_customer WHERE source = :source AND customer_id = :id"),
            {"source": self.source, "id": self.told.customer_id},
        )
        return known is None or self.told.changed_at >= known

    def _remember(self, connection: Connection) -> None:
        connection.execute(
            text("""INSERT INTO storefront_customer (source, customer_id, changed_at) VALUES (:source, :id, :at)
                    ON CONFLICT (source, customer_id) DO UPDATE SET changed_at = excluded.changed_at"""),
            {"source": self.source, "id": self.told.customer_id, "at": self.told.changed_at},
        )

    def _changes(self, saved: Saved) -> list[consent.ConsentChange]:
        """Return the claims as changes; nobody can grant anything for an address that is not known."""
        assert saved.contact_id is not None
        changes = []
        for claim in self.told.claims:
            address_id = saved.email_address_id if claim.channel == "email" else saved.sms_address_id
            if address_id is None and claim.action != "withdrawn":
                continue
            changes += [
                consent.ConsentChange(
                    saved.contact_id, claim.channel, topic, claim.action, "shop", claim.source, claim.occurred_at,
                    address_id, opt_in_level=claim.opt_in_level,
                )
                for topic in self.topics[claim.channel]
            ]  # fmt: skip
        return changes

    def _record(self, connection: Connection, events: Sequence[Event]) -> Outcome:
        """Record the events; a cart that is told of as it was after its order is no cart any more."""
        wanted = [event for event in events if not _was_ordered(connection, event)]
        recorded = record_events(connection, self.key_ring, wanted)
        for refusal in recorded.refused:
            if not refusal.other_body:
                return Outcome.ERASED
            if not self.told.first_stays:
                raise NotUnderstood(refusal.reason)
        return Outcome.TAKEN if recorded.new else Outcome.AGAIN

    def _record_of_order(self, connection: Connection) -> Outcome:
        """Record what happened to an order, for whoever placed it."""
        contact = connection.scalar(
            text("""SELECT c.external_id FROM event e JOIN contact c ON c.id = e.contact_id
                    WHERE e.source = :source AND e.source_key = ANY(:keys) LIMIT 1"""),
            {"source": self.source, "keys": [f"order-{self.told.order}", f"checkout-{self.told.order}"]},
        )
        if contact is None:
            return Outcome.NOBODY
        return self._record(connection, [replace(event, contact=contact) for event in self.told.events])

    def _make_known(self, connection: Connection) -> Outcome:
        requests.make_known(connection, self.key_ring, self.told.particulars)
        return Outcome.TAKEN

    def _ask(self, connection: Connection) -> Outcome:
        """Keep what is asked for; who is to be erased is erased."""
        request = self.told.request
        assert request is not None
        fresh = requests.record(connection, self.key_ring, self.source, request, self.told.particulars)
        return Outcome.TAKEN if fresh else Outcome.AGAIN


def _is_known(connection: Connection, external_id: str) -> bool:
    return bool(
        connection.scalar(
            text("SELECT EXISTS (SELECT FROM contact_alias WHERE external_id = :id)"), {"id": external_id}
        )
    )


_ORDERED = text("""
    SELECT EXISTS (
        SELECT FROM contact_alias a JOIN contact c ON c.id = a.contact_id
        JOIN event e ON e.contact_id = COALESCE(c.merged_into, c.id)
        WHERE a.external_id = :contact AND e.name = 'order.placed' AND e.source = :source
            AND e.properties ->> 'cart_id' = :cart AND e.occurred_at < :at)
""")


def _was_ordered(connection: Connection, event: Event) -> bool:
    """Whether the order is known that this cart had become before; an order that came later ends the flow by itself."""
    cart = event.properties.get("cart_id")
    if event.name != "checkout.started" or cart is None:
        return False
    values = {"contact": event.contact, "source": event.source, "cart": cart, "at": event.occurred_at}
    return bool(connection.scalar(_ORDERED, values))
