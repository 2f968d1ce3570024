"""What storefronts told us, written down by the page: who, what they allow, what happened, what is asked for.

Every step may be done twice, and in any order: a contact is known by its id and address, a consent by its own time, an
event by its key, a request by its number; and what a record says of a person overwrites nothing newer.  So deliveries
need no memory of their own ids (which are not signed, either), and a page ends as its requests would one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain, groupby
from typing import NamedTuple, TypeVar

from psycopg.errors import DeadlockDetected, UniqueViolation
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError, OperationalError

from dispatcher import consent
from dispatcher.clock import read_now
from dispatcher.contacts import Particulars, Saved, save_contacts
from dispatcher.contacts.saving import Outcome as SavedAs
from dispatcher.definitions import Shop, Storefront
from dispatcher.errors import DispatcherError
from dispatcher.events import Event, record_events
from dispatcher.feedback.inbox import Mail, NotUnderstood, topic_of
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_identity
from dispatcher.shop import load_shop
from dispatcher.storefronts import carts, customers, merging, reading, requests, shopify, woocommerce
from dispatcher.storefronts.counting import count
from dispatcher.storefronts.reading import Fields, Reading, Told

Result = TypeVar("Result")

_TRIES = 5
#: What another writer of the same people can cause; COPY speaks in the driver's own words.
_OTHER_WRITER = (IntegrityError, OperationalError, UniqueViolation, DeadlockDetected)


class _Language(NamedTuple):
    """How the bodies of a storefront are read, of which topics, and which of them somebody waits for."""

    read: Callable[[str, Fields, Reading], Told | None]
    topics: frozenset[str]
    urgent: frozenset[str]


_LANGUAGES = {
    "shopify": _Language(shopify.read, shopify.TOPICS, shopify.URGENT),
    "woocommerce": _Language(woocommerce.read, woocommerce.TOPICS, woocommerce.URGENT),
}


class Outcome(StrEnum):
    """What became of one request of a storefront."""

    TAKEN = "taken"
    AGAIN = "again"  #: it told nothing that was not known
    NOBODY = "nobody"  #: about nobody who could be known again, or whom we do not know
    ERASED = "erased"  #: about somebody who was erased: left out
    UNHEEDED = "unheeded"  #: of a topic that is nothing to us
    NOT_UNDERSTOOD = "not understood"  #: kept in the inbox


class NotTogether(DispatcherError):  # noqa: N818 - named for what it says
    """Together these would not end as they do one after the other."""


@dataclass(slots=True, eq=False)
class _Telling:
    """One request, what it says, and what becomes of it."""

    mail: Mail
    told: Told
    outcome: Outcome | None = None  #: None: not taken yet
    flaw: str | None = None  #: why no sense can be made of it

    @property
    def person(self) -> Particulars:
        assert self.told.particulars is not None, "what is about nobody is not taken"
        return self.told.particulars

    @property
    def customer(self) -> customers.Customer:
        return self.mail.source, self.told.customer_id or ""


def take(database: Engine, key_ring: KeyRing, mails: Sequence[Mail]) -> list[str | None]:
    """Write down what storefronts told; return for each why no sense can be made of it, or None.

    In a few transactions for all of them; if it raises, they may be given again, together or not.
    """
    if not mails:
        return []
    with database.connect() as connection:
        shop = load_shop(connection)
    tellings = [_read(mail, key_ring, shop) for mail in mails]
    taking = _Taking(database, key_ring, {name: _topics(shop, storefront_of(shop, name)) for name in _LANGUAGES})
    untaken = [telling for telling in tellings if telling.outcome is None]
    for alone, some in groupby(untaken, lambda telling: _goes_alone(telling.told)):
        if alone:
            for telling in some:
                taking.take_alone(telling)
        else:
            taking.take_together(list(some))
    with database.begin() as connection:
        count(connection, [(one.mail.source, topic_of(one.mail), str(one.outcome)) for one in tellings])
    return [telling.flaw for telling in tellings]


def _read(mail: Mail, key_ring: KeyRing, shop: Shop) -> _Telling:
    try:
        told = read(mail, key_ring, shop)
    except NotUnderstood as flaw:
        return _Telling(mail, Told(), Outcome.NOT_UNDERSTOOD, str(flaw))
    if told is None:
        return _Telling(mail, Told(), Outcome.UNHEEDED)
    somebody = told.particulars or told.request or told.order
    return _Telling(mail, told, None if somebody else Outcome.NOBODY)


def read(mail: Mail, key_ring: KeyRing, shop: Shop) -> Told | None:
    """Return what a request says; None if its topic is nothing to us; NotUnderstood if it makes no sense."""
    topic, language = topic_of(mail), _LANGUAGES[mail.source]
    if _plain(topic) not in language.topics:
        return None
    how = Reading(
        "shopify" if mail.source == "shopify" else "woocommerce",
        mail.received_at,
        storefront_of(shop, mail.source).interests,
        lambda channel, normal: guest_id(key_ring, channel, normal),
    )
    return language.read(topic, reading.load(mail.body), how)


def is_urgent(source: str, topic: str) -> bool:
    """Whether somebody waits for what a request tells: for a confirmation, or not to be reminded or written to."""
    return _plain(topic) in _LANGUAGES[source].urgent


def _plain(topic: str) -> str:
    return topic.strip().lower().replace("/", "_")


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


def _goes_alone(told: Told) -> bool:
    """Whether it looks at what is known, erases it or makes one of two; all others only add to it."""
    looks = told.order is not None or told.only_if_known
    return looks or told.request is not None or told.absorbed is not None


@dataclass(frozen=True, slots=True)
class _Taking:
    """Requests on their way in: first the people, then what they did, each in a transaction of its own.

    The locks of the people come before those of whoever else an event may concern.
    """

    database: Engine
    key_ring: KeyRing
    topics: dict[str, dict[str, list[str]]]  #: source -> channel -> topics

    def take_together(self, page: Sequence[_Telling]) -> None:
        """Take in what at most 500 requests say of people, in their order, and then what those did."""
        try:
            saved = self._again_if_other_writer(lambda connection: self._save(connection, page))
        except NotTogether:
            half = len(page) // 2
            self.take_together(page[:half])
            self.take_together(page[half:])
            return
        happened = [
            (telling, one.contact_id, telling.told.events)
            for telling, one in zip(page, saved, strict=True)
            if one.contact_id is not None and telling.told.events
        ]
        if happened:
            self._again_if_other_writer(lambda connection: self._record(connection, happened))

    def take_alone(self, telling: _Telling) -> None:
        told = telling.told
        if told.request is not None and told.request.kind == "erasure":
            self._again_if_other_writer(
                lambda connection: requests.make_known(connection, self.key_ring, told.particulars)
            )
        step = self._ask if told.request is not None else self._record_of_known
        step = self._merge if told.absorbed is not None else step
        self._again_if_other_writer(lambda connection: step(connection, telling))

    def _again_if_other_writer(self, step: Callable[[Connection], Result]) -> Result:
        for tries_left in reversed(range(_TRIES)):
            try:
                with self.database.begin() as connection:
                    return step(connection)
            except _OTHER_WRITER:
                if tries_left == 0:
                    raise
        raise AssertionError("unreachable")

    def _save(self, connection: Connection, page: Sequence[_Telling]) -> list[Saved]:
        """Write the people down, and what is said of their consent; return who they are.  Raises NotTogether."""
        lock_identity(connection)
        newest = customers.newest_of(connection, [(telling.customer, telling.told.changed_at) for telling in page])
        given = [replace(telling.person, only_fills=not new) for telling, new in zip(page, newest, strict=True)]
        saved = save_contacts(connection, self.key_ring, given)
        _check_that_together_is_as_good(page, saved)
        customers.remember(
            connection,
            [
                (telling.customer, telling.told.changed_at)
                for telling, one, new in zip(page, saved, newest, strict=True)
                if new and one.contact_id is not None
            ],
        )
        changes = [self._changes(telling, one) for telling, one in zip(page, saved, strict=True)]
        every = list(chain.from_iterable(changes))
        recorded = iter(consent.record(connection, self.key_ring, every, now=read_now(connection)))
        for telling, one, claimed in zip(page, saved, changes, strict=True):
            outcomes = [next(recorded) for _ in claimed]
            news = one.outcome is not SavedAs.UNCHANGED or any(o is not consent.Outcome.KNOWN for o in outcomes)
            taken = Outcome.TAKEN if news else Outcome.AGAIN
            telling.outcome = Outcome.ERASED if one.contact_id is None else taken
        return saved

    def _changes(self, telling: _Telling, saved: Saved) -> list[consent.ConsentChange]:
        """Return the claims as changes; nobody can grant anything for an address that is not known."""
        changes: list[consent.ConsentChange] = []
        for claim in telling.told.claims:
            address_id = saved.email_address_id if claim.channel == "email" else saved.sms_address_id
            if saved.contact_id is None or (address_id is None and claim.action != "withdrawn"):
                continue
            changes += [
                consent.ConsentChange(
                    saved.contact_id, claim.channel, topic, claim.action, "shop", claim.source, claim.occurred_at,
                    address_id, opt_in_level=claim.opt_in_level,
                )
                for topic in self.topics[telling.mail.source][claim.channel]
            ]  # fmt: skip
        return changes

    def _record(self, connection: Connection, happened: Sequence[tuple[_Telling, int | None, Sequence[Event]]]) -> None:
        """Record what happened, but for carts that are told of as they were after their order."""
        events = [(contact_id, event) for _, contact_id, events in happened for event in events if contact_id]
        over = carts.ordered_before(connection, events)
        recorded = record_events(
            connection, self.key_ring, [event for _, _, events in happened for event in events if id(event) not in over]
        )
        refused = {id(refusal.event): refusal for refusal in recorded.refused}
        news = set(recorded.new_keys)
        for telling, _, events_told in happened:
            for event in events_told:
                refusal = refused.get(id(event))
                if refusal is not None and not refusal.other_body:
                    telling.outcome = Outcome.ERASED
                elif refusal is not None and not telling.told.first_stays:
                    telling.outcome, telling.flaw = Outcome.NOT_UNDERSTOOD, refusal.reason
                elif event.key in news and id(event) not in over:
                    news.remove(event.key)
                    telling.outcome = Outcome.TAKEN

    def _record_of_known(self, connection: Connection, telling: _Telling) -> None:
        """Record what happened to a known customer, or to an order for whoever placed it."""
        told = telling.told
        known = (
            carts.buyer_of(connection, telling.mail.source, told.order)
            if told.particulars is None
            else customers.known_as(connection, told.particulars.external_id)
        )
        if known is None:
            telling.outcome = Outcome.NOBODY
            return
        telling.outcome = Outcome.AGAIN
        self._record(connection, [(telling, None, [replace(event, contact=known) for event in told.events])])

    def _merge(self, connection: Connection, telling: _Telling) -> None:
        """Make one contact of the customer that was kept and the one that went up in it."""
        kept, gone = telling.person.external_id, telling.told.absorbed
        assert gone is not None
        were_two = merging.merge(connection, self.key_ring, kept, gone, by=telling.mail.source)
        telling.outcome = {None: Outcome.ERASED, True: Outcome.TAKEN, False: Outcome.AGAIN}[were_two]

    def _ask(self, connection: Connection, telling: _Telling) -> None:
        """Keep what is asked for; who is to be erased is erased."""
        request = telling.told.request
        assert request is not None
        fresh = requests.record(connection, self.key_ring, telling.mail.source, request, telling.told.particulars)
        telling.outcome = Outcome.TAKEN if fresh else Outcome.AGAIN


def _check_that_together_is_as_good(page: Sequence[_Telling], saved: Sequence[Saved]) -> None:
    """Raise NotTogether where a request looks at what an earlier one did beyond what it says itself."""
    if len(page) == 1:
        return
    if any(one.lost is not None for one in saved):  # a merge weighs the consent that both have by then
        raise NotTogether("two contacts became one")
    claimed = {one.contact_id for telling, one in zip(page, saved, strict=True) if telling.told.claims}
    for column in ("email_address_id", "sms_address_id"):  # what is allowed is allowed at the address one has by then
        named = {(one.contact_id, getattr(one, column)) for one in saved if one.contact_id in claimed}
        named = {(contact_id, address_id) for contact_id, address_id in named if address_id is not None}
        if len(named) > len({contact_id for contact_id, _ in named}):
            raise NotTogether("somebody who allowed or withdrew something has two addresses")
    seen: set[customers.Customer] = set()
    for telling, one in reversed(list(zip(page, saved, strict=True))):
        if one.contact_id is None and telling.told.changed_at is not None and telling.customer in seen:
            raise NotTogether("a record was left out that an older one of the same customer comes after")
        seen.add(telling.customer)
