"""Messages that the house itself sends, of templates that travel with the program: answers to texts, links to data.

Each family has runs of its own, with content hashes of its own, so that no API request can ever reach them: only what
is in such a run may go where the family's rules let it go.  A workspace may have its own template of the same name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Row, text
from uuid_utils.compat import uuid7

from dispatcher import db
from dispatcher.content import read_template_folder, template_hash
from dispatcher.places import TZDATA_VERSION
from dispatcher.resources import resource
from dispatcher.runs import lane_of


@dataclass(frozen=True, slots=True)
class Family:
    """What the messages of one kind have in common."""

    name: str  #: the occurrence key of their runs
    client: str  #: who asks for them, in `message.client`; no API key can have this name
    class_: str


def send(
    connection: Connection, family: Family, template: str, channel: str, *, contact_id: int, address_id: int, key: str,
    now: datetime, expires_at: datetime, sealed: bytes | None = None,
) -> UUID | None:  # fmt: skip
    """Write the message, due now, and return its id; None if there is one for this key already.

    The caller holds the contact and the address.  `sealed`: the message's data, under the contact's key.
    """
    run_id = _run_of(connection, family, template, channel, now)
    batch_id = connection.scalar(text("SELECT nextval(pg_get_serial_sequence('batch', 'id'))"))
    message_id = connection.scalar(
        text("""
            INSERT INTO message (id, run_id, contact_id, channel, class, address_id, status, due_at, first_due_at,
                                 expires_at, batch_id, client, idempotency_key, sealed)
            VALUES (:id, :run, :contact, :channel, :class, :address, 'pending', :now, :now, :expires_at, :batch,
                    :client, :key, :sealed)
            ON CONFLICT (client, idempotency_key) DO NOTHING RETURNING id"""),
        {"id": uuid7(), "run": run_id, "contact": contact_id, "channel": channel, "class": family.class_,
         "address": address_id, "now": now, "expires_at": expires_at, "batch": batch_id, "client": family.client,
         "key": key, "sealed": sealed},
    )  # fmt: skip
    if message_id is None:
        return None
    connection.execute(
        text("INSERT INTO batch (id, run_id, lane) VALUES (:id, :run, :lane)"),
        {"id": batch_id, "run": run_id, "lane": lane_of(channel, family.class_)},
    )
    db.notify(connection, "due")
    return UUID(str(message_id))


_FIND_RUN = text("SELECT id FROM run WHERE kind = 'standing' AND trigger_id IS NULL AND template_hash = :hash")


def _run_of(connection: Connection, family: Family, name: str, channel: str, now: datetime) -> UUID:
    """Return the run that carries all of the family's messages of this content; the first one makes it."""
    files = _files(connection, name, channel)
    hash_ = hashlib.sha256(f"{family.name}/{name}/{channel}/{template_hash(files)}".encode()).hexdigest()
    found = connection.execute(_FIND_RUN, {"hash": hash_}).one_or_none()
    run = found if found is not None else _make_run(connection, family, name, channel, hash_, files, now)
    return UUID(str(run.id))


def _files(connection: Connection, name: str, channel: str) -> dict[str, str]:
    """Return the workspace's own template if it has one, else ours."""
    own: dict[str, str] | None = connection.scalar(
        text("SELECT files FROM template WHERE current AND channel = :channel AND name = :name"),
        {"channel": channel, "name": name},
    )
    return own or read_template_folder(resource("templates", channel, name))


def _make_run(
    connection: Connection, family: Family, name: str, channel: str, hash_: str, files: dict[str, str], now: datetime
) -> Row[Any]:
    connection.execute(
        text("""INSERT INTO template (hash, channel, name, files, current)
                VALUES (:hash, :channel, :name, CAST(:files AS jsonb), false) ON CONFLICT (hash) DO NOTHING"""),
        {"hash": hash_, "channel": channel, "name": name, "files": orjson.dumps(files).decode()},
    )
    connection.execute(
        text("""
            INSERT INTO run (id, kind, name, occurrence_key, channel, class, lane, definition, template_hash, tzdata,
                             nominal_at, as_of, state, created_at, planned_at)
            VALUES (:id, 'standing', :name, :family, :channel, :class, :lane, '{}', :hash, :tzdata, :now, :now,
                    'running', :now, :now)
            ON CONFLICT (template_hash) WHERE kind = 'standing' AND trigger_id IS NULL DO NOTHING"""),
        {"id": uuid7(), "name": name, "family": family.name, "channel": channel, "class": family.class_,
         "lane": lane_of(channel, family.class_), "hash": hash_, "tzdata": TZDATA_VERSION, "now": now},
    )  # fmt: skip
    return connection.execute(_FIND_RUN, {"hash": hash_}).one()
