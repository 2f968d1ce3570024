"""One person, one contact: merging two that turn out to be the same."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Row, text

from dispatcher import audit, clock, consent, interests, outranked
from dispatcher.errors import NotFound, Refused
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts, lock_identity
from dispatcher.personal import PERSONAL_FIELDS, Personal, open_personal
from dispatcher.tables import MAY_HAVE_LEFT

_PLAIN_FIELDS = ("locale", "country", "subdivision", "zone", "email_address_id", "sms_address_id", "phone_region")


def merge(connection: Connection, key_ring: KeyRing, one_id: int, other_id: int, *, by: str = "import") -> int:
    """Make one contact of two, and return the survivor: the lower id.  Merging twice, or with itself, changes nothing.

    The loser stays as a tombstone that points at the survivor, with its evidence; everything else goes over: aliases,
    events, interests, consent (withdrawal wins), messages, and whatever the survivor has blank.
    """
    lock_identity(connection)
    survivor_id, loser_id = sorted(_survivor_of(connection, contact_id) for contact_id in (one_id, other_id))
    if survivor_id == loser_id:
        return survivor_id
    _hold_pages(connection, survivor_id, loser_id)
    tombstones = connection.scalars(text("SELECT id FROM contact WHERE merged_into = :id"), {"id": loser_id})
    lock_contacts(connection, [survivor_id, loser_id, *tombstones])
    survivor, loser = _read(connection, survivor_id), _read(connection, loser_id)
    if survivor.erased_at or loser.erased_at:
        raise Refused(
            f"contacts {survivor.external_id} and {loser.external_id} cannot be merged: one of them was erased"
        )
    lock_addresses(connection, [i for row in (survivor, loser) for i in row[-2:] if i is not None])
    now = clock.read_now(connection)
    _fill_blanks(connection, key_ring, survivor, loser)
    _bury(connection, survivor, loser)
    interests.combine(connection, survivor=survivor_id, loser=loser_id)
    _move_messages(connection, key_ring, survivor, loser, now)
    consent.settle_merge(connection, key_ring, survivor_id, loser_id, source=f"merge with contact {loser_id}", now=now)
    audit.record(connection, by, "contact.merge", f"contact {survivor_id}", {"loser": loser_id})
    return survivor_id


def _survivor_of(connection: Connection, contact_id: int) -> int:
    found = connection.scalar(text("SELECT COALESCE(merged_into, id) FROM contact WHERE id = :id"), {"id": contact_id})
    if found is None:
        raise NotFound(f"there is no contact with id {contact_id}")
    return int(found)


def _hold_pages(connection: Connection, survivor_id: int, loser_id: int) -> None:
    """Wait for pages of audiences with either contact that are being planned, and hold the others back until we commit.

    So what those runs have written for both is known, and nothing of theirs appears beside what is moved.
    """
    connection.execute(
        text("""SELECT FROM audience_page WHERE planned_at IS NULL AND contact_ids && CAST(:ids AS bigint[])
                ORDER BY run_id, page FOR SHARE"""),
        {"ids": [survivor_id, loser_id]},
    )


def _read(connection: Connection, contact_id: int) -> Row[Any]:
    return connection.execute(
        text("""SELECT id, external_id, locale, country, subdivision, zone, attributes, data_key, sealed, paused_until,
                       CAST(quiet_hours AS text) AS quiet_hours, erased_at, phone_region, email_address_id,
                       sms_address_id
                FROM contact WHERE id = :id"""),
        {"id": contact_id},
    ).one()


def _fill_blanks(connection: Connection, key_ring: KeyRing, survivor: Row[Any], loser: Row[Any]) -> None:
    data_key = key_ring.open_data_key(survivor.data_key)
    mine, theirs = (open_personal(key_ring, row.data_key, row.sealed) for row in (survivor, loser))
    filled = Personal(*(getattr(mine, name) or getattr(theirs, name) for name in PERSONAL_FIELDS))
    # an address and its hash go together
    filled = replace(
        filled,
        email=mine.email if survivor.email_address_id else theirs.email,
        phone=mine.phone if survivor.sms_address_id else theirs.phone,
    )
    connection.execute(
        text(f"""UPDATE contact SET version = version + 1, sealed = :sealed, attributes = CAST(:attributes AS jsonb),
                        paused_until = GREATEST(paused_until, :paused_until),
                        paused_seq = CASE WHEN :paused_until > COALESCE(paused_until, '-infinity')
                                          THEN nextval('order_seq') ELSE paused_seq END,
                        quiet_hours = NULLIF(COALESCE(quiet_hours, '[]') || CAST(:quiet_hours AS jsonb), '[]'),
                        quiet_hours_seq = CASE WHEN :quiet_hours <> '[]' THEN nextval('order_seq')
                                               ELSE quiet_hours_seq END,
                        {", ".join(f"{name} = COALESCE({name}, :{name})" for name in _PLAIN_FIELDS)}
                 WHERE id = :id"""),  # noqa: S608 - names of columns
        {
            "id": survivor.id,
            "sealed": filled.seal(data_key),
            "attributes": orjson.dumps(loser.attributes | survivor.attributes).decode(),
            "paused_until": loser.paused_until,
            "quiet_hours": loser.quiet_hours or "[]",  # of both: silence is never loosened
            **{name: getattr(loser, name) for name in _PLAIN_FIELDS},
            "phone_region": None if survivor.sms_address_id else loser.phone_region,  # it goes with its number
        },
    )


def _bury(connection: Connection, survivor: Row[Any], loser: Row[Any]) -> None:
    """Leave a tombstone.  Of what is personal it keeps only the key that its evidence is sealed under."""
    ids = {"survivor": survivor.id, "loser": loser.id}
    for statement in (
        "UPDATE contact SET merged_into = :survivor WHERE merged_into = :loser",
        """UPDATE contact SET merged_into = :survivor, version = version + 1, sealed = NULL, attributes = '{}',
                  email_address_id = NULL, sms_address_id = NULL, phone_region = NULL
           WHERE id = :loser""",
        "UPDATE contact_alias SET contact_id = :survivor WHERE contact_id = :loser",
        "UPDATE event SET contact_id = :survivor WHERE contact_id = :loser",
        "UPDATE unsubscribe SET contact_id = :survivor WHERE contact_id = :loser",
    ):
        connection.execute(text(statement), ids)


# A run that has the survivor as well, or will have: one message is enough.
_SURVIVOR_HAS_ONE = """(
    EXISTS (SELECT FROM message o WHERE o.run_id = m.run_id AND o.channel = m.channel AND o.client IS NULL
                AND o.contact_id = :survivor)
    OR EXISTS (SELECT FROM audience_page p WHERE p.run_id = m.run_id AND p.planned_at IS NULL
                AND :survivor = ANY(p.contact_ids)))"""
_LOSERS_MAY_HAVE_LEFT = f"""
    EXISTS (SELECT FROM message o WHERE o.run_id = m.run_id AND o.channel = m.channel AND o.client IS NULL
                AND o.contact_id = :loser AND o.status IN {MAY_HAVE_LEFT})"""
_SKIPPED = """
    UPDATE message m SET status = 'skipped', reason = 'DUPLICATE_ADDRESS', deferred_reason = NULL, batch_id = NULL,
           facts = jsonb_build_object('merged', CAST(:loser_external_id AS text)), settled_at = :now"""
_SKIP = text(f"""{_SKIPPED}
    WHERE m.status = 'pending' AND m.client IS NULL
      AND (m.contact_id = :survivor AND {_LOSERS_MAY_HAVE_LEFT} OR m.contact_id = :loser AND {_SURVIVOR_HAS_ONE})
