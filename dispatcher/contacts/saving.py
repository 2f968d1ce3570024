"""Writing contacts down, by the page: new ones, changed ones, and who turns out to be whom.

One e-mail address is one contact.  An external id that comes with the address of a known contact becomes an alias of
it; one that is a contact of its own is merged with it.  Only the id a contact was first known by may overwrite what is
there, its aliases fill what is blank: so two customers who share a mailbox never take turns.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text

from dispatcher import consent, identity
from dispatcher.addresses import ensure_addresses
from dispatcher.contacts.names import spellings
from dispatcher.contacts.rows import (
    PLAIN_FIELDS,
    Contact,
    insert_aliases,
    insert_contacts,
    read_contacts,
    reserve_ids,
    update_contacts,
)
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts, lock_identity
from dispatcher.personal import PERSONAL_FIELDS
from dispatcher.places.tables import phone_region

MOST_AT_ONCE = 500
#: The name of somebody of whom there was no more than an address: its keyed hash.
_GUEST = re.compile(r"(email|phone)-[0-9a-f]{16}")
_NAMES = tuple(name for name in PERSONAL_FIELDS if name not in ("email", "phone"))


@dataclass(frozen=True, slots=True)
class Particulars:
    """What somebody says of a contact; None: nothing said, so nothing changes."""

    external_id: str
    email: str | None = None  #: in normal form
    phone: str | None = None  #: E.164
    first_name: str | None = None
    last_name: str | None = None
    postal_code: str | None = None
    locale: str | None = None
    country: str | None = None
    subdivision: str | None = None
    zone: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    only_fills: bool = False  #: said in passing, or of former times: fills what is blank, overwrites nothing
    forget: frozenset[str] = frozenset()  #: fields that are blank from now on; of attributes `attr.NAME`


class Outcome(StrEnum):
    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    MERGED = "merged"  #: turned out to be a contact we knew by another id
    ERASED = "erased"  #: left out: the person was erased


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of one of the given."""

    outcome: Outcome
    contact_id: int | None  #: None if erased
    email_address_id: int | None = None  #: of the address given, whether or not it became the contact's
    sms_address_id: int | None = None
    other_email: bool = False  #: an alias came with an address that is not its contact's; it was left where it is
    lost: int | None = None  #: another contact, which turned out to be this one
    erased_address: bool = False  #: who was erased is whoever had the e-mail address, not this contact
    changed: frozenset[str] = frozenset()  #: names of fields; all attributes are one


def why_erased(saved: Saved, external_id: str) -> str:
    """Return why somebody is not taken in, for who gave the id or the address: it tells nothing more of anybody."""
    if saved.erased_address:
        return "the e-mail address belongs to somebody who was erased, and stays erased"
    return f"contact {external_id} was erased, and stays erased"


def save_contact(connection: Connection, key_ring: KeyRing, given: Particulars) -> Saved:
    """Create or change one contact; see `save_contacts`."""
    return save_contacts(connection, key_ring, [given])[0]


def save_contacts(connection: Connection, key_ring: KeyRing, given: Sequence[Particulars]) -> list[Saved]:
    """Create or change these contacts (at most 500), in their order; return what became of each.

    Takes the locks, contacts and addresses of all of them, until the caller's transaction ends.
    """
    if len(given) > MOST_AT_ONCE:
        raise ValueError(f"at most {MOST_AT_ONCE} contacts a transaction")
    lock_identity(connection)
    page = _Page(connection, key_ring, given)
    saved = [page.save(one) for one in given]
    page.write()
    survivors = {one.lost: one.contact_id for one in saved if one.lost is not None}
    return [_moved(one, survivors) for one in saved]


def _moved(saved: Saved, survivors: Mapping[int, int | None]) -> Saved:
    """Return it as of whoever its contact is by the end of the page."""
    while saved.contact_id is not None and saved.contact_id in survivors:
        saved = replace(saved, contact_id=survivors[saved.contact_id])
    return saved


