"""The rows behind the links of messages: written before a message leaves, read when somebody clicks.

What all messages of a run share is written down once, in clear.  What is one message's own may say something about its
reader, so it is sealed under that person's data key, and goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from dispatcher import db
from dispatcher.clicks.writing import LinkWriter
from dispatcher.keys import DataKey

_READ = text("SELECT number, destination FROM run_link WHERE run_id = :run")
_FREEZE = text("""
INSERT INTO run_link (run_id, number, destination)
SELECT :run, x.number - 1, x.destination
FROM unnest(CAST(:destinations AS text[])) WITH ORDINALITY AS x(destination, number)
ON CONFLICT (run_id, number) DO NOTHING
""")
# The second half sees the table as it was before the first, so each message is there once.
_NUMBER = text("""
WITH fresh AS (
    INSERT INTO tracked_message (message_id, contact_id)
    SELECT * FROM unnest(CAST(:messages AS uuid[]), CAST(:contacts AS bigint[]))
    ON CONFLICT (message_id) DO NOTHING RETURNING message_id, id)
SELECT message_id, id FROM fresh
UNION ALL SELECT message_id, id FROM tracked_message WHERE message_id = ANY(:messages)
""")
_KEEP = text("""
UPDATE tracked_message t SET sealed = x.sealed, contact_id = m.contact_id
FROM unnest(CAST(:messages AS uuid[]), CAST(:sealed AS bytea[])) AS x(message_id, sealed)
JOIN message m ON m.id = x.message_id WHERE t.message_id = x.message_id
""")


def prepare(connection: Connection, run_id: UUID, writer: LinkWriter, rows: Sequence[Row[Any]]) -> dict[UUID, int]:
    """Return the number of each message (rows with `id`, `contact_id`), and tell `writer` what the run's links are.

    The first batch of a run freezes them; whatever a later one finds beside them is a message's own.
    """
    stored = connection.execute(_READ, {"run": run_id}).all()
    if not stored and writer.shared:
        connection.execute(_FREEZE, {"run": run_id, "destinations": list(writer.shared)})
        stored = connection.execute(_READ, {"run": run_id}).all()
    writer.constant = {row.destination: row.number for row in stored}
    if not rows:
        return {}
    values = {"messages": [row.id for row in rows], "contacts": [row.contact_id for row in rows]}
    return {row.message_id: row.id for row in connection.execute(_NUMBER, values)}


def seal(data_key: DataKey, personal: Mapping[int, str]) -> bytes:
    """Return a message's own links, sealed under its reader's key."""
    return data_key.seal({str(number): url for number, url in personal.items()})


def keep(database: Engine, sealed: Mapping[UUID, bytes]) -> None:
    """Write the sealed links of messages that may leave after this."""
    if not sealed:
        return

    def write() -> None:
        with database.begin() as connection:
            connection.execute(_KEEP, {"messages": list(sealed), "sealed": list(sealed.values())})

    db.insist(write, links=len(sealed))
