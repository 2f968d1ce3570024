"""Rows of `contact` in memory, opened, and back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, text

from dispatcher.db import copy_rows
from dispatcher.keys import KeyRing
from dispatcher.personal import Personal, open_personal

PLAIN_FIELDS = ("locale", "country", "subdivision", "zone")
#: Fields that only places and segments look at: changing them makes no rendered message wrong.
UNRENDERED = frozenset({"subdivision", "zone"})


@dataclass(slots=True, eq=False)
class Contact:
    """A contact as it is about to be written."""

    id: int
    external_id: str
    data_key: bytes | None
    personal: Personal = field(default_factory=Personal)
    locale: str | None = None
    country: str | None = None
    subdivision: str | None = None
    zone: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    email_address_id: int | None = None
    sms_address_id: int | None = None
    phone_region: str | None = None
    erased: bool = False
    is_new: bool = False
    changes: set[str] = field(default_factory=set)  #: fields that differ from what is stored


def reserve_ids(connection: Connection, number: int) -> list[int]:
    """Return ids for contacts to come, in order."""
    if not number:
        return []
    return list(
        connection.scalars(
            text("SELECT nextval(pg_get_serial_sequence('contact', 'id')) FROM generate_series(1, :number)"),
            {"number": number},
        )
    )


def read_contacts(connection: Connection, key_ring: KeyRing, ids: Collection[int]) -> list[Contact]:
    """Return these contacts, opened."""
    rows = connection.execute(
        text("""SELECT id, external_id, data_key, sealed, locale, country, subdivision, zone, attributes,
                       email_address_id, sms_address_id, phone_region, erased_at IS NOT NULL AS erased
                FROM contact WHERE id = ANY(:ids)"""),
        {"ids": list(ids)},
    )
    return [
        Contact(
            row.id, row.external_id, row.data_key, open_personal(key_ring, row.data_key, row.sealed),
            row.locale, row.country, row.subdivision, row.zone, row.attributes,
            row.email_address_id, row.sms_address_id, row.phone_region, row.erased,
        )
        for row in rows
    ]  # fmt: skip


_COLUMNS = (
    "id", "external_id", "data_key", "sealed", "locale", "country", "subdivision", "zone", "attributes",
    "email_address_id", "sms_address_id", "phone_region",
)  # fmt: skip


def insert_contacts(connection: Connection, key_ring: KeyRing, contacts: Sequence[Contact]) -> None:
    """Write new contacts."""
    if contacts:
        copy_rows(connection, "contact", _COLUMNS, (_values(key_ring, contact) for contact in contacts))


def insert_aliases(connection: Connection, aliases: Iterable[tuple[str, int]]) -> None:
    """Write which contact an external id is."""
    copy_rows(connection, "contact_alias", ("external_id", "contact_id"), aliases)


_UPDATE = text("""
    UPDATE contact SET
        sealed = x.sealed, locale = x.locale, country = x.country, subdivision = x.subdivision, zone = x.zone,
        attributes = CAST(x.attributes AS jsonb), email_address_id = x.email_address_id,
        sms_address_id = x.sms_address_id, phone_region = x.phone_region, external_id = x.external_id,
        version = version + CASE WHEN x.rendered THEN 1 ELSE 0 END
    FROM unnest(
        CAST(:id AS bigint[]), CAST(:sealed AS bytea[]), CAST(:locale AS text[]), CAST(:country AS text[]),
        CAST(:subdivision AS text[]), CAST(:zone AS text[]), CAST(:attributes AS text[]),
        CAST(:email_address_id AS bigint[]), CAST(:sms_address_id AS bigint[]), CAST(:phone_region AS text[]),
        CAST(:external_id AS text[]), CAST(:rendered AS boolean[])
    ) AS x(id, sealed, locale, country, subdivision, zone, attributes, email_address_id, sms_address_id, phone_region,
           external_id, rendered)
    WHERE contact.id = x.id
""")


def update_contacts(connection: Connection, key_ring: KeyRing, contacts: Sequence[Contact]) -> None:
    """Write changed contacts, which the caller has locked; the version rises where rendering would see a difference."""
    if not contacts:
        return
    columns = dict(zip(_COLUMNS, zip(*(_values(key_ring, c) for c in contacts), strict=True), strict=True))
    parameters = {name: list(values) for name, values in columns.items() if name != "data_key"}
    connection.execute(_UPDATE, {**parameters, "rendered": [bool(c.changes - UNRENDERED) for c in contacts]})


def _values(key_ring: KeyRing, contact: Contact) -> tuple[Any, ...]:
    sealed = None if contact.data_key is None else contact.personal.seal(key_ring.open_data_key(contact.data_key))
    return (
        contact.id, contact.external_id, contact.data_key, sealed,
        contact.locale, contact.country, contact.subdivision, contact.zone,
        orjson.dumps(contact.attributes).decode(), contact.email_address_id, contact.sms_address_id,
        contact.phone_region,
    )  # fmt: skip