""")
_PRESENT_ADDRESS = """(SELECT CASE m.channel WHEN 'email' THEN c.email_address_id ELSE c.sms_address_id END
                       FROM contact c WHERE c.id = :survivor)"""
_MOVE = text(f"""
    UPDATE message m SET contact_id = :survivor,
           address_id = CASE WHEN m.status <> 'pending' THEN m.address_id ELSE {_PRESENT_ADDRESS} END
    WHERE m.contact_id = :loser AND (m.client IS NOT NULL OR NOT {_SURVIVOR_HAS_ONE})
""")  # noqa: S608 - constants


def _move_messages(
    connection: Connection, key_ring: KeyRing, survivor: Row[Any], loser: Row[Any], now: datetime
) -> None:
    """Give the loser's messages to the survivor; of two in one run, what is still pending and surplus is skipped."""
    ids = {"survivor": survivor.id, "loser": loser.id}
    connection.execute(_SKIP, {**ids, "loser_external_id": loser.external_id, "now": now})
    _reseal(connection, key_ring, survivor, loser)
    connection.execute(_MOVE, ids)
    outranked.wake(connection, [survivor.id], now)


_STRAYS = text("""
    SELECT m.id, c.id AS loser, c.merged_into AS survivor, c.external_id AS loser_external_id
    FROM message m JOIN contact c ON c.id = m.contact_id
    WHERE m.id = ANY(:ids) AND m.status = 'pending' AND m.client IS NULL AND c.merged_into IS NOT NULL ORDER BY m.id
""")
_SKIP_STRAY = text(f"""{_SKIPPED}
    WHERE m.id = :id AND m.status = 'pending' AND m.contact_id = :loser AND {_SURVIVOR_HAS_ONE}
""")
_MOVE_STRAY = text(f"""
    UPDATE message m SET contact_id = :survivor, address_id = {_PRESENT_ADDRESS}, batch_id = NULL
    WHERE m.id = :id AND m.status = 'pending' AND m.contact_id = :loser AND NOT {_SURVIVOR_HAS_ONE}
""")  # noqa: S608 - constants


def follow(connection: Connection, message_ids: Collection[UUID]) -> None:
    """Give pending messages of tombstones to the survivors, or skip what is surplus: what their merge did not see.

    One was planned while the merge went on, or came back from a provider that had not taken it.
    """
    strays = connection.execute(_STRAYS, {"ids": list(message_ids)}).all()
    lock_contacts(connection, {contact_id for row in strays for contact_id in (row.loser, row.survivor)})
    now = clock.read_now(connection)
    for row in strays:
        connection.execute(_SKIP_STRAY, {**row._mapping, "now": now})
        connection.execute(_MOVE_STRAY, dict(row._mapping))
    outranked.wake(connection, {contact_id for row in strays for contact_id in (row.loser, row.survivor)}, now)


def _reseal(connection: Connection, key_ring: KeyRing, survivor: Row[Any], loser: Row[Any]) -> None:
    """Put the data of transactional messages, all of which move, under the survivor's key."""
    rows = connection.execute(
        text("SELECT id, sealed FROM message WHERE contact_id = :loser AND sealed IS NOT NULL"), {"loser": loser.id}
    ).all()
    if not rows:
        return
    mine, theirs = (key_ring.open_data_key(row.data_key) for row in (survivor, loser))
    connection.execute(
        text("""UPDATE message m SET sealed = x.sealed
                FROM unnest(CAST(:ids AS uuid[]), CAST(:sealed AS bytea[])) AS x(id, sealed) WHERE m.id = x.id"""),
        {"ids": [row.id for row in rows], "sealed": [mine.seal(theirs.open(row.sealed)) for row in rows]},
    )
