"""The inbox: what came in is stored, encrypted, before the sender is told so; sorting it comes after.

A row of the inbox has a key of its own.  Its events then stand in `feedback`, or wherever what it tells of belongs,
under the keys of the people they are about, and the row is gone: who is erased is erased there, too.  What nobody can
make sense of is kept for the operator, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog
from sqlalchemy import Connection, Engine, Row, text

from dispatcher import clock, db
from dispatcher.errors import DispatcherError, NotFound
from dispatcher.feedback import sendgrid, twilio
from dispatcher.feedback.recording import Tally, record
from dispatcher.feedback.report import Report
from dispatcher.keys import KeyRing

log = structlog.get_logger()

Source = Literal["sendgrid", "twilio.status", "twilio.inbound", "shopify", "woocommerce"]
#: What tells of messages of ours; every other source is somebody else's business, see `Take`.
FEEDBACK = ("sendgrid", "twilio.status")

STOREFRONTS = ("shopify", "woocommerce")
#: One round takes so many rows, as long as they are small.  What storefronts tell may come by the ten thousand; what
#: providers tell does not wait behind it.
_ROUND = 200
_ROUND_BYTES = 2_000_000
_LONGEST_WAIT = timedelta(hours=1)
#: Whoever it is about cannot be found in it, so it cannot stay.
KEPT_FOR = timedelta(days=30)


class NotUnderstood(DispatcherError):  # noqa: N818 - named for what it says
    """No sense can be made of a request, today or tomorrow; the text says why, and names nobody."""


@dataclass(frozen=True, slots=True)
class Mail:
    """One request as it came in."""

    source: Source
    body: bytes
    query: str
    content_type: str
    received_at: datetime
    headers: Mapping[str, str] = field(default_factory=dict)  #: those the sender means something by, lower case


def store(connection: Connection, key_ring: KeyRing, source: Source, body: bytes, *, query: str = "",
          content_type: str = "", headers: Mapping[str, str] | None = None,
          later: bool = False) -> int:  # fmt: skip
    """Keep a request whose signature was right; return its number.  Once this is committed, it may be answered.

    `later`: it is sorted when nothing else of its kind waits.
    """
    data_key, wrapped = key_ring.new_data_key()
    said = {"body": body.decode("latin-1"), "query": query, "content_type": content_type}
    sealed = data_key.seal(said | {"headers": dict(headers)} if headers else said)
    number: int = connection.execute(
        text("""INSERT INTO feedback_inbox (source, data_key, sealed, received_at, later)
                VALUES (:source, :data_key, :sealed, :now, :later) RETURNING id"""),
        {"source": source, "data_key": wrapped, "sealed": sealed, "now": clock.read_now(connection), "later": later},
    ).scalar_one()
    db.notify(connection, "feedback")
    return number


#: What takes requests that are no feedback: texts somebody sent to us, news of the shop (`mailroom.take`).  Returns for
#: each its flaw, why nobody can make sense of it, or None.  If it raises, it is given fewer, down to each by itself.
Take = Callable[[Engine, KeyRing, Sequence[Mail]], Sequence[str | None]]


def sort_all(database: Engine, key_ring: KeyRing, take: Take, *, rounds: int = 1_000) -> Tally:
    """Sort what is in the inbox until it is empty, or for so many rounds; return what became of the events."""
    total = Tally()
    for _ in range(rounds):
        taken = _sort_some(database, key_ring, take, total, storefronts=False)
        taken += _sort_some(database, key_ring, take, total, storefronts=True)
        if not taken:
            break
    return total


def hear_now(database: Engine, key_ring: KeyRing, hear: Callable[[Engine, KeyRing, Mail], object], number: int) -> None:
    """Take one text out of the inbox and do what it asks; whoever sorts it at the same time does no more than that."""
    with database.connect() as connection:
        row = connection.execute(
            text("SELECT * FROM feedback_inbox WHERE id = :number"), {"number": number}
        ).one_or_none()
    if row is not None:
        hear(database, key_ring, _open(key_ring, row))
        with database.begin() as connection:
            connection.execute(text("DELETE FROM feedback_inbox WHERE id = :number"), {"number": number})


_TAKE = text("""
WITH waiting AS MATERIALIZED (
    SELECT id, later, length(sealed) AS size FROM feedback_inbox
    WHERE source = ANY(:storefronts) = :wanted AND flaw IS NULL
        AND (retry_at IS NULL OR retry_at <= clock_timestamp()) ORDER BY later, id LIMIT :round)
