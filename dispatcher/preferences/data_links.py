"""The way to what we know of somebody: a link of its own, sent to their own address, short-lived, and for one browser.

The link of the preference centre is in every mail, and a mail can be forwarded.  What we know of a person is therefore
opened only by a message that is asked for at that moment and goes to the person's address.  Its page shows a button;
the browser that presses it first has the link, by a secret that was in its page, until the link ends.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from dispatcher import audit, house_messages
from dispatcher.content import OWN_DATA
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.preferences import ACTOR
from dispatcher.preferences.whose import Person, Way, find, hold
from dispatcher.tokens import BadToken, WayToData

#: Who asks for these messages, in `message.client`.  The key is the link.
CLIENT = "dispatcher:own-data"
#: How long a link is good, from when it was asked for.
VALID_FOR = timedelta(minutes=30)
#: Who has somebody's forwarded mail must not be able to fill their mailbox.
ONE_EVERY = timedelta(minutes=10)
MOST_A_DAY = 5

_FAMILY = house_messages.Family(OWN_DATA, CLIENT, "security")
#: A message that comes later is not what somebody waits for at that moment.
_IN_TIME = timedelta(minutes=10)

Became = Literal["sent", "sent already", "unreachable"]


@dataclass(frozen=True, slots=True)
class Asked:
    became: Became
    channel: str  #: by which the link goes: e-mail if they have it
    address: str  #: in clear: mask it


def channel_for(person: Person) -> str:
    """Return the channel that links to data go by."""
    return "email" if "email" in person.addresses else "sms"


def ask(connection: Connection, key_ring: KeyRing, way: Way) -> Asked:
    """Have a link sent to the person's own address, unless one was sent lately; BadToken as `whose`."""
    person = hold(connection, key_ring, way)
    channel = channel_for(person)
    address_id, address = person.addresses[channel], person.address_on(channel)
    if _is_unreachable(connection, address_id):
        return Asked("unreachable", channel, address)
    lately = connection.execute(_LATELY, {"contact": person.contact_id, "since": person.now - timedelta(days=1)}).one()
    too_soon = lately.newest is not None and person.now - lately.newest < ONE_EVERY
    if too_soon or lately.number >= MOST_A_DAY:
        return Asked("sent already", channel, address)
    link_id = connection.execute(
        _INSERT,
        {"contact": person.contact_id, "address": address_id, "channel": channel, "now": person.now,
         "expires_at": person.now + VALID_FOR},
    ).scalar_one()  # fmt: skip
    wrapped = connection.scalar(text("SELECT data_key FROM contact WHERE id = :id"), {"id": person.contact_id})
    assert wrapped is not None  # an erased contact has no good link
    house_messages.send(
        connection, _FAMILY, OWN_DATA, channel, contact_id=person.contact_id, address_id=address_id,
        key=str(link_id), now=person.now, expires_at=person.now + _IN_TIME,
        sealed=key_ring.open_data_key(wrapped).seal({"link": link_id, "address": address_id}),
    )  # fmt: skip
    audit.record(connection, ACTOR, "own_data.link_sent", f"contact {person.contact_id}", {"link": link_id})
    return Asked("sent", channel, address)


_LATELY = text("""
    SELECT count(*) AS number, max(asked_at) AS newest FROM data_link
    WHERE contact_id = :contact AND asked_at > :since
""")
_INSERT = text("""
    INSERT INTO data_link (contact_id, address_id, channel, asked_at, expires_at)
    VALUES (:contact, :address, :channel, :now, :expires_at) RETURNING id
""")


def _is_unreachable(connection: Connection, address_id: int) -> bool:
    return bool(
        connection.scalar(
            text("""SELECT EXISTS (SELECT FROM suppression WHERE address_id = :id AND scope = 'all')
                        OR EXISTS (SELECT FROM address WHERE id = :id AND state = 'bad')"""),
            {"id": address_id},
        )
    )


def way_of(message: Row[Any], channel: str, data: Mapping[str, Any]) -> WayToData:
    """Return what the message's link opens, from what `ask` put into it; Refused if the address is another by now."""
    if message.address_id != data["address"]:
        raise Refused("the contact's address has changed since the link was asked for")
    return WayToData(message.contact_id, channel, data["address"], data["link"])


def new_key() -> str:
    """Return a secret for one page: whoever presses its button first has the link."""
    return secrets.token_urlsafe(24)


def look(connection: Connection, key_ring: KeyRing, way: WayToData) -> Person:
    """Return whose link it is; BadToken if it is not good (any more), or another browser has it."""
    person = find(connection, key_ring, way)
    row = _read(connection, way)
    if row.opened_by is not None or not _is_good(row, way, person):
        raise BadToken
    return person


def open_with(connection: Connection, key_ring: KeyRing, way: WayToData, key: str) -> Person:
    """Lock the person and return them if the browser that knows `key` has the link, or is the first; else BadToken."""
    person = hold(connection, key_ring, way)
    row = _read(connection, way)
    digest = hashlib.sha256(key.encode()).digest()
    if not key or not _is_good(row, way, person):
        raise BadToken
    if row.opened_by is None:
        connection.execute(
            text("UPDATE data_link SET opened_by = :digest, opened_at = :now WHERE id = :id"),
            {"digest": digest, "now": person.now, "id": way.link_id},
        )
        audit.record(connection, ACTOR, "own_data.opened", f"contact {person.contact_id}", {"link": way.link_id})
    elif not hmac.compare_digest(bytes(row.opened_by), digest):
        raise BadToken
    return person


def end(connection: Connection, way: WayToData, person: Person) -> None:
    """Let nobody use this link any more."""
    connection.execute(
        text("UPDATE data_link SET ended_at = :now WHERE id = :id"), {"now": person.now, "id": way.link_id}
    )


def _read(connection: Connection, way: WayToData) -> Row[Any]:
    row = connection.execute(
        text("SELECT contact_id, address_id, channel, expires_at, opened_by, ended_at FROM data_link WHERE id = :id"),
        {"id": way.link_id},
    ).one_or_none()
    if row is None:
        raise BadToken
    return row


def _is_good(row: Row[Any], way: WayToData, person: Person) -> bool:
    """Whether the row is of this link, and not over.  That the address is still theirs, `whose` has seen."""
    same = (row.contact_id, row.channel, row.address_id) == (way.contact_id, way.channel, way.address_id)
    return same and row.ended_at is None and person.now < row.expires_at
