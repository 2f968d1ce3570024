"""Whom a link speaks for: the contact it names, or what that was merged into, at the address it was sent to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from dispatcher import clock, own_hours
from dispatcher.definitions import Silence
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts
from dispatcher.personal import Personal, open_personal
from dispatcher.places import Places, places_of
from dispatcher.shop import find_shop
from dispatcher.tokens import BadToken, WayHome, WayToData

Way = WayHome | WayToData

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who holds a good link."""

    contact_id: int
    external_id: str
    locale: str | None
    personal: Personal
    addresses: dict[str, int]  #: by channel; only those they have
    paused_until: datetime | None  #: None as well once it is over
    silences: tuple[Silence, ...]
    places: Places
    now: datetime  #: engine time; after the locks, if it was held

    def address_on(self, channel: str) -> str:
        """Return the address itself, to mask it; empty if it is not known."""
        return (self.personal.email if channel == "email" else self.personal.phone) or ""


_PRESENT = text("""
    SELECT c.id, c.external_id, c.locale, c.data_key, c.sealed, c.email_address_id AS email, c.sms_address_id AS sms,
           c.paused_until, CAST(c.quiet_hours AS text) AS quiet_hours, c.zone, c.country, c.subdivision,
           c.phone_region, c.erased_at
    FROM contact t JOIN contact c ON c.id = COALESCE(t.merged_into, t.id) WHERE t.id = :id
""")


def find(connection: Connection, key_ring: KeyRing, way: Way) -> Person:
    """Return the person; BadToken if they have another address by now, were erased, or never were.

    Who has a former address of somebody may be anybody: what the link was for, they can still leave by /u.
    """
    row = _read(connection, way)
    now, shop = clock.read_now(connection), find_shop(connection)
    return Person(
        row.id,
        row.external_id,
        row.locale,
        open_personal(key_ring, row.data_key, row.sealed),
        {channel: row._mapping[channel] for channel in ("email", "sms") if row._mapping[channel] is not None},
        row.paused_until if row.paused_until is not None and row.paused_until > now else None,
        own_hours.read(row.quiet_hours),
        places_of(row.zone, row.country, row.subdivision, row.phone_region, shop.shop.countries if shop else ()),
        now,
    )


def hold(connection: Connection, key_ring: KeyRing, way: Way) -> Person:
    """Lock the person and their addresses until the transaction ends, and return them; BadToken as `find`."""
    for _ in range(_ATTEMPTS):
        with connection.begin_nested() as look:
            before = _read(connection, way)
            lock_contacts(connection, [before.id])
            lock_addresses(connection, [i for i in (before.email, before.sms) if i is not None])
            after = _read(connection, way)
            if (before.id, before.email, before.sms) == (after.id, after.email, after.sms):
                return find(connection, key_ring, way)
            look.rollback()
    raise Refused("this contact is being merged or moved right now; try again")


def _read(connection: Connection, way: Way) -> Row[Any]:
    row = connection.execute(_PRESENT, {"id": way.contact_id}).one_or_none()
    if row is None or row.erased_at is not None or row._mapping[way.channel] != way.address_id:
        raise BadToken
    return row
