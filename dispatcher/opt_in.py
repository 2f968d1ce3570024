"""Double opt-in: a request, a message that asks whether it was really them, and the click that says yes.

The click is an act of the person, so it grants also after an earlier withdrawal; a withdrawal after the request takes
the request back, and the link with it.  The link is for one request, one address and seven days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from dispatcher import clock, consent, messages, suppression
from dispatcher.consent.evidence import read_evidence
from dispatcher.consent.rules import can_be_confirmed
from dispatcher.contacts.finding import Holding
from dispatcher.definitions import DEFAULT_CONFIRMATION, Shop
from dispatcher.errors import NotFound, Refused
from dispatcher.frozen_templates import load_template
from dispatcher.instants import show_instant
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts
from dispatcher.runs import template_of
from dispatcher.tokens import BadToken, WayIn

#: How long a link is good, from its request.
VALID_FOR = timedelta(days=7)
#: At most one confirmation message per address and topic in so long a time.
ONE_EVERY = timedelta(hours=24)
#: Who asks for these messages, in `message.client`; no API key can have this name.  The key is the request.
CLIENT = "dispatcher:opt-in"


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of a request."""

    request_id: int | None  #: of its evidence; None: they have granted it, so nothing was asked
    state: str  #: of the consent, after it
    message_id: UUID | None  #: the confirmation; None: none is sent
    because: str | None = None  #: why none is sent
    again_at: datetime | None = None  #: when the next one may be asked for, if only time is in the way


def request(
    connection: Connection,
    key_ring: KeyRing,
    shop: Shop,
    held: Holding,
    topic: str,
    *,
    actor: consent.Actor,
    source: str,
    occurred_at: datetime | None = None,
    wording: Mapping[str, str] | None = None,
    sealed: Mapping[str, str] | None = None,
) -> Asked:
    """Record that somebody asked for a topic, and have the confirmation sent, at most one a day.

    `held` is the contact, locked with the address; Refused without an address, or without a template to ask with.
    """
    if held.address_id is None:
        raise Refused(f"contact {held.external_id} has no address for {held.channel}, so there is nobody to ask")
    template = _template_for(connection, shop, held.channel, topic)
    present = _state(connection, held, topic)
    has_confirmed = present is not None and present.confirmed and present.for_present_address
    if has_confirmed and not _closed_by_its_reader(connection, held.address_id):
        return Asked(None, "granted", None, "they have confirmed it already")
    last = _last_asked_at(connection, held.address_id, topic)
    change = consent.ConsentChange(
        held.contact_id, held.channel, topic, "requested", actor, source, occurred_at or held.now, held.address_id,
        wording=wording, sealed=sealed,
    )  # fmt: skip
    consent.record(connection, key_ring, [change], now=held.now)
    now_held = _state(connection, held, topic)
    assert now_held is not None  # it was just asked for
    request_id = _newest_request(connection, held, topic)
    if not can_be_confirmed(_evidence(connection, held.contact_id, held.channel, topic), request_id):
        return Asked(request_id, now_held.state, None, "they have withdrawn it since they asked")
    if last is not None and held.now - last < ONE_EVERY:
        again_at = last + ONE_EVERY
        because = f"a confirmation was asked for less than 24 hours ago; the next one at {show_instant(again_at)}"
        return Asked(request_id, now_held.state, None, because, again_at)
    data = {"request": request_id, "address": held.address_id, "topic": topic}
    wish = messages.Wish(template, held.channel, held.external_id, data)
    message_id = messages.submit(
        connection, key_ring, wish, client=CLIENT, idempotency_key=str(request_id), topic=topic
    )
    return Asked(request_id, now_held.state, message_id)


def way_in_of(message: Row[Any], channel: str, data: Mapping[str, Any]) -> WayIn:
    """Return what the link of a confirmation message lets its reader confirm, from what `request` put into it.

    Refused if the contact has another address by now: it was the former one that asked.
    """
    if message.address_id != data["address"]:
        raise Refused("the contact's address has changed since the opt-in was asked for")
    return WayIn(message.contact_id, channel, data["topic"], data["address"], data["request"])


@dataclass(frozen=True, slots=True)
class Offer:
    """A link that is good: whom it is for, and whether it was used."""

    contact_id: int  #: the contact of the link, or what it was merged into
    used: bool


