"""Two customers of a storefront that it made one: so do we, and what it says of the one it kept counts.

Sources: shopify.dev, webhook topic customers/merge, and the mutation customerMerge: either of the two may be kept.
Left apart, the one who is gone would be written to for ever: no withdrawal and no erasure names them again.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from dispatcher import identity
from dispatcher.contacts import Particulars, ensure_contacts, save_contact
from dispatcher.contacts.rows import PLAIN_FIELDS, Contact, read_contacts
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_contacts, lock_identity
from dispatcher.personal import PERSONAL_FIELDS


def merge(connection: Connection, key_ring: KeyRing, kept: str, gone: str, *, by: str) -> bool | None:
    """Make one contact of these two external ids; return whether they were two, None if either was erased.

    Who is not known is made, bare, so that whatever comes late of the one who is gone finds the other.  Consent: see
    `identity.merge`.  What was granted for an address that is given up is void.
    """
    lock_identity(connection)
    ids = ensure_contacts(connection, key_ring, [kept, gone])
    lock_contacts(connection, set(ids.values()))
    contacts = {contact.id: contact for contact in read_contacts(connection, key_ring, set(ids.values()))}
    stays, goes = contacts[ids[kept]], contacts[ids[gone]]
    if stays.erased or goes.erased:
        return None
    if stays is goes:
        return False
    # What the one that is kept has is not for the other to overrule, whichever of the contacts is the older one.
    save_contact(connection, key_ring, Particulars(gone, forget=_held(stays)))
    survivor_id = identity.merge(connection, key_ring, stays.id, goes.id, by=by)
    if survivor_id == goes.id and goes.external_id == gone:
        _swap_names(connection, goes, stays)
    return True


def _held(contact: Contact) -> frozenset[str]:
    """Return the fields of which something is known."""
    plain = {name for name in PLAIN_FIELDS if getattr(contact, name) is not None}
    return frozenset(plain | {name for name in PERSONAL_FIELDS if getattr(contact.personal, name) is not None})


def _swap_names(connection: Connection, survivor: Contact, tombstone: Contact) -> None:
    """Let the survivor go by the other's id: only a contact's own name may overwrite what is there."""
    for contact_id, name in (
        (tombstone.id, f"{tombstone.external_id} until merged"),
        (survivor.id, tombstone.external_id),
        (tombstone.id, survivor.external_id),
    ):
        connection.execute(
            text("UPDATE contact SET external_id = :name WHERE id = :id"), {"id": contact_id, "name": name}
        )
