"""The inbox: what came in is stored, encrypted, before the sender is told so; sorting it comes after.

A row of the inbox has a key of its own.  Its events then stand in `feedback` under the keys of the people they are
about, and the row is gone: who is erased is erased there, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog
from sqlalchemy import Connection, Engine, Row, text

from dispatcher import clock, db
from dispatcher.feedback import sendgrid, twilio
from dispatcher.feedback.recording import Tally, record
from dispatcher.feedback.report import Report
from dispatcher.keys import KeyRing

log = structlog.get_logger()

Source = Literal["sendgrid", "twilio.status", "twilio.inbound"]

#: One round takes so many rows, as long as they are small.
_ROUND = 200
_ROUND_BYTES = 2_000_000
_LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Mail:
    """One request as it came in."""

    source: Source
    body: bytes
    query: str
    content_type: str
    received_at: datetime


def store(connection: Connection, key_ring: KeyRing, source: Source, body: bytes, *, query: str = "",
          content_type: str = "") -> int:  # fmt: skip
    """Keep a request whose signature was right; return its number.  Once this is committed, it may be answered."""
    data_key, wrapped = key_ring.new_data_key()
    sealed = data_key.seal({"body": body.decode("latin-1"), "query": query, "content_type": content_type})
    number: int = connection.execute(
        text("""INSERT INTO feedback_inbox (source, data_key, sealed, received_at)
                VALUES (:source, :data_key, :sealed, :now) RETURNING id"""),
        {"source": source, "data_key": wrapped, "sealed": sealed, "now": clock.read_now(connection)},
    ).scalar_one()
    db.notify(connection, "feedback")
    return number


#: What takes a text that somebody sent to us (`replies.take`): it is another business than feedback.
TakeReply = Callable[[Engine, KeyRing, Mail], object]


def sort_all(database: Engine, key_ring: KeyRing, take_reply: TakeReply, *, rounds: int = 1_000) -> Tally:
    """Sort what is in the inbox until it is empty, or for so many rounds; return what became of the events."""
    total = Tally()
    for _ in range(rounds):
        if not sort_some(database, key_ring, take_reply, total):
            break
    return total


def hear_now(database: Engine, key_ring: KeyRing, take_reply: TakeReply, number: int) -> None:
    """Take one text out of the inbox and do what it asks; whoever sorts it at the same time does no more than that."""
    with database.connect() as connection:
        row = connection.execute(
            text("SELECT * FROM feedback_inbox WHERE id = :number"), {"number": number}
        ).one_or_none()
    if row is not None:
        take_reply(database, key_ring, _open(key_ring, row))
        with database.begin() as connection:
            connection.execute(text("DELETE FROM feedback_inbox WHERE id = :number"), {"number": number})


_TAKE = text("""
WITH waiting AS MATERIALIZED (
    SELECT id, length(sealed) AS size FROM feedback_inbox
    WHERE retry_at IS NULL OR retry_at <= clock_timestamp() ORDER BY id LIMIT :round)
SELECT i.* FROM feedback_inbox i JOIN (
    SELECT id, sum(size) OVER (ORDER BY id) - size AS before FROM waiting) w USING (id)
WHERE w.before < :bytes ORDER BY i.id FOR UPDATE OF i SKIP LOCKED
""")


def sort_some(database: Engine, key_ring: KeyRing, take_reply: TakeReply, total: Tally) -> int:
    """Sort some rows of the inbox; return how many were taken.

    They stay locked, so that nobody else sorts them, and are gone with our commit; if we die, they are sorted again.
    """
    with database.begin() as connection:
        rows = connection.execute(_TAKE, {"round": _ROUND, "bytes": _ROUND_BYTES}).all()
        if not rows:
            return 0
        done = _sort(database, key_ring, rows, take_reply, total)
        connection.execute(text("DELETE FROM feedback_inbox WHERE id = ANY(:ids)"), {"ids": done})
        connection.execute(
            text("""
                UPDATE feedback_inbox SET failures = LEAST(failures + 1, 1000),
                    retry_at = clock_timestamp() + LEAST(interval '1 s' * power(2, LEAST(failures, 15)), :longest)
                WHERE id = ANY(:ids)"""),
            {"ids": [row.id for row in rows if row.id not in done], "longest": _LONGEST_WAIT},
        )
    return len(rows)


def _sort(
    database: Engine, key_ring: KeyRing, rows: list[Row[Any]] | Any, take_reply: TakeReply, total: Tally
) -> list[int]:
    """Sort the rows together, and one by one if that fails; return those that were."""
    try:
        _sort_together(database, key_ring, rows, take_reply, total)
        return [row.id for row in rows]
    except Exception as error:
        if len(rows) == 1:  # its neighbours go on; it is tried again, more and more rarely, and `doctor` names it
            log.error("feedback.not_sorted", number=rows[0].id, source=rows[0].source, error=type(error).__name__)
            return []
    return [number for row in rows for number in _sort(database, key_ring, [row], take_reply, total)]


def _sort_together(
    database: Engine, key_ring: KeyRing, rows: list[Row[Any]], take_reply: TakeReply, total: Tally
) -> None:
    reports: list[Report] = []
    for row in rows:
        mail = _open(key_ring, row)
        if mail.source == "twilio.inbound":
            take_reply(database, key_ring, mail)
        else:
            reports += read(mail)
    if reports:
        total.add(record(database, key_ring, reports, received_at=min(row.received_at for row in rows)))


def _open(key_ring: KeyRing, row: Row[Any]) -> Mail:
    opened = key_ring.open_data_key(bytes(row.data_key)).open(bytes(row.sealed))
    body = opened["body"].encode("latin-1")
    return Mail(row.source, body, opened["query"], opened["content_type"], row.received_at)


def read(mail: Mail) -> list[Report]:
    """Return the events of a request."""
    if mail.source == "sendgrid":
        return sendgrid.read_events(mail.body)
    return [twilio.read_status(twilio.read_fields(mail.content_type, mail.body), mail.query)]


def waiting(connection: Connection) -> tuple[int, int]:
    """Return how many requests wait to be sorted, and how many of those have failed already."""
    row = connection.execute(
        text("SELECT count(*) AS every, count(*) FILTER (WHERE failures > 0) AS failed FROM feedback_inbox")
    ).one()
    return row.every, row.failed
