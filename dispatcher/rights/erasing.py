"""The request to be erased: an unsubscribe of everything, from which moment on nothing is authorised for them.

One transaction, under the locks that every authorisation takes: each message was either authorised before it, or sees
it.  What was authorised before is waited for (`finishing`), and only then is the data key destroyed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import Connection, Row, text

from dispatcher import audit, clock, consent, db, outranked, suppression
from dispatcher.consent import ConsentChange
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts, lock_identity
from dispatcher.rights.people import Family, family_of


@dataclass(frozen=True, slots=True)
class Erasure:
    """A request to be erased, committed with the caller's transaction."""

    id: int
    contact_id: int  #: the contact as it is today: what the one asked for was merged into
    requested_at: datetime  #: engine time
    in_flight: tuple[UUID, ...]  #: messages that were authorised before; until they settle it is in progress


@dataclass(frozen=True, slots=True)
class ErasureState:
    """How far an erasure has come."""

    id: int
    state: Literal["in progress", "done"]
    requested_at: datetime
    requested_by: str
    done_at: datetime | None
    proof: dict[str, Any] | None  #: once done: what was destroyed, in figures, and the fingerprints of the keys


def erasure_state(connection: Connection, contact_id: int) -> ErasureState | None:
    """Return how far the erasure of this contact, or of what it was merged into, has come; None: nobody asked."""
    row = connection.execute(
        text("""SELECT e.* FROM contact c JOIN erasure e ON e.contact_id = COALESCE(c.merged_into, c.id)
                WHERE c.id = :id"""),
        {"id": contact_id},
    ).one_or_none()
    return None if row is None else state_of_row(row)


def state_of_row(row: Row[Any]) -> ErasureState:
    state: Literal["in progress", "done"] = "in progress" if row.done_at is None else "done"
    return ErasureState(row.id, state, row.requested_at, row.requested_by, row.done_at, row.proof)


def request_erasure(connection: Connection, key_ring: KeyRing, contact_id: int, *, by: str) -> Erasure:
    """Begin to erase the person behind this contact, and return what is still in flight; asking twice is harmless.

    Takes the locks: identity, contacts, addresses.  NotFound if there is no such contact.  `by`: who, for the audit.
    """
    lock_identity(connection)  # no import, no merge, no change of address until we commit
    family = family_of(connection, contact_id)
    lock_contacts(connection, [*family.ids, *family.sharing])
    lock_addresses(connection, family.addresses)
    known = erasure_state(connection, family.contact_id)
    if known is not None:
        return Erasure(known.id, family.contact_id, known.requested_at, in_flight(connection, family))
    now = clock.read_now(connection)
    erasure_id: int = connection.execute(_REQUEST, {"id": family.contact_id, "now": now, "by": by}).scalar_one()
    # The version rises, so that what a worker has rendered already is not what it may send.
    connection.execute(_MARK, {"ids": list(family.ids), "now": now})
    skipped = skip_pending(connection, family, now)
    flying = in_flight(connection, family)  # a statement of its own, so it sees all before us
    source = f"erasure {erasure_id}"
    for address_id in family.addresses:
        suppression.add(connection, address_id, "erasure", source=source, now=now)
    withdrawn = _withdraw_all(connection, key_ring, family, source, now)
    audit.record(
        connection, by, "erasure.requested", f"contact {family.contact_id}",
        {"erasure": erasure_id, "contacts": len(family.ids), "addresses_suppressed": len(family.addresses),
         "consents_withdrawn": withdrawn, "messages_skipped": skipped, "messages_in_flight": len(flying)},
    )  # fmt: skip
    db.notify(connection, "erasure")
    return Erasure(erasure_id, family.contact_id, now, flying)


_REQUEST = text("""
    INSERT INTO erasure (contact_id, requested_at, requested_by, order_seq)
    VALUES (:id, :now, :by, nextval('order_seq')) RETURNING id
""")
_MARK = text("UPDATE contact SET erased_at = :now, version = version + 1 WHERE id = ANY(:ids)")
_SKIP = text("""
    UPDATE message SET status = 'skipped', reason = 'SUPPRESSED', deferred_reason = NULL, batch_id = NULL,
                       facts = CAST(:facts AS jsonb), settled_at = :now
    WHERE status = 'pending' AND contact_id = ANY(:ids)
""")
# By contact, whatever its class; and what sells, by address: whoever shares one is written to there no more, either.
_IN_FLIGHT = text("""
    SELECT id FROM message WHERE status = 'sending' AND contact_id = ANY(:ids)
    UNION SELECT id FROM message
    WHERE status = 'sending' AND class = 'marketing' AND authorised_at IS NOT NULL AND address_id = ANY(:addresses)
    ORDER BY id
""")


def skip_pending(connection: Connection, family: Family, now: datetime) -> int:
    """Skip whatever waits for its turn, of every class: there will be nobody to write to.  Return how many."""
    facts = orjson.dumps({"suppression": "erasure", "scope": "all", "suppressed_at": now}).decode()
    skipped = connection.execute(_SKIP, {"ids": list(family.ids), "facts": facts, "now": now}).rowcount
    if skipped:
        outranked.wake(connection, family.ids, now)
    return skipped


def in_flight(connection: Connection, family: Family) -> tuple[UUID, ...]:
    """Return the messages that were authorised, and of which nobody knows yet whether they left."""
    return tuple(connection.scalars(_IN_FLIGHT, {"ids": list(family.ids), "addresses": list(family.addresses)}))


_HELD = text("SELECT channel, topic, state, address_id FROM consent WHERE contact_id = :id ORDER BY channel, topic")
_UNSUBSCRIBE = text("""
    INSERT INTO unsubscribe (contact_id, address_id, channel, topic, committed_at)
    SELECT contact_id, address_id, channel, topic, :now FROM consent WHERE contact_id = :id
""")


def _withdraw_all(connection: Connection, key_ring: KeyRing, family: Family, source: str, now: datetime) -> int:
    """Record that the person withdraws every topic they ever spoke of; return how many were granted or asked for."""
    held = connection.execute(_HELD, {"id": family.contact_id}).all()
    connection.execute(_UNSUBSCRIBE, {"id": family.contact_id, "now": now})
    changes = [
        ConsentChange(family.contact_id, row.channel, row.topic, "withdrawn", "person", source, now, row.address_id)
        for row in held
        if row.state != "withdrawn"
    ]
    consent.record(connection, key_ring, changes, now=now)
    return len(changes)