class _Page:
    """The contacts that some particulars speak of, locked, and found by external id and by e-mail address."""

    def __init__(self, connection: Connection, key_ring: KeyRing, given: Sequence[Particulars]) -> None:
        self._connection, self._key_ring = connection, key_ring
        wanted = {("email", one.email) for one in given if one.email} | {
            ("sms", one.phone) for one in given if one.phone
        }
        self._address_ids = ensure_addresses(connection, key_ring, wanted)
        self._erased = _erased_among(connection, self._address_ids.values())
        aliases, contact_ids = self._find(given)
        lock_contacts(connection, contact_ids | _tombstones_of(connection, contact_ids))  # a merge moves these, too
        contacts = {contact.id: contact for contact in read_contacts(connection, key_ring, contact_ids)}
        present = {i for c in contacts.values() for i in (c.email_address_id, c.sms_address_id) if i is not None}
        lock_addresses(connection, present | set(self._address_ids.values()))
        self._by_alias = {external_id: contacts[contact_id] for external_id, contact_id in aliases.items()}
        self._by_email = {c.email_address_id: c for c in contacts.values() if c.email_address_id is not None}
        self._unwritten: dict[int, Contact] = {}
        self._new_aliases: list[tuple[str, int]] = []
        unknown = {one.external_id for one in given} - set(aliases)
        self._free_ids = iter(reserve_ids(connection, len(unknown)))

    def _find(self, given: Sequence[Particulars]) -> tuple[dict[str, int], set[int]]:
        """Return which of the external ids are known, and everybody these or the e-mail addresses belong to."""
        aliases = _read_aliases(self._connection, self._key_ring, [one.external_id for one in given])
        holders = self._connection.scalars(
            text("SELECT id FROM contact WHERE email_address_id = ANY(:ids) AND merged_into IS NULL"),
            {"ids": [i for (channel, _), i in self._address_ids.items() if channel == "email"]},
        )
        return aliases, {*aliases.values(), *holders}

    def save(self, one: Particulars) -> Saved:
        """Take one contact's particulars in; written by `write`."""
        email_id = self._address_ids[("email", one.email)] if one.email else None
        phone_id = self._address_ids[("sms", one.phone)] if one.phone else None
        known, holder = self._by_alias.get(one.external_id), self._by_email.get(email_id) if email_id else None
        if known is not None and known.erased:
            return Saved(Outcome.ERASED, None)
        if email_id in self._erased:
            return Saved(Outcome.ERASED, None, erased_address=True)
        if phone_id in self._erased:
            one, phone_id = replace(one, phone=None), None
        contact, outcome = self._whose(one, known, holder)
        merged = outcome is Outcome.MERGED
        primary = _is_own_name(contact, one.external_id) and not one.only_fills
        changes = self._move(contact, "email", one.email, email_id, overwrite=primary)
        changes |= self._move(contact, "phone", one.phone, phone_id, overwrite=primary)
        changes |= _fill(contact, one, overwrite=primary)
        if primary and one.forget:
            changes |= self._forget(contact, one.forget)
        if changes:
            contact.changes |= changes
            self._unwritten[contact.id] = contact
            outcome = Outcome.CHANGED if outcome is Outcome.UNCHANGED else outcome
        other_email = email_id not in (None, contact.email_address_id)
        lost = next((c.id for c in (known, holder) if merged and c is not None and c.id != contact.id), None)
        return Saved(outcome, contact.id, email_id, phone_id, other_email, lost, changed=frozenset(changes))

    def _whose(self, one: Particulars, known: Contact | None, holder: Contact | None) -> tuple[Contact, Outcome]:
        """Return the contact that is meant, making, joining or merging as needed."""
        if known is None:
            contact, outcome = (self._make(one), Outcome.CREATED) if holder is None else (holder, Outcome.MERGED)
            self._by_alias[one.external_id] = contact
            self._new_aliases.append((one.external_id, contact.id))
            if _GUEST.fullmatch(contact.external_id) and not _GUEST.fullmatch(one.external_id):
                contact.external_id = one.external_id  # a guest is a customer now: what the shop says of them counts
                contact.changes.add("external_id")
                self._unwritten[contact.id] = contact
            return contact, outcome
        if holder is None or holder is known:
            return known, Outcome.UNCHANGED
        own = _is_own_name(known, one.external_id) and not one.only_fills
        if not own and known.email_address_id is not None:
            return known, Outcome.UNCHANGED  # an alias that went to another mailbox does not take the contact along
        return self._merge(known, holder), Outcome.MERGED

    def _make(self, one: Particulars) -> Contact:
        _, wrapped = self._key_ring.new_data_key()
        contact = Contact(next(self._free_ids), one.external_id, wrapped, is_new=True)
        self._unwritten[contact.id] = contact
        return contact

    def _merge(self, known: Contact, holder: Contact) -> Contact:
        self.write()
        survivor_id = identity.merge(self._connection, self._key_ring, known.id, holder.id)
        [survivor] = read_contacts(self._connection, self._key_ring, [survivor_id])
        both = (known, holder)
        self._by_alias = {alias: survivor if c in both else c for alias, c in self._by_alias.items()}
        self._by_email = {email_id: c for email_id, c in self._by_email.items() if c not in both}
        if survivor.email_address_id is not None:
            self._by_email[survivor.email_address_id] = survivor
        return survivor

    def _move(
        self, contact: Contact, name: str, normal: str | None, address_id: int | None, *, overwrite: bool
    ) -> set[str]:
        """Give the contact a new address on a channel.  Consent names its address, so what the old one had is void."""
        column = "email_address_id" if name == "email" else "sms_address_id"
        present = getattr(contact, column)
        if address_id is None or address_id == present or (present is not None and not overwrite):
            return set()
        if name == "email":
            self._by_email.pop(present, None)
            self._by_email[address_id] = contact
        if name == "phone":
            contact.phone_region = phone_region(normal) if normal else None
        setattr(contact, column, address_id)
        contact.personal = replace(contact.personal, **{name: normal})
        return {name}

    def _forget(self, contact: Contact, names: frozenset[str]) -> set[str]:
        """Blank these fields; return those that were not.  An address that is gone takes its consent along."""
        gone = {name for name in names & set(PERSONAL_FIELDS) if getattr(contact.personal, name) is not None}
        contact.personal = replace(contact.personal, **dict.fromkeys(gone))
        if "email" in gone and contact.email_address_id is not None:
            self._by_email.pop(contact.email_address_id, None)
            contact.email_address_id = None
        if "phone" in gone:
            contact.sms_address_id = contact.phone_region = None
        for name in (plain := {name for name in names & set(PLAIN_FIELDS) if getattr(contact, name) is not None}):
            setattr(contact, name, None)
        kept = {name: value for name, value in contact.attributes.items() if f"attr.{name}" not in names}
        attributes = {"attributes"} if kept != contact.attributes else set()
        contact.attributes = kept
        return gone | plain | attributes

    def write(self) -> None:
        """Write what was taken in and is not written yet."""
        contacts = list(self._unwritten.values())
        insert_contacts(self._connection, self._key_ring, [contact for contact in contacts if contact.is_new])
        update_contacts(self._connection, self._key_ring, [contact for contact in contacts if not contact.is_new])
        insert_aliases(self._connection, self._new_aliases)
        if moved := [c.id for c in contacts if not c.is_new and c.changes & {"email", "phone"}]:
            consent.settle_move(self._connection, moved)
        for contact in contacts:
            contact.is_new = False
            contact.changes.clear()
        self._unwritten.clear()
        self._new_aliases.clear()