def look(connection: Connection, way_in: WayIn) -> Offer:
    """Return what the link offers now, changing nothing; BadToken if nothing (any more)."""
    contact = _contact(connection, way_in)
    asked = connection.execute(_REQUEST, {"id": way_in.request_id}).one_or_none()
    if (
        contact is None
        or contact.address_id != way_in.address_id  # a changed address voids what was asked for the former one
        or asked is None
        or (asked.channel, asked.topic, asked.address_id) != (way_in.channel, way_in.topic, way_in.address_id)
        or asked.received_at + VALID_FOR <= clock.read_now(connection)
        or _opted_out_since(connection, way_in.address_id, asked.order_seq)
        or not can_be_confirmed(_evidence(connection, contact.id, way_in.channel, way_in.topic), way_in.request_id)
    ):
        raise BadToken
    used = connection.scalar(_WAS_USED, {"contact": contact.id, "request": way_in.request_id})
    return Offer(contact.id, used=bool(used))


def waiting(connection: Connection, contact_id: int, now: datetime) -> set[tuple[str, str, int]]:
    """Return (channel, topic, address) of every request of a contact whose link could still be used for the first time.

    A grant since then, or anything that voids the link, is for the caller to see.
    """
    found = set()
    for (_, channel, topic), pieces in read_evidence(connection, [contact_id]).items():
        requests = [piece for piece in pieces if piece.action == "requested" and piece.address_id is not None]
        newest = max(requests, key=lambda piece: piece.id, default=None)
        if newest is None or newest.address_id is None or newest.received_at + VALID_FOR <= now:
            continue
        if can_be_confirmed(pieces, newest.id):
            found.add((channel, topic, newest.address_id))
    return found


def confirm(
    connection: Connection, key_ring: KeyRing, way_in: WayIn, *, sealed: Mapping[str, str] | None = None
) -> Offer:
    """Grant what the link is for; a second time changes nothing.  BadToken if it offers nothing (any more).

    Takes the locks.  The person's own earlier opt-out of this address is lifted with it.  `sealed`: IP and user agent.
    """
    contact = _contact(connection, way_in)
    if contact is None:
        raise BadToken
    holders = _holders(connection, way_in)
    lock_contacts(connection, {contact.id, way_in.contact_id, *holders})
    lock_addresses(connection, [way_in.address_id])
    if _holders(connection, way_in) != holders or _contact(connection, way_in) != contact:
        raise Refused("this address is changing hands right now; try again")
    offer = look(connection, way_in)  # afresh, under the locks
    if offer.used:
        return offer
    now = clock.read_now(connection)
    confirmation = _confirmation(connection, way_in)
    change = consent.ConsentChange(
        offer.contact_id, way_in.channel, way_in.topic, "granted", "person", "confirmation link", now,
        way_in.address_id, opt_in_level=consent.CONFIRMED, confirmation=confirmation, sealed=sealed,
        wording=_wording(connection, confirmation, contact.locale),
    )  # fmt: skip
    _lift_opt_outs(connection, key_ring, way_in, offer.contact_id, holders, now)
    consent.record(connection, key_ring, [change], now=now)
    return offer


def _template_for(connection: Connection, shop: Shop, channel: str, topic: str) -> str:
    name = shop.topics[topic].confirmation or DEFAULT_CONFIRMATION
    try:
        _, meta = template_of(connection, channel, name)
    except NotFound as error:
        raise Refused(f"topic {topic} has nothing to ask with: {error}") from error
    if meta.class_ != "transactional":
        raise Refused(f"template {channel}/{name} is {meta.class_}; an opt-in confirmation is transactional")
    return name


def _state(connection: Connection, held: Holding, topic: str) -> consent.Held | None:
    states = consent.state_of(connection, held.contact_id)
    return next((one for one in states if (one.channel, one.topic) == (held.channel, topic)), None)


def _evidence(connection: Connection, contact_id: int, channel: str, topic: str) -> list[consent.Evidence]:
    return read_evidence(connection, [contact_id])[contact_id, channel, topic]


# One that certainly never left does not count.
_LAST_ASKED = text("""
    SELECT max(m.first_due_at) FROM consent_event e
    JOIN message m ON m.client = :client AND m.idempotency_key = CAST(e.id AS text)
    WHERE e.action = 'requested' AND e.address_id = :address AND e.topic = :topic
      AND m.status NOT IN ('skipped', 'failed', 'cancelled')
""")


def _last_asked_at(connection: Connection, address_id: int, topic: str) -> datetime | None:
    """Return when the newest confirmation for this address and topic was asked for, whoever has the address."""
    values = {"client": CLIENT, "address": address_id, "topic": topic}
    found: datetime | None = connection.scalar(_LAST_ASKED, values)
    return found


def _newest_request(connection: Connection, held: Holding, topic: str) -> int:
    found: int = connection.execute(
        text("""SELECT max(id) FROM consent_event
                WHERE action = 'requested' AND contact_id = :contact AND channel = :channel AND topic = :topic"""),
        {"contact": held.contact_id, "channel": held.channel, "topic": topic},
    ).scalar_one()
    return found


