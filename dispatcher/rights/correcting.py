"""Correcting what is known of a person, by themselves or by whoever they asked: by the rules of an import.

The audit says which fields were corrected and by whom, never to what.  A new address voids the consent of the old one.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

from dispatcher import audit
from dispatcher.contact_json import parse_contact
from dispatcher.contacts import Saved, save_contact
from dispatcher.contacts.saving import Outcome, why_erased
from dispatcher.errors import InvalidFields, Refused
from dispatcher.keys import KeyRing
from dispatcher.rights.people import family_of

FIELDS = ("email", "phone", "first_name", "last_name", "postal_code", "locale", "country", "subdivision", "timezone")
#: What somebody may put right on their own page.  Not their addresses: those show that it is them, a topic's consent
#: belongs to one, and an e-mail address that is another contact's would merge the two.
OWN_FIELDS = ("first_name", "last_name", "postal_code")


def correct_contact(
    connection: Connection, key_ring: KeyRing, contact_id: int, fields: Mapping[str, str | None], *, by: str
) -> Saved:
    """Put these fields (FIELDS, or attr.NAME) in the place of what is there (None or blank: forget it).

    Returns what became of the contact.  Refused for a field there is none of, and for whoever was erased; InvalidFields
    for values that are no such thing.  With an e-mail address that another contact has, both turn out to be one
    person, and are merged.
    """
    fields = {"timezone" if name == "zone" else name: value for name, value in fields.items()}  # as an import
    unknown = [name for name in fields if name not in FIELDS and not name.startswith("attr.")]
    if unknown:
        raise Refused(f"a contact has no field {unknown[0]}; there are {', '.join(FIELDS)} and attr.NAME")
    today = family_of(connection, contact_id).contact_id
    external_id = connection.scalar(text("SELECT external_id FROM contact WHERE id = :id"), {"id": today})
    attributes = {name.removeprefix("attr."): value for name, value in fields.items() if name.startswith("attr.")}
    given = {name: value for name, value in fields.items() if name in FIELDS}
    wanted = {**given, "attributes": attributes}
    try:
        row = parse_contact(str(external_id), wanted, key_ring=key_ring, source="correction")
    except InvalidFields as error:
        raise InvalidFields([(name.removeprefix("body."), reason) for name, reason in error.fields]) from None
    saved = save_contact(connection, key_ring, row.particulars)
    if saved.outcome is Outcome.ERASED:
        raise Refused(why_erased(saved, str(external_id)))
    if saved.changed:
        details = {"fields": sorted(saved.changed)}
        audit.record(connection, by, "contact.correct", f"contact {saved.contact_id}", details)
    return saved
