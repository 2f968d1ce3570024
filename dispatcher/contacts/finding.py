"""Finding the contact somebody means, through merges."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from dispatcher import clock
from dispatcher.addresses import BadAddress, normal_email
from dispatcher.contacts.names import spellings
from dispatcher.errors import NotFound, Refused
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts
from dispatcher.personal import Personal, open_personal

# A merge moves aliases and shortens chains of tombstones, so one step leads to the survivor.
_BY_ALIAS = text("""
    SELECT COALESCE(c.merged_into, c.id) FROM contact_alias a JOIN contact c ON c.id = a.contact_id
    WHERE a.external_id = ANY(:spellings) ORDER BY a.external_id = :wanted DESC LIMIT 1
""")
_BY_EMAIL = text("""
    SELECT c.id FROM address a JOIN contact c ON c.email_address_id = a.id
    WHERE a.channel = 'email' AND a.hash = :hash AND c.merged_into IS NULL ORDER BY c.id LIMIT 1
""")


# Ids that begin alike.  Those that hold an @ may be addresses, and are nobody's to be told.
_ALIKE = text("""
    SELECT external_id FROM contact_alias
    WHERE starts_with(external_id, :beginning) AND strpos(external_id, '@') = 0 ORDER BY external_id LIMIT 5000
""")


def find_contact(connection: Connection, key_ring: KeyRing, wanted: str, *, suggest: bool = False) -> int:
    """Return the contact with this external id, else with this e-mail address; NotFound if there is none.

    `suggest`: the error names a similar external id, for whoever may see everybody's.
    """
    contact_id = connection.scalar(_BY_ALIAS, {"wanted": wanted, "spellings": list(spellings(key_ring, [wanted]))})
    if contact_id is None and "@" in wanted:
        contact_id = _find_by_email(connection, key_ring, wanted)
        if contact_id is None:
            raise NotFound("there is no contact with this e-mail address")
    if contact_id is None:
        near = _similar_id(connection, wanted) if suggest else None
        meant = f"did you mean {near}?" if near else "give an external id or an e-mail address"
        raise NotFound(f"there is no contact {wanted!r}; {meant}")
    return int(contact_id)


def _similar_id(connection: Connection, wanted: str) -> str | None:
    if "@" in wanted or len(wanted) < 2:
        return None
    alike = list(connection.scalars(_ALIKE, {"beginning": wanted[: max(1, len(wanted) // 2)]}))
    close = difflib.get_close_matches(wanted, alike, 1, cutoff=0.75)
    return close[0] if close else None


def _find_by_email(connection: Connection, key_ring: KeyRing, wanted: str) -> int | None:
    try:
        normal = normal_email(wanted.strip())
    except BadAddress:
        return None
    found: int | None = connection.scalar(_BY_EMAIL, {"hash": key_ring.address_hash("email", normal)})
    return found


def personal_of(connection: Connection, key_ring: KeyRing, contact_id: int) -> Personal:
    """Return the contact's personal fields, opened; all None once erased."""
    row = connection.execute(
        text("SELECT data_key, sealed FROM contact WHERE id = :id"), {"id": contact_id}
    ).one_or_none()
    return Personal() if row is None else open_personal(key_ring, row.data_key, row.sealed)


@dataclass(frozen=True, slots=True)
class Holding:
    """A contact and its address on one channel, both locked until the transaction ends."""

    contact_id: int
    external_id: str
    channel: str
    address_id: int | None
    now: datetime  #: engine time, read after the locks


_PRESENT = """
    SELECT external_id, merged_into, erased_at, {channel}_address_id AS address_id FROM contact WHERE id = :id
"""


def hold_contact(connection: Connection, key_ring: KeyRing, wanted: str, channel: str) -> Holding:
    """Lock the contact meant by an external id or an e-mail address, and its address on `channel`.

    NotFound if there is none, or it was erased; Refused if it is being merged at this moment.
    """
    contact_id = find_contact(connection, key_ring, wanted)
    lock_contacts(connection, [contact_id])
    row = connection.execute(text(_PRESENT.format(channel=channel)), {"id": contact_id}).one()
    if row.merged_into is not None:
        raise Refused(f"contact {row.external_id} is being merged right now; try again")
    if row.erased_at is not None:
        raise NotFound(f"contact {row.external_id} was erased")
    lock_addresses(connection, [] if row.address_id is None else [row.address_id])
    return Holding(contact_id, row.external_id, channel, row.address_id, clock.read_now(connection))
