"""Correcting what is known of a person: by the rules of an import, and its one way into the ledger.

The audit says which fields were corrected and by whom, never to what.  A new address voids the consent of the old one.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

from dispatcher import audit
from dispatcher.contacts import Saved, save_contact
from dispatcher.contacts.saving import Outcome
from dispatcher.errors import Refused
from dispatcher.imports.contact_rows import ContactReader
from dispatcher.keys import KeyRing
from dispatcher.rights.people import family_of

FIELDS = ("email", "phone", "first_name", "last_name", "postal_code", "locale", "country", "subdivision", "zone")


def correct_contact(
    connection: Connection, key_ring: KeyRing, contact_id: int, fields: Mapping[str, str], *, by: str
) -> Saved:
    """Write these fields (FIELDS, or attr.NAME) over what is there, and return what became of the contact.

    Refused for a field there is none of, a value that is no such thing, and whoever was erased.  With an e-mail address
    that another contact has, both turn out to be one person, and are merged.
    """
    unknown = [name for name in fields if name not in FIELDS and not name.startswith("attr.")]
    if unknown:
        raise Refused(f"a contact has no field {unknown[0]}; there are {', '.join(FIELDS)} and attr.NAME")
    today = family_of(connection, contact_id).contact_id
    external_id = connection.scalar(text("SELECT external_id FROM contact WHERE id = :id"), {"id": today})
    row = {"contact_id": str(external_id), **fields}
    reader = ContactReader(list(row), key_ring=key_ring, topics={}, bases={}, mapping=None, source="correction")
    read = reader.read(1, row)
    if read.notes:
        raise Refused("; ".join(note.partition("; ")[0] for note in map(str, read.notes)))
    saved = save_contact(connection, key_ring, read.particulars)
    if saved.outcome is Outcome.ERASED:
        raise Refused("they were erased, or what is given is the address of somebody who was")
    if saved.outcome is not Outcome.UNCHANGED:
        audit.record(connection, by, "contact.correct", f"contact {saved.contact_id}", {"fields": sorted(fields)})
    return saved
