"""Messages one by one: asked for by the shop (an order confirmation, a sign-in code), looked at, stopped.

Those it asks for are addressed by the shop's own key (client and Idempotency-Key), belong to the standing run of their
template's content, and are born in a batch: no planning, no waiting behind a campaign.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Row, text

from dispatcher import audit, clock, outranked
from dispatcher.definitions import EXPIRES_AFTER
from dispatcher.errors import DispatcherError, NotFound, Refused
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_contacts
from dispatcher.runs import template_of
from dispatcher.standing import standing_run, write_message

LONGEST_KEY = 255


class KeyReused(DispatcherError):  # noqa: N818 - named for what it says, like the rest of its family
    """The same Idempotency-Key came with another body."""


class NotPending(DispatcherError):  # noqa: N818 - named for what it says
    """A message that can no longer be stopped."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the shop asks for."""

    template: str
    channel: str
    contact: str  #: external id
    data: dict[str, Any]  #: what the template may use; personal, so it is only ever stored sealed


def submit(
    connection: Connection,
    key_ring: KeyRing,
    wish: Wish,
    *,
    client: str,
    idempotency_key: str,
    topic: str | None = None,
    by: str | None = None,
) -> UUID:
    """Return the id of the message that `client` asked for under this key; the first time it is made, and due now.

    `topic`: what this one message is about; default: the template's.  `by`: whom the audit names for it.
    Raises NotFound (contact), Refused (template), or KeyReused.
    """
    if not 0 < len(idempotency_key) <= LONGEST_KEY or not idempotency_key.isprintable():
        raise Refused(f"an idempotency key is 1 to {LONGEST_KEY} printable characters")
    body_hash = _body_hash(key_ring, wish)
    known = _find(connection, client, idempotency_key)
    if known is not None:
        return _same(known, body_hash, idempotency_key)
    run = _standing_run(connection, wish)
    contact = _hold_contact(connection, wish.contact)
    sealed = key_ring.open_data_key(contact.data_key).seal(wish.data)
    now = clock.read_now(connection)
    message_id = write_message(
        connection, run, contact_id=contact.id, address_id=contact._mapping[wish.channel], topic=topic or run.topic,
        client=client, key=idempotency_key, body_hash=body_hash, sealed=sealed, now=now,
        expires_at=now + EXPIRES_AFTER[run._mapping["class"]],
    )  # fmt: skip
    if message_id is None:  # another request with this key was quicker; it has committed, else we would still wait
        return _same(_find(connection, client, idempotency_key), body_hash, idempotency_key)
    if by is not None:
        audit.record(connection, by, "message.asked", str(message_id), {"template": wish.template})
    return message_id