def _is_own_name(contact: Contact, external_id: str) -> bool:
    """Whether this is the id the contact was first known by; what is only a guest's name is anybody's."""
    return contact.external_id == external_id or _GUEST.fullmatch(contact.external_id) is not None


def _fill(contact: Contact, one: Particulars, *, overwrite: bool) -> set[str]:
    """Take over the other fields that are given, where they may be; return the names of those that changed."""
    changes = {}
    for owner, names in ((contact, PLAIN_FIELDS), (contact.personal, _NAMES)):
        for name in names:
            value, present = getattr(one, name), getattr(owner, name)
            if value not in (None, present) and (overwrite or present is None):
                changes[name] = value
    for name in PLAIN_FIELDS:
        if name in changes:
            setattr(contact, name, changes[name])
    contact.personal = replace(contact.personal, **{name: changes[name] for name in _NAMES if name in changes})
    attributes = contact.attributes | one.attributes if overwrite else one.attributes | contact.attributes
    if attributes == contact.attributes:
        return set(changes)
    contact.attributes = attributes
    return {*changes, "attributes"}


def _tombstones_of(connection: Connection, contact_ids: Collection[int]) -> set[int]:
    return set(
        connection.scalars(text("SELECT id FROM contact WHERE merged_into = ANY(:ids)"), {"ids": list(contact_ids)})
    )


