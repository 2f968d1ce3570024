"""The end of an erasure: once nothing of theirs is in flight, what we hold is destroyed and the proof is written.

Everything happens in one transaction, so a crash leaves it undone and it is done again; of two at once the second finds
it done.  What outlives it is in `data_map`: the evidence (its personal parts unreadable for ever), the suppressions,
and the ledger's rows with their figures.
"""

from __future__ import annotations

import hashlib
import time
from datetime import timedelta
from typing import Any

import orjson
import structlog
from sqlalchemy import Connection, Engine, text

from dispatcher import audit, clock
from dispatcher.contacts.names import after_erasure
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts
from dispatcher.rights.erasing import ErasureState, in_flight, request_erasure, skip_pending, state_of_row
from dispatcher.rights.people import THEIR_FEEDBACK, THEIR_MESSAGES, Family, family_of
from dispatcher.tables import contact

log = structlog.get_logger()

ACTOR = "engine"
#: How long somebody who waits for the end is kept waiting, as at the unsubscribe barrier.
LONGEST_WAIT = timedelta(seconds=5)
LOOK_EVERY = timedelta(milliseconds=50)


def erase(
    database: Engine, key_ring: KeyRing, contact_id: int, *, by: str, wait: timedelta = LONGEST_WAIT
) -> ErasureState:
    """Request the erasure, wait up to `wait` for what is in flight, and say how far it has come; safe to repeat."""
    with database.begin() as connection:
        requested = request_erasure(connection, key_ring, contact_id, by=by)
    deadline = time.monotonic() + wait.total_seconds()
    while True:
        state = finish_erasure(database, key_ring, requested.id)
        if state.state == "done" or time.monotonic() >= deadline:
            return state
        time.sleep(LOOK_EVERY.total_seconds())


def finish_erasures(database: Engine, key_ring: KeyRing) -> int:
    """Finish every erasure of which nothing is in flight any more; return how many are done now that were not."""
    with database.connect() as connection:
        waiting = connection.scalars(text("SELECT id FROM erasure WHERE done_at IS NULL ORDER BY id")).all()
    done = 0
    for erasure_id in waiting:
        try:
            done += finish_erasure(database, key_ring, erasure_id).state == "done"
        except Exception as error:  # it concerns this one, not those behind it; it is tried again
            log.error("erasure.not_finished", erasure=erasure_id, error=type(error).__name__)
    return done


def finish_erasure(database: Engine, key_ring: KeyRing, erasure_id: int) -> ErasureState:
    """Finish this erasure, unless something is in flight still, and return how far it has come."""
    with database.begin() as connection:
        row = connection.execute(_READ, {"id": erasure_id}).one()
        if row.done_at is not None:
            return state_of_row(row)
        family = family_of(connection, row.contact_id)
        lock_contacts(connection, family.ids)
        lock_addresses(connection, family.addresses)
        row = connection.execute(
            _READ, {"id": erasure_id}
        ).one()  # again, under the locks: somebody may have been quicker
        if row.done_at is None and not in_flight(connection, family):
            now = clock.read_now(connection)
            skip_pending(connection, family, now)  # what came back from a provider that had not taken it
            proof = _destroy(connection, key_ring, family)
            connection.execute(_DONE, {"id": erasure_id, "now": now, "proof": orjson.dumps(proof).decode()})
            # Said only now: nothing of theirs is on the wire.  The unsubscribes that the erasure made are answered so.
            connection.execute(_ANSWER, {"contact": family.contact_id, "requested_at": row.requested_at, "now": now})
            audit.record(
                connection, ACTOR, "erasure.done", f"contact {family.contact_id}",
                {"erasure": erasure_id, "requested_by": row.requested_by, "requested_at": row.requested_at,
                 "done_at": now, **proof},
            )  # fmt: skip
            log.info("erasure.done", erasure=erasure_id)
        return state_of_row(connection.execute(_READ, {"id": erasure_id}).one())


_READ = text("SELECT * FROM erasure WHERE id = :id")
_DONE = text("UPDATE erasure SET done_at = :now, proof = CAST(:proof AS jsonb) WHERE id = :id")
_ANSWER = text("""
    UPDATE unsubscribe SET answer = 200, answered_at = :now
    WHERE contact_id = :contact AND committed_at = :requested_at AND answered_at IS NULL
""")

#: What stays in a contact's row: that there was one.  Every other column is blanked, those to come included.
KEPT_COLUMNS = frozenset({"id", "external_id", "version", "merged_into", "erased_at", "created_at"})

