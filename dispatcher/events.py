"""What the shop said happened: read, checked, and recorded once.

An event is known by its source and its key there.  The same key with the same body again changes nothing; with another
body it is refused, because what was decided on the first one cannot be undone.  The body's hash is over its normal
form: key order, number spelling, zone and the order of the items make no difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import Connection, text

from dispatcher import interests
from dispatcher.clock import read_now
from dispatcher.contacts import ensure_contacts
from dispatcher.contacts.names import spellings
from dispatcher.db import copy_rows
from dispatcher.errors import DispatcherError
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_contacts
from dispatcher.triggers.arrivals import Again, Meeting, Starting, Step, follow, holders, meetings_of

SOURCE = "shop"

Key = tuple[str, str]  # source, and the event's key there


@dataclass(frozen=True, slots=True)
class Item:
    """One line of an event: what it was about, how many, and what they cost together."""

    interests: tuple[str, ...] = ()
    quantity: Decimal = Decimal(1)
    value: Decimal = Decimal(0)
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    source_key: str
    contact: str  # external id
    name: str
    occurred_at: datetime
    value: Decimal = Decimal(0)
    properties: dict[str, Any] = field(default_factory=dict)
    items: tuple[Item, ...] = ()
    source: str = SOURCE
    line: int | None = None  # of the file it came from
    #: What templates of triggers may use, but the event does not keep: with a message it is sealed, else it is gone.
    private: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.source, self.source_key


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that was not recorded, and why."""

    event: Event
    reason: str
    other_body: bool = False  # else: the contact was erased


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of some events."""

    new: int
    same: int
    refused: tuple[Refusal, ...]
    items: int  # of the new ones
    contacts_created: int
    steps: tuple[Step, ...] = ()  # what the new ones did to the flows of triggers
    new_keys: frozenset[Key] = field(default=frozenset(), compare=False)  # which ones those are


_KNOWN = text("SELECT count(*) FROM contact_alias WHERE external_id = ANY(:external_ids)")
_SURVIVORS = text("""
    WITH RECURSIVE chain (asked, id, merged_into) AS (
        SELECT id, id, merged_into FROM contact WHERE id = ANY(:ids)
        UNION ALL
        SELECT chain.asked, contact.id, contact.merged_into FROM chain JOIN contact ON contact.id = chain.merged_into
    )
    SELECT asked, id FROM chain WHERE merged_into IS NULL
""")
_STATES = text("SELECT id, merged_into, erased_at FROM contact WHERE id = ANY(:ids)")
_INSERT = text("""
    INSERT INTO event (source, source_key, body_hash, contact_id, name, occurred_at, received_at, value, properties)
    SELECT source, source_key, body_hash, contact_id, name, occurred_at, :now, value, CAST(properties AS jsonb)
    FROM unnest(
        CAST(:sources AS text[]), CAST(:source_keys AS text[]), CAST(:body_hashes AS bytea[]),
        CAST(:contact_ids AS bigint[]), CAST(:names AS text[]), CAST(:instants AS timestamptz[]),
        CAST(:values AS numeric[]), CAST(:properties AS text[])
    ) AS given (source, source_key, body_hash, contact_id, name, occurred_at, value, properties)
    ORDER BY source, source_key
    ON CONFLICT (source, source_key) DO NOTHING
    RETURNING source, source_key, id
""")
_RECORDED = text("""
    SELECT event.source, event.source_key, event.body_hash
    FROM event
    JOIN unnest(CAST(:sources AS text[]), CAST(:source_keys AS text[])) AS given (source, source_key)
        USING (source, source_key)