SELECT i.* FROM feedback_inbox i JOIN (
    SELECT id, sum(size) OVER (ORDER BY later, id) - size AS before FROM waiting) w USING (id)
WHERE w.before < :bytes ORDER BY i.later, i.id FOR UPDATE OF i SKIP LOCKED
""")
_KEEP = text("""
UPDATE feedback_inbox i SET flaw = x.flaw
FROM unnest(CAST(:ids AS bigint[]), CAST(:flaws AS text[])) AS x(id, flaw) WHERE i.id = x.id
""")
_LATER = text("""
UPDATE feedback_inbox SET failures = LEAST(failures + 1, 1000),
    retry_at = clock_timestamp() + LEAST(interval '1 s' * power(2, LEAST(failures, 15)), :longest)
WHERE id = ANY(:ids)
""")


def _sort_some(database: Engine, key_ring: KeyRing, take: Take, total: Tally, *, storefronts: bool) -> int:
    """Sort some rows of the inbox, of storefronts or of providers; return how many were taken.

    They stay locked, so that nobody else sorts them, and are gone with our commit; if we die, they are sorted again.
    """
    with database.begin() as connection:
        wanted = {"storefronts": list(STOREFRONTS), "wanted": storefronts, "round": _ROUND, "bytes": _ROUND_BYTES}
        rows = connection.execute(_TAKE, wanted).all()
        if not rows:
            return 0
        flaws: dict[int, str] = {}
        done = _hand_on(database, key_ring, [row for row in rows if row.source not in FEEDBACK], take, flaws)
        done += _sort(database, key_ring, [row for row in rows if row.source in FEEDBACK], total)
        connection.execute(text("DELETE FROM feedback_inbox WHERE id = ANY(:ids)"), {"ids": done})
        if flaws:
            connection.execute(_KEEP, {"ids": list(flaws), "flaws": list(flaws.values())})
        later = {row.id for row in rows} - {*done, *flaws}
        connection.execute(_LATER, {"ids": list(later), "longest": _LONGEST_WAIT})
    return len(rows)


def _hand_on(
    database: Engine, key_ring: KeyRing, rows: Sequence[Row[Any]], take: Take, flaws: dict[int, str]
) -> list[int]:
    """Give each to whose business it is; return those that were taken; `flaws`: why others never will be."""

    def hand_on(some: Sequence[Row[Any]]) -> None:
        for row, flaw in zip(some, take(database, key_ring, [_open(key_ring, row) for row in some]), strict=True):
            if flaw is not None:
                flaws[row.id] = flaw
                log.warning("inbox.not_understood", number=row.id, source=row.source, reason=flaw)

    return [number for number in _together(rows, hand_on) if number not in flaws]


def _sort(database: Engine, key_ring: KeyRing, rows: Sequence[Row[Any]], total: Tally) -> list[int]:
    """Sort the rows; return those that were."""
    return _together(rows, lambda some: _sort_together(database, key_ring, some, total))


def _together(rows: Sequence[Row[Any]], work: Callable[[Sequence[Row[Any]]], None]) -> list[int]:
    """Do the work on the rows together, in halves if that fails, and so on; return those on which it was done."""
    if not rows:
        return []
    try:
        work(rows)
        return [row.id for row in rows]
    except Exception as error:
        if len(rows) == 1:
            _log_failure(rows[0], error)
            return []
    half = len(rows) // 2
    return _together(rows[:half], work) + _together(rows[half:], work)


def _log_failure(row: Row[Any], error: Exception) -> None:
    """Its neighbours go on; it is tried again, more and more rarely, and `doctor` names it."""
    log.error("feedback.not_sorted", number=row.id, source=row.source, error=type(error).__name__)


def _sort_together(database: Engine, key_ring: KeyRing, rows: Sequence[Row[Any]], total: Tally) -> None:
    reports: list[Report] = []
    for row in rows:
        reports += read(_open(key_ring, row))
    if reports:
        total.add(record(database, key_ring, reports, received_at=min(row.received_at for row in rows)))


def _open(key_ring: KeyRing, row: Row[Any]) -> Mail:
    opened = key_ring.open_data_key(bytes(row.data_key)).open(bytes(row.sealed))
    body = opened["body"].encode("latin-1")
    return Mail(
        row.source, body, opened["query"], opened["content_type"], row.received_at, opened.get("headers", {})
    )  # fmt: skip


def read(mail: Mail) -> list[Report]:
    """Return the events of a request."""
    if mail.source == "sendgrid":
        return sendgrid.read_events(mail.body)
    return [twilio.read_status(twilio.read_fields(mail.content_type, mail.body), mail.query)]


def waiting(connection: Connection) -> tuple[int, int]:
    """Return how many requests wait to be sorted, and how many of those have failed already."""
    row = connection.execute(
        text("""SELECT count(*) AS every, count(*) FILTER (WHERE failures > 0) AS failed
                FROM feedback_inbox WHERE flaw IS NULL""")
    ).one()
    return row.every, row.failed


@dataclass(frozen=True, slots=True)
class Kept:
    """A request that nobody could make sense of."""

    id: int
    source: str
    topic: str  #: as the sender called it; empty if it did not
    received_at: datetime
    reason: str


def list_kept(connection: Connection, key_ring: KeyRing) -> list[Kept]:
    """Return what is kept because it was not understood, oldest first."""
    rows = connection.execute(text("SELECT * FROM feedback_inbox WHERE flaw IS NOT NULL ORDER BY id LIMIT 1000"))
    return [Kept(row.id, row.source, topic_of(_open(key_ring, row)), row.received_at, row.flaw) for row in rows]


def count_kept(connection: Connection) -> int:
    return int(connection.scalar(text("SELECT count(*) FROM feedback_inbox WHERE flaw IS NOT NULL")) or 0)


def open_kept(connection: Connection, key_ring: KeyRing, number: int) -> Mail:
    """Return one that is kept, as it came; NotFound if there is none of this number."""
    row = connection.execute(
        text("SELECT * FROM feedback_inbox WHERE id = :number AND flaw IS NOT NULL"), {"number": number}
    ).one_or_none()
    if row is None:
        raise _none_kept(number)
    return _open(key_ring, row)


def try_again(connection: Connection, number: int) -> None:
    """Let it be sorted once more; NotFound if none of this number is kept."""
    changed = connection.execute(
        text("UPDATE feedback_inbox SET flaw = NULL, retry_at = NULL WHERE id = :number AND flaw IS NOT NULL"),
        {"number": number},
    )
    if not changed.rowcount:
        raise _none_kept(number)
    db.notify(connection, "feedback")


def drop(connection: Connection, number: int) -> None:
    """Throw one away that is kept; NotFound if there is none of this number."""
    gone = connection.execute(
        text("DELETE FROM feedback_inbox WHERE id = :number AND flaw IS NOT NULL"), {"number": number}
    )
    if not gone.rowcount:
        raise _none_kept(number)


def forget_old(database: Engine) -> int:
    """Throw away what has been kept for `KEPT_FOR`; return how many."""
    with database.begin() as connection:
        return connection.execute(
            text("DELETE FROM feedback_inbox WHERE flaw IS NOT NULL AND received_at < :before"),
            {"before": clock.read_now(connection) - KEPT_FOR},
        ).rowcount


def _none_kept(number: int) -> NotFound:
    return NotFound(f"no request {number} is kept in the inbox; dispatcher inbox list shows which are")


def topic_of(mail: Mail) -> str:
    """Return what the sender says a request is about."""
    return topic_in(mail.headers)


def topic_in(headers: Mapping[str, str]) -> str:
    return headers.get("x-shopify-topic") or headers.get("x-wc-webhook-topic") or ""
