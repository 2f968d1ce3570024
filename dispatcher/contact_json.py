"""A contact as a program writes it: the fields of an import, checked and saved like one, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, text

from dispatcher import audit
from dispatcher.contacts import Saved, save_contacts
from dispatcher.contacts.rows import PLAIN_FIELDS, read_contacts
from dispatcher.contacts.saving import Outcome, why_erased
from dispatcher.definitions import Shop
from dispatcher.errors import Conflict, InvalidFields
from dispatcher.imports.contact_rows import ContactRow, FieldReader
from dispatcher.imports.contacts import OTHER_WRITER, TRIES, bases_by_topic, record_claims, topics_by_channel
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_identity
from dispatcher.personal import PERSONAL_FIELDS

#: Plain fields and personal ones, by the names an import has for them.
FIELDS = (*PERSONAL_FIELDS, "locale", "country", "subdivision", "timezone")
_LARGEST_NUMBER = 10**15

Check = Callable[[str | None], None]


def parse_contact(
    external_id: str, given: Mapping[str, Any], *, key_ring: KeyRing, shop: Shop | None = None, source: str
) -> ContactRow:
    """Return what `given` says of the contact: None blanks a field, and what is left out says nothing.

    Consent needs the `shop` with its topics.  InvalidFields names every field that cannot be taken as it is.
    """
    topics, bases = (topics_by_channel(shop), bases_by_topic(shop)) if shop else ({}, {})
    reader = FieldReader(key_ring=key_ring, topics=topics, bases=bases, source=source)
    attributes: Mapping[str, Any] = given.get("attributes") or {}
    texts = {name: value.strip() for name, value in given.items() if isinstance(value, str) and value.strip()}
    words = {name: value for name, value in attributes.items() if isinstance(value, str) and value.strip()}
    row = reader.read(None, {**texts, "contact_id": external_id}, words, fields=("contact_id", *given))
    wrong = [(note.field, note.reason) for note in row.notes]
    wrong += [(f"{channel}_consent", "is for no topic of the shop") for channel in row.topicless]
    wrong += [(f"{one.split()[0]}_consent_basis", "is none that a topic accepts") for one in row.unaccepted]
    wrong += [(f"attributes.{name}", why) for name, value in attributes.items() if (why := _objection(name, value))]
    if wrong:
        raise InvalidFields([(f"body.{name.replace('attr.', 'attributes.')}", reason) for name, reason in wrong])
    blank = {name for name in FIELDS if name in given and not texts.get(name)}
    blank_attributes = {f"attr.{name}" for name, value in attributes.items() if value is None or value == ""}
    others = {name: value for name, value in attributes.items() if isinstance(value, bool | int | float)}
    row.particulars = replace(
        row.particulars,
        attributes=row.particulars.attributes | others,
        forget=frozenset({"zone" if name == "timezone" else name for name in blank} | blank_attributes),
    )
    return row


def _objection(name: str, value: Any) -> str | None:
    if not 0 < len(name) <= 100 or not name.isprintable() or name != name.strip() or "." in name:
        return "is no name of an attribute: 1 to 100 characters without a dot"
    if isinstance(value, int | float) and not abs(value) < _LARGEST_NUMBER:
        return "is not a number below 1e15"
    return None


def put_contact(
    database: Engine, key_ring: KeyRing, row: ContactRow, *, by: str, check: Check = lambda _: None
) -> Saved:
    """Save the contact and what was said of consent, in one transaction; return what became of it.

    `check` is shown the version that is there (`version_of`), None if there is none, and may raise.
    Conflict: who it is, or whoever had the address, was erased.  InvalidFields: consent without an address to be for.
    """
    for tries_left in reversed(range(TRIES)):
        try:
            with database.begin() as connection:
                return _put(connection, key_ring, row, by, check)
        except OTHER_WRITER:  # who made one of them at the same moment
            if tries_left == 0:
                raise
    raise AssertionError("the last try returns or raises")


def _put(connection: Connection, key_ring: KeyRing, row: ContactRow, by: str, check: Check) -> Saved:
    lock_identity(connection)  # nobody else changes particulars until we commit
    check(_version_by_id(connection, key_ring, row.particulars.external_id))
    [saved] = save_contacts(connection, key_ring, [row.particulars])
    if saved.outcome is Outcome.ERASED or saved.contact_id is None:
        raise Conflict(why_erased(saved, row.particulars.external_id))
    left_out, _ = record_claims(connection, key_ring, [row], [saved], actor="shop")
    if without := [reason for reason in left_out if "without an address" in reason]:
        channel = without[0].split()[0]
        raise InvalidFields([(f"body.{channel}_consent", "needs the address that it is for")])
    if saved.outcome is not Outcome.UNCHANGED or row.claims:
        audit.record(connection, by, f"contact.{saved.outcome}", f"contact {saved.contact_id}", {})
    return saved


def _version_by_id(connection: Connection, key_ring: KeyRing, external_id: str) -> str | None:
    contact_id = connection.scalar(
        text("""SELECT COALESCE(c.merged_into, c.id) FROM contact_alias a JOIN contact c ON c.id = a.contact_id
                WHERE a.external_id = :external_id"""),
        {"external_id": external_id},
    )
    return None if contact_id is None else version_of(connection, key_ring, contact_id)


def version_of(connection: Connection, key_ring: KeyRing, contact_id: int) -> str:
    """Return the version of a contact's own fields: another after every change of one.

    The number in the ledger rises only where rendering would see a difference; the keyed hash knows the others.
    """
    [contact] = read_contacts(connection, key_ring, [contact_id])
    number = connection.scalar(text("SELECT version FROM contact WHERE id = :id"), {"id": contact_id})
    personal = [getattr(contact.personal, name) for name in PERSONAL_FIELDS]
    plain = [getattr(contact, name) for name in PLAIN_FIELDS]
    fields = orjson.dumps([personal, plain, contact.attributes], option=orjson.OPT_SORT_KEYS).decode()
    return f"{number}-{key_ring.address_hash('contact', fields).hex()[:12]}"
