"""The one text that may go back: a transactional SMS of the ledger, in the run of answers.

That run is of its own, with a content hash of its own, so that no API request can ever reach it: only what is in it may
go to a number that has said STOP.  The texts are `templates/sms/answer-...`; a workspace may have its own.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import Connection, Row, text
from uuid_utils.compat import uuid7

from dispatcher import db
from dispatcher.content import read_template_folder, template_hash
from dispatcher.places import TZDATA_VERSION
from dispatcher.resources import resource
from dispatcher.runs import ANSWERS

Subject = Literal["stop", "start", "help"]

#: Who asks for these messages, in `message.client`; no API key can have this name.  The key is what they answer.
CLIENT = "dispatcher:reply"
#: A confirmation that comes later than this is no longer covered by the consent it ends (47 CFR 64.1200(a)(12)).
IN_TIME = timedelta(minutes=5)

_LANE = "sms.transactional"


def answer(
    connection: Connection, subject: Subject, contact_id: int, address_id: int, *, key: str, now: datetime
) -> UUID | None:
    """Write the answer to what `key` names, due now, and return its id; None if it was answered before.

    The caller holds the contact and the address.
    """
    run_id = _run_of(connection, subject, now)
    batch_id = connection.scalar(text("SELECT nextval(pg_get_serial_sequence('batch', 'id'))"))
    message_id = connection.scalar(
        text("""
            INSERT INTO message (id, run_id, contact_id, channel, class, address_id, status, due_at, first_due_at,
                                 expires_at, batch_id, client, idempotency_key)
            VALUES (:id, :run, :contact, 'sms', 'transactional', :address, 'pending', :now, :now, :expires_at, :batch,
                    :client, :key)
            ON CONFLICT (client, idempotency_key) DO NOTHING RETURNING id"""),
        {"id": uuid7(), "run": run_id, "contact": contact_id, "address": address_id, "now": now,
         "expires_at": now + IN_TIME, "batch": batch_id, "client": CLIENT, "key": key},
    )  # fmt: skip
    if message_id is None:
        return None
    connection.execute(
        text("INSERT INTO batch (id, run_id, lane) VALUES (:id, :run, :lane)"),
        {"id": batch_id, "run": run_id, "lane": _LANE},
    )
    db.notify(connection, "due")
    return UUID(str(message_id))


def _run_of(connection: Connection, subject: Subject, now: datetime) -> UUID:
    """Return the run that carries all answers of this content; the first answer makes it."""
    name = f"answer-{subject}"
    files = _files(connection, name)
    hash_ = hashlib.sha256(f"answers/{name}/{template_hash(files)}".encode()).hexdigest()
    find = text("SELECT id FROM run WHERE kind = 'standing' AND trigger_id IS NULL AND template_hash = :hash")
    found = connection.execute(find, {"hash": hash_}).one_or_none()
    run = found if found is not None else _make_run(connection, name, hash_, files, now)
    return UUID(str(run.id))


def _files(connection: Connection, name: str) -> dict[str, str]:
    """Return the workspace's own template if it has one, else ours."""
    own: dict[str, str] | None = connection.scalar(
        text("SELECT files FROM template WHERE current AND channel = 'sms' AND name = :name"), {"name": name}
    )
    return own or read_template_folder(resource("templates", "sms", name))


def _make_run(connection: Connection, name: str, hash_: str, files: dict[str, str], now: datetime) -> Row[Any]:
    connection.execute(
        text("""INSERT INTO template (hash, channel, name, files, current)
                VALUES (:hash, 'sms', :name, CAST(:files AS jsonb), false) ON CONFLICT (hash) DO NOTHING"""),
        {"hash": hash_, "name": name, "files": orjson.dumps(files).decode()},
    )
    connection.execute(
        text("""
            INSERT INTO run (id, kind, name, occurrence_key, channel, class, lane, definition, template_hash, tzdata,
                             nominal_at, as_of, state, created_at, planned_at)
            VALUES (:id, 'standing', :name, :answers, 'sms', 'transactional', :lane, '{}', :hash, :tzdata, :now, :now,
                    'running', :now, :now)
            ON CONFLICT (template_hash) WHERE kind = 'standing' AND trigger_id IS NULL DO NOTHING"""),
        {"id": uuid7(), "name": name, "answers": ANSWERS, "lane": _LANE, "hash": hash_, "tzdata": TZDATA_VERSION,
         "now": now},
    )  # fmt: skip
    return connection.execute(
        text("SELECT id FROM run WHERE kind = 'standing' AND trigger_id IS NULL AND template_hash = :hash"),
        {"hash": hash_},
    ).one()
