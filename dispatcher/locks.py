"""Locks in one order, so that nobody waits in a circle: the engine's brake, the run's, contacts by id, addresses by id,
messages, lane (then accounts, domain rates, warm-up day), and last the consent chain.

Whoever changes consent, suppression or identity takes these, and so does every authorisation: one of two comes first.
They allow what a foreign key needs (FOR NO KEY UPDATE), so planning is never held up.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Connection, text

_IDENTITY = 0x6964656E  # "iden"
_CONSENT_CHAIN = 0x636F6E73  # "cons"
_ENGINE_BRAKE = 0x73746F70  # "stop"

_CONTACTS = text("SELECT id FROM contact WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE")
_ADDRESSES = text("SELECT id FROM address WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE")
_PENDING_OF = text("""
SELECT m.contact_id FROM batch b JOIN message m ON m.run_id = b.run_id AND m.batch_id = b.id
WHERE b.id = ANY(:ids) AND m.status = 'pending'
""")
_ADVISORY = text("SELECT pg_advisory_xact_lock(:key)")
_ADVISORY_SHARED = text("SELECT pg_advisory_xact_lock_shared(:key)")


def lock_contacts(connection: Connection, ids: Collection[int]) -> None:
    """Hold these contacts until the transaction ends.  Bulk writers: at most 500 at once."""
    if ids:
        connection.execute(_CONTACTS, {"ids": sorted(set(ids))})


def lock_addresses(connection: Connection, ids: Collection[int]) -> None:
    """Hold these addresses until the transaction ends; the contacts come first."""
    if ids:
        connection.execute(_ADDRESSES, {"ids": sorted(set(ids))})


def lock_pending_of(connection: Connection, batch_ids: Collection[int]) -> None:
    """Hold the contacts of what is pending in these batches, before all of it is changed at once."""
    lock_contacts(connection, connection.scalars(_PENDING_OF, {"ids": list(batch_ids)}).all())


def lock_identity(connection: Connection) -> None:
    """Be the only one who decides which contact an address belongs to; before any row lock."""
    connection.execute(_ADVISORY, {"key": _IDENTITY})


def lock_consent_chain(connection: Connection) -> None:
    """Be the only one who appends evidence; after every other lock."""
    connection.execute(_ADVISORY, {"key": _CONSENT_CHAIN})


def heed_brake(connection: Connection, run_id: UUID | None = None) -> None:
    """Keep the brake of a run, or that of the engine, as the next statement finds it until the transaction ends.

    No lock of a row: who takes one alone waits for ever while others share it in turn, but these are served in order.
    """
    connection.execute(_ADVISORY_SHARED, {"key": _brake(run_id)})


def pull_brake(connection: Connection, run_id: UUID | None = None) -> None:
    """Be the only one who moves the brake of a run, or that of the engine; waits for those who heed it already."""
    connection.execute(_ADVISORY, {"key": _brake(run_id)})


def _brake(run_id: UUID | None) -> int:
    return _ENGINE_BRAKE if run_id is None else run_id.int & 0x7FFF_FFFF_FFFF_FFFF