def _erased_among(connection: Connection, address_ids: Collection[int]) -> set[int | None]:
    return set(
        connection.scalars(
            text("SELECT address_id FROM suppression WHERE reason = 'erasure' AND address_id = ANY(:ids)"),
            {"ids": list(address_ids)},
        )
    )


_MAKE_BARE = text("""
    INSERT INTO contact (external_id, data_key)
    SELECT * FROM unnest(CAST(:external_ids AS text[]), CAST(:data_keys AS bytea[])) AS x(external_id, data_key)
    ORDER BY external_id
    ON CONFLICT (external_id) DO NOTHING RETURNING id
""")
_MAKE_ALIASES = text("""
    INSERT INTO contact_alias (external_id, contact_id)
    SELECT external_id, id FROM contact WHERE id = ANY(:ids) ORDER BY external_id
    ON CONFLICT (external_id) DO NOTHING
""")
# Somebody else wrote an alias of this name between our look and our insert: theirs counts.
_DROP_NAMELESS = text("""
    DELETE FROM contact c WHERE id = ANY(:ids) AND NOT EXISTS (SELECT FROM contact_alias a WHERE a.contact_id = c.id)
""")
_KNOWN = text("""
    SELECT a.external_id, COALESCE(c.merged_into, c.id) AS contact_id
    FROM contact_alias a JOIN contact c ON c.id = a.contact_id
    WHERE a.external_id = ANY(:external_ids)
""")


def ensure_contacts(connection: Connection, key_ring: KeyRing, external_ids: Collection[str]) -> dict[str, int]:
    """Return the contact of each external id, making bare ones for those that nobody knows yet."""
    wanted = sorted(set(external_ids))
    known = _read_aliases(connection, key_ring, wanted)
    missing = [external_id for external_id in wanted if external_id not in known]
    if not missing:
        return known
    data_keys = [key_ring.new_data_key()[1] for _ in missing]
    made = connection.scalars(_MAKE_BARE, {"external_ids": missing, "data_keys": data_keys}).all()
    connection.execute(_MAKE_ALIASES, {"ids": made})
    connection.execute(_DROP_NAMELESS, {"ids": made})
    return _read_aliases(connection, key_ring, wanted)


def _read_aliases(connection: Connection, key_ring: KeyRing, external_ids: list[str]) -> dict[str, int]:
    """Return the contact of each external id that is known, those of the erased included."""
    known = spellings(key_ring, external_ids)
    rows = connection.execute(_KNOWN, {"external_ids": list(known)})
    return {known[row.external_id]: row.contact_id for row in rows}