""")
_ITEM_COLUMNS = ("event_id", "position", "interests", "quantity", "value", "properties")


class OtherBody(DispatcherError):  # noqa: N818 - named for what it says
    """The key of an event is recorded with another body."""


OTHER_BODY = "source_key {key} is already recorded with another body"
_SORTED = orjson.OPT_SORT_KEYS

ERASED = "contact {contact} was erased"


def record_events(
    connection: Connection,
    key_ring: KeyRing,
    events: Sequence[Event],
    *,
    starting: Starting = Starting.UNTIL_EXPIRY,
) -> Recorded:
    """Record what is new, let it do what the triggers say, and say what became of each.

    `starting`: which events may start a message of a trigger; what ends a flow is heeded in any case.
    Unknown contacts are made, bare: no event is lost because its customer comes later.  The contacts stay locked until
    the caller commits, so give at most 500 contacts' worth.  Items of new orders join the interest scores.
    """
    external_ids = sorted({event.contact for event in events})
    known = connection.execute(_KNOWN, {"external_ids": list(spellings(key_ring, external_ids))}).scalar_one()
    created = len(external_ids) - known
    made = ensure_contacts(connection, key_ring, external_ids)
    meetings = meetings_of(connection, key_ring, events)
    while True:
        try:
            with connection.begin_nested():
                recorded = _record(connection, key_ring, events, made, meetings, starting)
        except Again:
            continue
        return replace(recorded, contacts_created=created)


def _record(
    connection: Connection,
    key_ring: KeyRing,
    events: Sequence[Event],
    made: dict[str, int],
    meetings: Sequence[Meeting],
    starting: Starting,
) -> Recorded:
    """Record the events of contacts that are there; raises Again if locks must be let go first."""
    contacts, erased, locked = _lock_contacts(connection, made, holders(connection, meetings))
    refused = [Refusal(e, ERASED.format(contact=e.contact)) for e in events if contacts[e.contact] in erased]
    bodies = [(event, body_hash(event)) for event in events if contacts[event.contact] not in erased]
    first: dict[Key, tuple[Event, bytes]] = {}
    for event, body in bodies:
        first.setdefault(event.key, (event, body))

    ids = _insert(connection, list(first.values()), contacts)
    new = [(ids[key], event) for key, (event, _) in first.items() if key in ids]
    items = _copy_items(connection, new)
    interests.add(connection, [event_id for event_id, event in new if event.name == interests.COUNTED])

    known = {key: body for key, (_, body) in first.items()}
    known |= _read_hashes(connection, [key for key in first if key not in ids])
    other = [event for event, body in bodies if known[event.key] != body]
    refused += [Refusal(event, OTHER_BODY.format(key=event.source_key), True) for event in other]
    met = {(m.trigger.id, m.event.key): m for m in meetings if m.event.key in ids and m.event is first[m.event.key][0]}
    steps = follow(connection, key_ring, list(met.values()), ids, contacts, locked, starting)
    same = len(bodies) - len(new) - len(other)
    return Recorded(len(new), same, tuple(refused), items, 0, tuple(steps), frozenset(ids))


def body_hash(event: Event) -> bytes:
    """Return the SHA-256 of the event's normal form; equal for bodies that say the same."""
    items = sorted(
        orjson.dumps([item.interests, _digits(item.quantity), _digits(item.value), item.properties], option=_SORTED)
        for item in event.items
    )
    instant = event.occurred_at.astimezone(UTC).isoformat(timespec="microseconds")
    head = [event.contact, event.name, instant, _digits(event.value), event.properties]
    return hashlib.sha256(b"\n".join([orjson.dumps(head, option=_SORTED), *items])).digest()


def _digits(number: Decimal) -> str:
    return format(number.normalize(), "f") if number else "0"


def _lock_contacts(
    connection: Connection, contacts: dict[str, int], others: Sequence[int]
) -> tuple[dict[str, int], set[int], set[int]]:
    """Lock whom these contacts are now, after merges, and `others`.

    Return external id -> contact id, those of them who were erased, and everybody who is locked.
    """
    while True:
        rows = connection.execute(_SURVIVORS, {"ids": sorted(set(contacts.values()))}).all()
        survivors = {row.asked: row.id for row in rows}
        contacts = {external_id: survivors[contact_id] for external_id, contact_id in contacts.items()}
        locked = {*survivors.values(), *others}
        lock_contacts(connection, locked)
        states = connection.execute(_STATES, {"ids": sorted(set(contacts.values()))}).all()
        if all(state.merged_into is None for state in states):  # else: merged while we waited
            return contacts, {state.id for state in states if state.erased_at is not None}, locked


def _insert(connection: Connection, bodies: Sequence[tuple[Event, bytes]], contacts: dict[str, int]) -> dict[Key, int]:
    """Insert those whose key is free; return their ids by key."""
    if not bodies:
        return {}
    events = [event for event, _ in bodies]
    rows = connection.execute(
        _INSERT,
        {
            "now": read_now(connection),
            "sources": [event.source for event in events],
            "source_keys": [event.source_key for event in events],
            "body_hashes": [body for _, body in bodies],
            "contact_ids": [contacts[event.contact] for event in events],
            "names": [event.name for event in events],
            "instants": [event.occurred_at for event in events],
            "values": [event.value for event in events],
            "properties": [orjson.dumps(event.properties).decode() for event in events],
        },
    )
    return {(row.source, row.source_key): row.id for row in rows}


def _copy_items(connection: Connection, events: Sequence[tuple[int, Event]]) -> int:
    """Write the items of these new events, by id; return how many there are."""
    rows = [
        (event_id, position, _array(item.interests), item.quantity, item.value, orjson.dumps(item.properties).decode())
        for event_id, event in events
        for position, item in enumerate(event.items)
    ]
    if rows:
        copy_rows(connection, "event_item", _ITEM_COLUMNS, rows)
    return len(rows)


@lru_cache(maxsize=10_000)
def _array(names: tuple[str, ...]) -> str:
    """Return the names as PostgreSQL writes an array; the same few come a hundred thousand times."""
    quoted = (name.replace("\\", r"\\").replace('"', r"\"") for name in names)
    return "{" + ",".join(f'"{name}"' for name in quoted) + "}"


def _read_hashes(connection: Connection, keys: Sequence[Key]) -> dict[Key, bytes]:
    """Return the body hashes that are recorded under `keys`."""
    if not keys:
        return {}
    sources, source_keys = zip(*keys, strict=True)
    rows = connection.execute(_RECORDED, {"sources": list(sources), "source_keys": list(source_keys)})
    return {(row.source, row.source_key): bytes(row.body_hash) for row in rows}