def _contact(connection: Connection, way_in: WayIn) -> Row[Any] | None:
    return connection.execute(
        text(f"""SELECT c.id, c.locale, c.{way_in.channel}_address_id AS address_id
                 FROM contact t JOIN contact c ON c.id = COALESCE(t.merged_into, t.id)
                 WHERE t.id = :id AND c.erased_at IS NULL"""),  # noqa: S608 - one of two channel names
        {"id": way_in.contact_id},
    ).one_or_none()


def _holders(connection: Connection, way_in: WayIn) -> list[int]:
    """Return everybody who has the address of the link."""
    return list(
        connection.scalars(
            text(f"SELECT id FROM contact WHERE {way_in.channel}_address_id = :address ORDER BY id"),  # noqa: S608 - one of two names
            {"address": way_in.address_id},
        )
    )


_REQUEST = text("""
    SELECT channel, topic, address_id, received_at, order_seq FROM consent_event
    WHERE id = :id AND action = 'requested'
""")
_WAS_USED = text("""
    SELECT EXISTS (
        SELECT FROM consent_event e JOIN contact c ON c.id = e.contact_id
        WHERE e.action = 'granted' AND :contact IN (c.id, c.merged_into)
          AND CAST(e.confirmation->>'request' AS bigint) = :request)
""")


def _opted_out_since(connection: Connection, address_id: int, order_seq: int) -> bool:
    """Whether the person closed this address to us after they asked: by complaint, an old link, STOP, erasure."""
    return bool(
        connection.scalar(
            text("""SELECT EXISTS (SELECT FROM suppression WHERE address_id = :address AND order_seq > :order_seq
                        AND reason = ANY(:own))"""),
            {"address": address_id, "order_seq": order_seq, "own": sorted(suppression.OWN_OPT_OUTS)},
        )
    )


def _confirmation(connection: Connection, way_in: WayIn) -> dict[str, Any]:
    """Return what proves that the message was sent: it is kept in the evidence, for the ledger's row may not stay."""
    row = connection.execute(
        text("""SELECT m.id, m.status, m.provider, m.provider_ref, m.handed_over_at, r.name, r.template_hash
                FROM message m JOIN run r ON r.id = m.run_id
                WHERE m.client = :client AND m.idempotency_key = :key"""),
        {"client": CLIENT, "key": str(way_in.request_id)},
    ).one_or_none()
    found: dict[str, Any] = {"request": way_in.request_id}
    if row is not None:
        found |= {
            "message": str(row.id),
            "status": row.status,
            "provider": row.provider,
            "provider_ref": row.provider_ref,
            "sent_at": None if row.handed_over_at is None else show_instant(row.handed_over_at),
            "template": row.name,
            "template_hash": row.template_hash,
        }
    return found


def _wording(connection: Connection, confirmation: dict[str, Any], locale: str | None) -> dict[str, str] | None:
    """Return what they were asked with: the template's content, which is kept for ever, and its language."""
    template_hash = confirmation.get("template_hash")
    if template_hash is None:
        return None
    language = load_template(connection, template_hash).variant(locale).locale
    return {"id": confirmation["template"], "hash": template_hash, "language": language}


#: What a confirmation takes back.
_LIFTED: tuple[suppression.Reason, ...] = ("unsubscribe", "complaint")


def _closed_by_its_reader(connection: Connection, address_id: int) -> list[suppression.Reason]:
    """Return the opt-outs of this address that only its reader can take back, by confirming."""
    return [one.reason for one in suppression.suppressions_of(connection, address_id) if one.reason in _LIFTED]


def _lift_opt_outs(
    connection: Connection, key_ring: KeyRing, way_in: WayIn, confirming: int, holders: Sequence[int], now: datetime
) -> None:
    """Open an address again that its reader had closed to everything: to this contact's topic, and to nothing else.

    The opt-out stood in for a withdrawal of all there is, so each of the rest is withdrawn before it goes.
    """
    reasons = _closed_by_its_reader(connection, way_in.address_id)
    if not reasons:
        return
    for contact_id in holders:
        topics = [
            one.topic
            for one in consent.state_of(connection, contact_id)
            if one.channel == way_in.channel
            and one.state != "withdrawn"
            and (contact_id, one.topic) != (confirming, way_in.topic)
        ]
        consent.withdraw(
            connection, key_ring, contact_id, way_in.channel, topics, address_id=way_in.address_id,
            source=f"the address was closed to everything ({reasons[0]}), and only {way_in.topic} was opened again",
            now=now,
        )  # fmt: skip
    for reason in reasons:
        suppression.remove(connection, way_in.address_id, reason, by="opt-in confirmation", as_the_person=True)
