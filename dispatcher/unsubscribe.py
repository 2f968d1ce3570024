"""The unsubscribe barrier: done means done.

One transaction writes the withdrawal under the contact and address locks that every authorisation takes too, so each
message was either authorised before it, or sees it.  The first kind is then waited for: 200 says that nothing for this
person is on the wire any more, 202 that something may be.  The instant of the answer is stored before it is given.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, text

from dispatcher import audit, clock, consent, locks, opt_in, outranked, suppression
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.tokens import BadToken, WayOut

#: How long an answer waits for messages that were authorised before.
LONGEST_WAIT = timedelta(seconds=5)
#: How often it looks; each look is a transaction of its own, and nothing is held in between.
LOOK_EVERY = timedelta(milliseconds=50)

DONE, WORKING_ON_IT = 200, 202
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A committed withdrawal, not yet answered, and the messages that were on the wire when it was made."""

    id: int
    on_the_wire: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int  #: 200 or 202
    answered_at: datetime  #: in engine time, stored before this was returned


@dataclass(frozen=True, slots=True)
class _People:
    """Who a link speaks for.  All are locked; the withdrawal is written for `withdrawing` only."""

    present: int  #: the contact of the token, or what it was merged into
    family: tuple[int, ...]  #: that contact and the tombstones merged into it, whose messages are its own
    sharing: tuple[int, ...]  #: others at the same address: consent belongs to the address, not to a name
    addresses: tuple[int, ...]  #: the token's and the present one
    former: bool  #: the token's address is not the contact's any more
    successors: tuple[int, ...]  #: who has that former address now; it is suppressed for them too

    @property
    def withdrawing(self) -> tuple[int, ...]:
        return (self.present, *self.sharing)

    @property
    def speaking(self) -> tuple[int, ...]:
        """Whose messages of this topic stop."""
        return (*self.family, *self.sharing)


def withdraw(database: Engine, key_ring: KeyRing, way_out: WayOut, *, source: str) -> Answer:
    """Withdraw the consent that `way_out` names, wait until nothing is on the wire, and say so; safe to repeat.

    Blocks for up to `LONGEST_WAIT`.  The web room, which must not, calls the three steps itself.
    """
    withdrawal = begin(database, key_ring, way_out, source=source)
    deadline = time.monotonic() + LONGEST_WAIT.total_seconds()
    while time.monotonic() < deadline and is_on_the_wire(database, withdrawal):
        time.sleep(LOOK_EVERY.total_seconds())
    return answer(database, withdrawal)


def begin(
    database: Engine, key_ring: KeyRing, way_out: WayOut, *, source: str, sealed: Mapping[str, str] | None = None,
    audited_by: str | None = None,
) -> Withdrawal:  # fmt: skip
    """Commit the withdrawal.  From here on nothing is authorised for them; BadToken if there is no such contact.

    `sealed`: IP and user agent of the click; kept with the evidence, under the key of the link's own contact.
    `audited_by`: who is in the audit with it.
    """
    for _ in range(_ATTEMPTS):
        with database.begin() as connection:
            people = _lock_people(connection, way_out)
            if people is not None:
                if audited_by is not None:
                    about = {"channel": way_out.channel, "topic": way_out.topic}
                    audit.record(connection, audited_by, "preferences.leave", f"contact {people.present}", about)
                return _write(connection, key_ring, way_out, people, source, sealed)
    raise Refused("this contact is being merged or moved right now; try again")


def is_on_the_wire(database: Engine, withdrawal: Withdrawal) -> bool:
    """Whether one of the messages authorised before the withdrawal has not settled yet."""
    if not withdrawal.on_the_wire:
        return False
    with database.connect() as connection:
        return _is_on_the_wire(connection, withdrawal)


def answer(database: Engine, withdrawal: Withdrawal) -> Answer:
    """Store what is said and when, and return it: only then may it be said."""
    with database.begin() as connection:
        status = WORKING_ON_IT if _is_on_the_wire(connection, withdrawal) else DONE
        now = clock.read_now(connection)
        connection.execute(
            text("UPDATE unsubscribe SET answered_at = :now, answer = :status WHERE id = :id"),
            {"now": now, "status": status, "id": withdrawal.id},
        )
    return Answer(status, now)


def _is_on_the_wire(connection: Connection, withdrawal: Withdrawal) -> bool:
    # A message that went back to pending counts as settled: its next authorisation sees the withdrawal.
    return bool(
        connection.scalar(
            text("SELECT EXISTS (SELECT FROM message WHERE id = ANY(:ids) AND status = 'sending')"),
            {"ids": list(withdrawal.on_the_wire)},
        )
    )


def _lock_people(connection: Connection, way_out: WayOut) -> _People | None:
    """Lock everybody the link speaks for, contacts first, then addresses; None if that changed while we waited."""
    people = _find_people(connection, way_out)
    locks.lock_contacts(connection, [*people.speaking, *people.successors])
    locks.lock_addresses(connection, people.addresses)
    return people if _find_people(connection, way_out) == people else None


_FAMILY = text("""
WITH RECURSIVE up AS (
    SELECT id, merged_into FROM contact WHERE id = :contact_id
    UNION SELECT c.id, c.merged_into FROM contact c JOIN up ON c.id = up.merged_into
), down AS (
    SELECT id FROM up WHERE merged_into IS NULL
    UNION SELECT c.id FROM contact c JOIN down ON c.merged_into = down.id
)
SELECT c.id, c.merged_into IS NULL AS present, c.email_address_id AS email, c.sms_address_id AS sms
FROM contact c JOIN down USING (id) ORDER BY c.id
""")