def read(connection: Connection, message_id: UUID) -> dict[str, Any]:
    """Return what became of a message, as the API tells it; NotFound if there is none."""
    row = connection.execute(
        text(
            """
            SELECT m.id, m.run_id AS run, t.name AS template, g.name AS trigger, c.external_id AS contact, m.channel,
                   m.class, m.topic, m.status, COALESCE(m.reason, m.deferred_reason) AS reason,
                   CASE m.reason WHEN 'RENDER_FAILED' THEN m.facts->>'because' END AS because, m.due_at, m.expires_at,
                   m.authorised_at, m.handed_over_at, m.settled_at
            FROM message m JOIN run r ON r.id = m.run_id JOIN template t ON t.hash = r.template_hash
            JOIN contact c ON c.id = m.contact_id LEFT JOIN trigger g ON g.id = m.trigger_id
            WHERE m.id = :id
            """
        ),
        {"id": message_id},
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no message {message_id}")
    return dict(row._mapping)


def cancel(connection: Connection, message_id: UUID, *, by: str) -> dict[str, Any]:
    """Never send a message that has not left yet, and return what `read` tells of it; cancelling twice is harmless.

    Raises NotFound, or NotPending if it is under way or has come to its end.
    """
    contact_id = _hold_contact_of(connection, message_id)
    now = clock.read_now(connection)
    cancelled = connection.execute(
        text("""UPDATE message SET status = 'cancelled', reason = 'OPERATOR', deferred_reason = NULL, batch_id = NULL,
                       facts = jsonb_build_object('cancelled_by', CAST(:by AS text)), settled_at = :now
                WHERE id = :id AND status = 'pending'"""),
        {"id": message_id, "by": by, "now": now},
    )
    if cancelled.rowcount:
        audit.record(connection, by, "message.cancelled", str(message_id), {})
        outranked.wake(connection, [contact_id], now)
    told = read(connection, message_id)
    if told["status"] != "cancelled":
        raise NotPending(f"message {message_id} is {told['status']}; only what is pending can be cancelled")
    return told


def _hold_contact_of(connection: Connection, message_id: UUID) -> int:
    """Lock whom the message is for: a merge or an event may give it to somebody else while we wait."""
    find = text("SELECT contact_id FROM message WHERE id = :id")
    while (contact_id := connection.scalar(find, {"id": message_id})) is not None:
        with connection.begin_nested() as look:
            lock_contacts(connection, [contact_id])
            if connection.scalar(find, {"id": message_id}) == contact_id:
                return int(contact_id)
            look.rollback()
    raise NotFound(f"there is no message {message_id}")


def _body_hash(key_ring: KeyRing, wish: Wish) -> bytes:
    """Return a keyed hash: a plain one of a six-digit code could be guessed by whoever reads the database."""
    try:
        body = orjson.dumps([wish.template, wish.channel, wish.contact, wish.data], option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise Refused(f"the data cannot be stored as JSON: {error}") from error
    try:
        json.dumps(wish.data, allow_nan=False)  # orjson would keep null, and the message would say that
    except ValueError:
        raise Refused("the data cannot be stored as JSON: NaN and Infinity are no numbers there") from None
    if rb"\u0000" in body:
        raise Refused("the data holds a NUL character, which no message can show")
    return key_ring.address_hash("message body", body.decode())


def _find(connection: Connection, client: str, idempotency_key: str) -> Row[Any] | None:
    return connection.execute(
        text("SELECT id, body_hash FROM message WHERE client = :client AND idempotency_key = :key"),
        {"client": client, "key": idempotency_key},
    ).one_or_none()


def _same(known: Row[Any] | None, body_hash: bytes, idempotency_key: str) -> UUID:
    if known is None or bytes(known.body_hash) != body_hash:
        raise KeyReused(f"Idempotency-Key {idempotency_key!r} was used before with another body; take a new key")
    return UUID(str(known.id))


def _standing_run(connection: Connection, wish: Wish) -> Row[Any]:
    """Return the run that all messages of this template's content belong to; the first message makes it."""
    try:
        template_hash, meta = template_of(connection, wish.channel, wish.template)
    except NotFound as error:  # the request names it, but is not about it
        raise Refused(str(error)) from None
    if meta.class_ == "marketing":
        raise Refused(
            f"template {wish.template} is {meta.class_}; only transactional and security ones are sent singly"
        )
    return standing_run(
        connection, template_hash, name=wish.template, channel=wish.channel, class_=meta.class_, topic=meta.topic,
        now=clock.read_now(connection),
    )  # fmt: skip


def _hold_contact(connection: Connection, external_id: str) -> Row[Any]:
    """Return the contact behind `external_id`, whatever it was merged into, with its data key held against erasure."""
    contact_id = connection.scalar(
        text("SELECT contact_id FROM contact_alias WHERE external_id = :external_id"), {"external_id": external_id}
    )
    while contact_id is not None:
        with connection.begin_nested() as look:
            contact = connection.execute(
                text(
                    "SELECT id, data_key, merged_into, erased_at, email_address_id AS email, sms_address_id AS sms "
                    "FROM contact WHERE id = :id FOR SHARE"
                ),
                {"id": contact_id},
            ).one()
            if contact.merged_into is None and contact.erased_at is None:
                return contact
            look.rollback()  # a tombstone is let go before its survivor, the lower id, is held: contacts by id
        contact_id = contact.merged_into
    raise NotFound(f"there is no contact {external_id}")
