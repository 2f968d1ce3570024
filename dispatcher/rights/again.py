"""Erasing again who was erased, in a backup that does not know it: by the proofs in the audit, kept elsewhere.

A number alone would not do, since a restored ledger gives the same numbers to other people.  So a contact is erased
only if its data key is the one that was destroyed, or if it has an e-mail address that was erased.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from dispatcher import clock, suppression
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts
from dispatcher.rights.finishing import erase, fingerprint

_SUBJECT = "contact "


@dataclass(frozen=True, slots=True)
class Again:
    """What became of the proofs."""

    proofs: int
    erased: int  #: contacts
    suppressed: int  #: addresses that were not yet
    in_progress: int  #: of the erased, those with something in flight


@dataclass(frozen=True, slots=True)
class _Proof:
    contact_id: int
    keys: frozenset[str]
    addresses: tuple[tuple[str, bytes], ...]


def erase_again(database: Engine, key_ring: KeyRing, entries: Iterable[Mapping[str, Any]], *, by: str) -> Again:
    """Erase everybody of whom these entries of an audit prove it; safe to repeat.  Others than proofs are passed over.

    Refused, and nothing done, if one is not what `dispatcher audit list --json` prints.
    """
    proofs = [_read(entry) for entry in entries if entry.get("action") == "erasure.done"]
    erased = suppressed = in_progress = 0
    for proof in proofs:
        with database.begin() as connection:
            suppressed += sum(_suppress(connection, *address) for address in proof.addresses)
            contacts = _contacts_of(connection, key_ring, proof)
        for contact_id in contacts:
            state = erase(database, key_ring, contact_id, by=by, wait=timedelta(0))
            erased += 1
            in_progress += state.state != "done"
    return Again(len(proofs), erased, suppressed, in_progress)


def _read(entry: Mapping[str, Any]) -> _Proof:
    try:
        details, subject = entry["details"], str(entry["subject"])
        addresses = tuple((str(one["channel"]), bytes.fromhex(one["hash"])) for one in details["suppressed"])
        return _Proof(int(subject.removeprefix(_SUBJECT)), frozenset(details["destroyed"]["data_keys"]), addresses)
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"entry {entry.get('id')} is not the proof of an erasure as the audit has it") from error


def _suppress(connection: Connection, channel: str, hash_: bytes) -> bool:
    """Make sure that the address is known and suppressed; return whether it was not."""
    address_id: int = connection.execute(
        text("""INSERT INTO address (channel, hash) VALUES (:channel, :hash)
                ON CONFLICT (channel, hash) DO UPDATE SET hash = EXCLUDED.hash RETURNING id"""),
        {"channel": channel, "hash": hash_},
    ).scalar_one()
    holders = connection.scalars(
        text(f"SELECT id FROM contact WHERE {channel}_address_id = :id"),  # noqa: S608 - one of two, by its constraint
        {"id": address_id},
    ).all()
    lock_contacts(connection, list(holders))
    lock_addresses(connection, [address_id])
    return suppression.add(connection, address_id, "erasure", source="erased before", now=clock.read_now(connection))


def _contacts_of(connection: Connection, key_ring: KeyRing, proof: _Proof) -> list[int]:
    """Return who is that person here, and not erased yet."""
    rows = connection.execute(
        text("""
            SELECT c.id, c.data_key, a.hash FROM contact c LEFT JOIN address a ON a.id = c.email_address_id
            WHERE c.erased_at IS NULL AND (c.id = :id OR a.hash = ANY(:hashes)) ORDER BY c.id"""),
        {"id": proof.contact_id, "hashes": [hash_ for channel, hash_ in proof.addresses if channel == "email"]},
    ).all()
    hashes = {hash_ for channel, hash_ in proof.addresses if channel == "email"}
    return [
        row.id
        for row in rows
        if (row.hash is not None and bytes(row.hash) in hashes)
        or (row.data_key is not None and fingerprint(key_ring.open_data_key(bytes(row.data_key)).raw) in proof.keys)
    ]