_AT_ADDRESS = """
SELECT id FROM contact
WHERE {channel}_address_id = :address_id AND merged_into IS NULL AND erased_at IS NULL ORDER BY id
"""


def _find_people(connection: Connection, way_out: WayOut) -> _People:
    family = connection.execute(_FAMILY, {"contact_id": way_out.contact_id}).all()
    present = next((row for row in family if row.present), None)
    if present is None:  # a true token of a contact that a restored backup does not know
        raise BadToken
    family_ids = tuple(row.id for row in family)
    address_id = present._mapping[way_out.channel]
    former = address_id != way_out.address_id
    return _People(
        present=present.id,
        family=family_ids,
        sharing=_others_at(connection, way_out.channel, address_id, family_ids),
        addresses=tuple(sorted({way_out.address_id, address_id} - {None})),
        former=former,
        successors=_others_at(connection, way_out.channel, way_out.address_id, family_ids) if former else (),
    )


def _others_at(
    connection: Connection, channel: str, address_id: int | None, family: tuple[int, ...]
) -> tuple[int, ...]:
    at_address = connection.scalars(text(_AT_ADDRESS.format(channel=channel)), {"address_id": address_id})
    return tuple(contact_id for contact_id in at_address if contact_id not in family)


def _write(
    connection: Connection,
    key_ring: KeyRing,
    way_out: WayOut,
    people: _People,
    source: str,
    sealed: Mapping[str, str] | None,
) -> Withdrawal:
    now = clock.read_now(connection)
    scope = {
        "contact_id": people.present,
        "contacts": list(people.speaking),
        "address_id": way_out.address_id,
        "addresses": list(people.addresses),
        "former": people.former,
        "channel": way_out.channel,
        "topic": way_out.topic,
        "now": now,
    }
    _skip_pending(connection, scope)
    on_the_wire = tuple(connection.scalars(_ON_THE_WIRE, scope))  # a statement of its own, so it sees all before us
    unsubscribe_id: int = connection.execute(_REMEMBER, scope).scalar_one()
    if people.former:  # consent follows the contact; an address that is not theirs any more needs its own "never"
        suppression.add(connection, way_out.address_id, "unsubscribe", source=source, now=now)
    for contact_id in people.withdrawing:
        if not _has_withdrawn(connection, contact_id, way_out):
            consent.withdraw(
                connection, key_ring, contact_id, way_out.channel, [way_out.topic],
                address_id=way_out.address_id, source=source, now=now,
                sealed=sealed if contact_id == people.present else None,
            )  # fmt: skip
    return Withdrawal(unsubscribe_id, on_the_wire)


def _has_withdrawn(connection: Connection, contact_id: int, way_out: WayOut) -> bool:
    """Whether the person's own withdrawal stands already, and they asked for nothing since: clicking again is no new
    evidence, but it takes back a request that waits for its confirmation.
    """
    return bool(
        connection.scalar(
            text(
                """
                SELECT EXISTS (
                    SELECT FROM consent k JOIN consent_event e ON e.id = k.event_id
                    WHERE k.contact_id = :contact_id AND k.channel = :channel AND k.topic = :topic
                      AND k.state = 'withdrawn' AND e.actor = 'person' AND NOT EXISTS (
                          SELECT FROM consent_event r JOIN contact c ON c.id = r.contact_id
                          WHERE k.contact_id IN (c.id, c.merged_into) AND r.channel = k.channel AND r.topic = k.topic
                            AND r.action = 'requested' AND r.id > k.event_id))
                """
            ),
            {"contact_id": contact_id, "channel": way_out.channel, "topic": way_out.topic},
        )
    )


_REMEMBER = text("""
INSERT INTO unsubscribe (contact_id, address_id, channel, topic, committed_at)
VALUES (:contact_id, :address_id, :channel, :topic, :now) RETURNING id
""")

# Waiting for its turn: it never gets one.  Nor does the confirmation of a request that is taken back with it.
_SKIP = text("""
UPDATE message SET status = 'skipped', reason = 'NO_CONSENT', deferred_reason = NULL, batch_id = NULL,
                   facts = CAST(:facts AS jsonb), settled_at = :now
WHERE status = 'pending' AND (class = 'marketing' OR client = :opt_in) AND channel = :channel AND topic = :topic
  AND contact_id = ANY(:contacts)
RETURNING contact_id
""")

# By contact or by address: a UNION, so that each half has its index.  A suppressed address is closed to every topic.
_ON_THE_WIRE = text("""
SELECT id FROM message
WHERE status = 'sending' AND class = 'marketing' AND channel = :channel AND topic = :topic
  AND contact_id = ANY(:contacts)
UNION
SELECT id FROM message
WHERE status = 'sending' AND class = 'marketing' AND channel = :channel AND authorised_at IS NOT NULL
  AND address_id = ANY(:addresses) AND (topic = :topic OR (:former AND address_id = :address_id))
""")


def _skip_pending(connection: Connection, scope: dict[str, Any]) -> None:
    facts = {"topic": scope["topic"], "state": "withdrawn", "because": "withdrawn", "withdrawn_at": scope["now"]}
    values = {**scope, "facts": orjson.dumps(facts).decode(), "opt_in": opt_in.CLIENT}
    skipped = connection.scalars(_SKIP, values)
    outranked.wake(connection, set(skipped), scope["now"])
