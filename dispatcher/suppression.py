"""The standing "never send to this address", with its reason.  On the address, so it outlives the contact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import orjson
from sqlalchemy import Connection, text

from dispatcher import audit, clock, outranked
from dispatcher.errors import NotFound, Refused
from dispatcher.locks import lock_addresses, lock_contacts

Reason = Literal["hard_bounce", "invalid", "complaint", "unsubscribe", "stop", "operator", "erasure"]
Scope = Literal["all", "marketing"]

#: What each reason stops.  An operator's may be narrowed to marketing.
SCOPES: dict[Reason, Scope] = {
    "hard_bounce": "all",
    "invalid": "all",
    "complaint": "marketing",
    "unsubscribe": "marketing",
    "stop": "all",  # every SMS
    "operator": "all",
    "erasure": "marketing",  # and imports
}
#: What the person said themselves: nobody else can take it back.
OWN_OPT_OUTS: frozenset[Reason] = frozenset({"complaint", "unsubscribe", "stop", "erasure"})


@dataclass(frozen=True, slots=True)
class Suppression:
    address_id: int
    channel: str
    address_hash: str  #: hex; the address itself is nowhere in clear
    reason: Reason
    scope: Scope
    source: str
    created_at: datetime


def add(
    connection: Connection,
    address_id: int,
    reason: Reason,
    *,
    source: str,
    scope: Scope | None = None,
    now: datetime | None = None,
) -> bool:
    """Suppress the address, and skip what is pending to it in scope; False if it already was, for this reason.

    With `now`, the caller holds the locks of the address and its contacts and read the clock after them.
    """
    if now is None:
        _lock(connection, address_id)
        now = clock.read_now(connection)
    scope = scope or SCOPES[reason]
    if reason == "operator":
        audit.record(connection, source, "suppression.add", f"address {address_id}", {"scope": scope})
    added = connection.execute(
        _ADD, {"address_id": address_id, "reason": reason, "scope": scope, "source": source, "now": now}
    ).rowcount
    if added:
        connection.execute(_MIRROR, {"address_id": address_id})
    facts = {"suppression": reason, "scope": scope, "suppressed_at": now}
    skipped = connection.scalars(
        _SKIP, {"address_id": address_id, "all": scope == "all", "facts": orjson.dumps(facts).decode(), "now": now}
    )
    outranked.wake(connection, set(skipped), now)
    return bool(added)


_ADD = text("""
    INSERT INTO suppression (address_id, reason, scope, source, order_seq, created_at)
    VALUES (:address_id, :reason, :scope, :source, nextval('order_seq'), :now)
    ON CONFLICT (address_id, reason) DO UPDATE SET scope = 'all', source = excluded.source,
        order_seq = excluded.order_seq, created_at = excluded.created_at
    WHERE suppression.scope = 'marketing' AND excluded.scope = 'all'
""")
# A provider's own lists are to follow: `mirrors.pushing` carries it out.
_MIRROR = text("""
    INSERT INTO mirror_change (address_id) SELECT id FROM address WHERE id = :address_id AND channel = 'email'
    ON CONFLICT (address_id) DO UPDATE SET version = mirror_change.version + 1, retry_at = NULL
""")
# By way of the contacts that have the address now, too: a pending message goes where its contact is.
_SKIP = text("""
    UPDATE message SET status = 'skipped', reason = 'SUPPRESSED', deferred_reason = NULL, batch_id = NULL,
                       facts = CAST(:facts AS jsonb), settled_at = :now
    WHERE status = 'pending' AND (:all OR class = 'marketing')
      AND contact_id IN (
          SELECT id FROM contact WHERE email_address_id = :address_id OR sms_address_id = :address_id)
      AND channel = (SELECT channel FROM address WHERE id = :address_id)
    RETURNING contact_id
