"""Standing runs of template contents, and the messages that are born in them, due at once and one by one."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text
from uuid_utils.compat import uuid7

from dispatcher import release
from dispatcher.places import TZDATA_VERSION
from dispatcher.runs import lane_of

_FIND = text("""
    SELECT id, channel, class, lane, topic FROM run
    WHERE kind = 'standing' AND trigger_id IS NULL AND template_hash = :hash
""")
_MAKE = text("""
    INSERT INTO run (id, kind, name, occurrence_key, channel, topic, class, lane, definition, template_hash, tzdata,
                     nominal_at, as_of, state, created_at, planned_at)
    VALUES (:id, 'standing', :name, :occurrence_key, :channel, :topic, :class, :lane, '{}', :hash, :tzdata, :now, :now,
            'running', :now, :now)
    ON CONFLICT (template_hash) WHERE kind = 'standing' AND trigger_id IS NULL DO NOTHING
""")


def standing_run(
    connection: Connection, template_hash: str, *, name: str, channel: str, class_: str, topic: str | None = None,
    occurrence_key: str = "standing", now: datetime,
) -> Row[Any]:  # fmt: skip
    """Return the run (id, channel, class, lane, topic) of all messages of this content; the first one makes it."""
    found = connection.execute(_FIND, {"hash": template_hash}).one_or_none()
    if found is not None:
        return found
    connection.execute(
        _MAKE,
        {"id": uuid7(), "name": name, "occurrence_key": occurrence_key, "channel": channel, "topic": topic,
         "class": class_, "lane": lane_of(channel, class_), "hash": template_hash, "tzdata": TZDATA_VERSION,
         "now": now},
    )  # fmt: skip
    return connection.execute(_FIND, {"hash": template_hash}).one()  # ours, or that of who was quicker


_WRITE = text("""
    INSERT INTO message (id, run_id, contact_id, channel, topic, class, address_id, status, due_at, first_due_at,
                         expires_at, batch_id, client, idempotency_key, body_hash, sealed)
    VALUES (:id, :run, :contact, :channel, :topic, :class, :address, 'pending', :now, :now, :expires_at, :batch,
            :client, :key, :body_hash, :sealed)
    ON CONFLICT (client, idempotency_key) DO NOTHING RETURNING id
""")


def write_message(
    connection: Connection, run: Row[Any], *, contact_id: int, address_id: int | None, topic: str | None = None,
    client: str, key: str, body_hash: bytes | None = None, sealed: bytes | None = None,
    now: datetime, expires_at: datetime,
) -> UUID | None:  # fmt: skip
    """Write a message that is due now, in a batch of its own, and return its id; None if the client's key is taken.

    The caller holds the contact.  `sealed`: the message's data, under the contact's key.
    """
    batch_id = connection.execute(text("SELECT nextval(pg_get_serial_sequence('batch', 'id'))")).scalar_one()
    message_id = connection.scalar(
        _WRITE,
        {"id": uuid7(), "run": run.id, "contact": contact_id, "channel": run.channel, "topic": topic,
         "class": run._mapping["class"], "address": address_id, "now": now, "expires_at": expires_at,
         "batch": batch_id, "client": client, "key": key, "body_hash": body_hash, "sealed": sealed},
    )  # fmt: skip
    if message_id is None:
        return None
    connection.execute(
        text("INSERT INTO batch (id, run_id, lane) VALUES (:id, :run, :lane)"),
        {"id": batch_id, "run": run.id, "lane": run.lane},
    )
    release.announce(connection, batch_id, run.lane)
    return UUID(str(message_id))
