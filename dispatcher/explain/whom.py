"""Whom the question is about: the contact behind an external id or an address, through merges."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from dispatcher.contacts import find_contact
from dispatcher.keys import KeyRing


@dataclass(frozen=True, slots=True)
class Person:
    """The contact the question is about."""

    contact_id: int
    external_id: str
    merged_from: str | None  #: the external id that was asked for, where it now belongs to another contact
    merged_ids: tuple[int, ...]  #: contacts that were merged into this one: messages from before are theirs
    created_at: datetime
    erased_at: datetime | None


def find_person(connection: Connection, key_ring: KeyRing, wanted: str, *, suggest: bool) -> Person:
    """Return who `wanted` (external id, else e-mail address) is today; NotFound, with a similar id if `suggest`."""
    contact_id = find_contact(connection, key_ring, wanted, suggest=suggest)
    row = connection.execute(
        text("""SELECT external_id, created_at, erased_at, array(SELECT id FROM contact m WHERE m.merged_into = c.id
                                                                 ORDER BY id) AS merged_ids
                FROM contact c WHERE id = :id"""),
        {"id": contact_id},
    ).one()
    alias = connection.scalar(text("SELECT true FROM contact_alias WHERE external_id = :wanted"), {"wanted": wanted})
    return Person(
        contact_id,
        row.external_id,
        wanted if alias and wanted != row.external_id else None,
        tuple(row.merged_ids),
        row.created_at,
        row.erased_at,
    )
