"""Messages that the house itself sends, of templates that travel with the program: answers to texts, links to data.

Each family has runs of its own, with content hashes of its own, so that no API request can ever reach them: only what
is in such a run may go where the family's rules let it go.  A workspace may have its own template of the same name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from dispatcher.content import read_template_folder, template_hash
from dispatcher.resources import resource
from dispatcher.standing import standing_run, write_message


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
    run = standing_run(
        connection, _keep_template(connection, family, template, channel), name=template, channel=channel,
        class_=family.class_, occurrence_key=family.name, now=now,
    )  # fmt: skip
    return write_message(
        connection, run, contact_id=contact_id, address_id=address_id, client=family.client, key=key, sealed=sealed,
        now=now, expires_at=expires_at,
    )  # fmt: skip


def _keep_template(connection: Connection, family: Family, name: str, channel: str) -> str:
    """Return the hash under which the family's copy of this template is kept: the workspace's own, else ours."""
    own: dict[str, str] | None = connection.scalar(
        text("SELECT files FROM template WHERE current AND channel = :channel AND name = :name"),
        {"channel": channel, "name": name},
    )
    files = own or read_template_folder(resource("templates", channel, name))
    hash_ = hashlib.sha256(f"{family.name}/{name}/{channel}/{template_hash(files)}".encode()).hexdigest()
    connection.execute(
        text("""INSERT INTO template (hash, channel, name, files, current)
                VALUES (:hash, :channel, :name, CAST(:files AS jsonb), false) ON CONFLICT (hash) DO NOTHING"""),
        {"hash": hash_, "channel": channel, "name": name, "files": orjson.dumps(files).decode()},
    )
    return hash_