_BLANKS = ", ".join(
    f"{column.name} = {'NULL' if column.nullable else 'DEFAULT'}"
    for column in contact.columns
    if column.name not in KEPT_COLUMNS
)
_BLANK_CONTACTS = text(f"""
    UPDATE contact SET version = version + 1, {_BLANKS} WHERE id = ANY(:ids)
""")  # noqa: S608 - names of columns

# What is destroyed, in the order of the proof.  The facts of a decision may name a place; why it was "never" stays.
_DESTROYED = {
    "messages": text(f"""
        UPDATE message SET sealed = NULL, facts = CASE WHEN status = 'skipped' AND facts ? 'suppression'
            THEN jsonb_build_object('suppression', facts->'suppression') END
        WHERE id IN (SELECT id FROM {THEIR_MESSAGES} m) AND (sealed IS NOT NULL OR facts IS NOT NULL)"""),  # noqa: S608
    "event_items": text("""
        DELETE FROM event_item WHERE event_id IN (SELECT id FROM event WHERE contact_id = ANY(:ids))"""),
    # The bare row stays: the shop's key is taken, and a flow that the event has ended must not begin again.
    "events": text("""
        UPDATE event SET properties = '{}', value = 0, body_hash = decode(repeat('00', 32), 'hex')
        WHERE contact_id = ANY(:ids)"""),
    "interests": text("DELETE FROM interest WHERE contact_id = ANY(:ids)"),
    "feedback": text(f"""
        UPDATE feedback SET sealed = NULL, data_key = NULL
        WHERE sealed IS NOT NULL AND id IN (SELECT id FROM {THEIR_FEEDBACK} f)"""),  # noqa: S608
    "own_links": text("""
        UPDATE tracked_message SET sealed = NULL WHERE contact_id = ANY(:ids) AND sealed IS NOT NULL"""),
    "replies": text("""
        UPDATE reply SET sealed = NULL, data_key = NULL, review = CASE review WHEN 'open' THEN 'stop' ELSE review END
        WHERE sealed IS NOT NULL AND (contact_id = ANY(:ids)
              OR contact_id IS NULL AND address_id = ANY(:addresses))"""),
}


_SUPPRESSED = text("SELECT channel, encode(hash, 'hex') AS hash FROM address WHERE id = ANY(:ids) ORDER BY id")


def _destroy(connection: Connection, key_ring: KeyRing, family: Family) -> dict[str, Any]:
    """Destroy what can be read of the person; return what that was: figures, fingerprints of keys, keyed hashes.

    By the latter two a restored backup can be told whom to erase again (`again`).
    """
    keys = connection.scalars(
        text("SELECT data_key FROM contact WHERE id = ANY(:ids) AND data_key IS NOT NULL ORDER BY id"),
        {"ids": list(family.ids)},
    ).all()
    fingerprints = [fingerprint(key_ring.open_data_key(bytes(key)).raw) for key in keys]
    parameters = {"ids": list(family.ids), "addresses": list(family.addresses)}
    counts = {name: connection.execute(statement, parameters).rowcount for name, statement in _DESTROYED.items()}
    names = _forget_names(connection, key_ring, family)
    connection.execute(_BLANK_CONTACTS, {"ids": list(family.ids)})
    return {
        "destroyed": {"contacts": len(family.ids), "data_keys": fingerprints, "personal_external_ids": names, **counts},
        "suppressed": [dict(row._mapping) for row in connection.execute(_SUPPRESSED, {"ids": list(family.addresses)})],
    }


def fingerprint(data_key: bytes) -> str:
    """Return what proves, beside a backup, which key was destroyed, and tells nothing of it."""
    return hashlib.sha256(b"dispatcher/data key" + data_key).hexdigest()[:16]


def _forget_names(connection: Connection, key_ring: KeyRing, family: Family) -> int:
    """Put keyed hashes in the place of external ids that are addresses themselves; return how many there were."""
    names = set(
        connection.scalars(
            text("""SELECT external_id FROM contact WHERE id = ANY(:ids)
                    UNION SELECT external_id FROM contact_alias WHERE contact_id = ANY(:ids)"""),
            {"ids": list(family.ids)},
        )
    )
    changed = {name: kept for name in names if (kept := after_erasure(key_ring, name)) != name}
    for name, kept in changed.items():
        for table in ("contact", "contact_alias"):
            connection.execute(
                text(f"UPDATE {table} SET external_id = :kept WHERE external_id = :name"),  # noqa: S608 - two tables
                {"kept": kept, "name": name},
            )
    return len(changed)