""")


def remove(connection: Connection, address_id: int, reason: Reason, *, by: str, as_the_person: bool = False) -> None:
    """Lift one suppression.  Refused for an opt-out of the person's own, unless it is the person who lifts it."""
    if reason in OWN_OPT_OUTS and not as_the_person:
        raise Refused(f"{reason} is a person's own opt-out; only they can take it back, by opting in again")
    _lock(connection, address_id)
    removed = connection.execute(
        text("DELETE FROM suppression WHERE address_id = :address_id AND reason = :reason"),
        {"address_id": address_id, "reason": reason},
    ).rowcount
    if not removed:
        raise NotFound(f"this address is not suppressed for {reason}")
    connection.execute(_LIFTED, {"address_id": address_id, "reason": reason, "now": clock.read_now(connection)})
    connection.execute(_MIRROR, {"address_id": address_id})
    audit.record(connection, by, "suppression.remove", f"address {address_id}", {"reason": reason})


# Kept for ever: what a provider's list says from before must not bring it back.
_LIFTED = text("""
    INSERT INTO suppression_lift (address_id, reason, lifted_at) VALUES (:address_id, :reason, :now)
    ON CONFLICT (address_id, reason) DO UPDATE SET lifted_at = excluded.lifted_at, removed_there_at = NULL
""")

# A person's own later yes, too, takes back what they said no to before.
_TAKEN_BACK = text("""
    SELECT EXISTS (SELECT FROM suppression_lift
                   WHERE address_id = :address_id AND reason = :reason AND lifted_at >= :said_at)
        OR :own AND EXISTS (
            SELECT FROM consent k JOIN consent_event e ON e.id = k.event_id JOIN address a ON a.id = k.address_id
            WHERE k.address_id = :address_id AND k.contact_id IN (
                SELECT id FROM contact WHERE :address_id IN (email_address_id, sms_address_id))
              AND k.channel = a.channel AND k.state = 'granted' AND e.actor = 'person' AND k.effective_at >= :said_at)
""")


def was_taken_back(connection: Connection, address_id: int, reason: Reason, said_at: datetime) -> bool:
    """Whether what was said of this address at that instant has been taken back since: lifted, or by a later yes.

    The caller holds the locks of the address and its contacts.
    """
    values = {"address_id": address_id, "reason": reason, "said_at": said_at, "own": reason in OWN_OPT_OUTS}
    return bool(connection.scalar(_TAKEN_BACK, values))


def suppressions_of(connection: Connection, address_id: int) -> list[Suppression]:
    """Return why this address is suppressed; [] if it is not."""
    return list(_read(connection, {"address_id": address_id, "channel": None, "reason": None}))


def was_erased(connection: Connection, address_id: int) -> bool:
    """Whether whoever had this address was erased; who has it now, if anybody, may be somebody else."""
    return any(one.reason == "erasure" for one in suppressions_of(connection, address_id))


def list_suppressions(
    connection: Connection, *, channel: str | None = None, reason: Reason | None = None
) -> Iterator[Suppression]:
    """Yield every suppression, oldest first; streams, whatever their number."""
    yield from _read(connection, {"address_id": None, "channel": channel, "reason": reason})


_LIST = text("""
    SELECT s.address_id, a.channel, encode(a.hash, 'hex'), s.reason, s.scope, s.source, s.created_at
    FROM suppression s JOIN address a ON a.id = s.address_id
    WHERE (CAST(:address_id AS bigint) IS NULL OR s.address_id = :address_id)
      AND (CAST(:channel AS text) IS NULL OR a.channel = :channel)
      AND (CAST(:reason AS text) IS NULL OR s.reason = :reason)
    ORDER BY s.id
""")


def _read(connection: Connection, wanted: dict[str, int | str | None]) -> Iterator[Suppression]:
    for row in connection.execute(_LIST, wanted, execution_options={"yield_per": 1_000}):
        yield Suppression(*row)


def _lock(connection: Connection, address_id: int) -> None:
    """Hold the address and the contacts that have it, contacts first."""
    holders = connection.scalars(
        text("SELECT id FROM contact WHERE :address_id IN (email_address_id, sms_address_id)"),
        {"address_id": address_id},
    )
    lock_contacts(connection, list(holders))
    lock_addresses(connection, [address_id])
