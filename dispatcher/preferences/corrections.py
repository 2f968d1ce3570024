"""What somebody may put right themselves.

Not their addresses: those show that it is them, a topic's consent belongs to one, and an e-mail address that is another
contact's would merge the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection

from dispatcher import audit
from dispatcher.contacts.rows import read_contacts, update_contacts
from dispatcher.keys import KeyRing
from dispatcher.preferences import ACTOR
from dispatcher.preferences.whose import Way, hold

FIELDS = ("first_name", "last_name", "postal_code")


def correct(connection: Connection, key_ring: KeyRing, way: Way, given: Mapping[str, str | None]) -> set[str]:
    """Put these fields in the place of what we had (None: forget it), and return which of them changed."""
    person = hold(connection, key_ring, way)
    changed = {name for name in FIELDS if given.get(name) != getattr(person.personal, name)}
    if changed:
        [contact] = read_contacts(connection, key_ring, [person.contact_id])
        contact.personal = replace(contact.personal, **{name: given.get(name) for name in changed})
        contact.changes |= changed
        update_contacts(connection, key_ring, [contact])
        audit.record(
            connection, ACTOR, "own_data.corrected", f"contact {person.contact_id}", {"fields": sorted(changed)}
        )
    return changed
