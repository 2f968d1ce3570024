"""Reports into the ledger: one row an event, legal moves only, and what follows from it in the same transaction.

Most events only say how far a message has come: a page of those is one transaction.  What concerns the address (a
bounce, a complaint, an opt-out), or a message that we had given up, is a transaction of its own, since it takes the
locks of the address and of everybody who has it.  Either way nothing that is wrong with one event reaches another.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import DataError, IntegrityError

from dispatcher import clock, db, suppression
from dispatcher.addresses import ensure_addresses
from dispatcher.doubt import FOR_GOOD_AFTER
from dispatcher.errors import Refused
from dispatcher.feedback.matching import Match, match
from dispatcher.feedback.report import STATUS, Kind, Report, Standing, standing_by, standing_of
from dispatcher.keys import DataKey, KeyRing
from dispatcher.locks import lock_addresses, lock_contacts

log = structlog.get_logger()

#: So many soft bounces of different messages in a row, over so long, end an address; a delivery starts a new row.
SOFT_BOUNCES = 5
SOFT_BOUNCES_OVER = timedelta(days=7)
PAGE = 500
_ATTEMPTS = 5

NO_MESSAGE, NEVER_LEFT, PLACE_TAKEN = "no message of ours", "it had not left", "another message took its place"
TOO_LATE = "too late: unknown for good"


@dataclass(slots=True)
class Tally:
    """What became of a number of reports."""

    recorded: int = 0
    known: int = 0  #: told before
    moved: int = 0  #: messages whose status changed
    suppressed: int = 0  #: addresses
    flawed: int = 0  #: kept, and nothing else could be made of it
    unmatched: int = 0  #: of these, about no message of ours

    def add(self, other: Tally) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class _Event:
    """A report with its key, and what it was found to be about."""

    report: Report
    key: bytes
    match: Match

    @property
    def concerns_the_address(self) -> bool:
        if self.report.suppress is not None and self.report.address is not None and self.match.message_id is None:
            return True
        return self.match.message_id is not None and (
            self.report.suppress is not None
            or self.report.kind is Kind.BOUNCED
            or self.match.status not in _ON_THEIR_WAY
        )


_ON_THEIR_WAY = ("sending", "unknown", "sent", "delivered", "bounced")


@dataclass(slots=True)
class _Sealer:
    """Seals events, each under the key of the person it is about, else under one of its own."""

    key_ring: KeyRing
    opened: dict[bytes, DataKey] = field(default_factory=dict)

    def seal(self, event: _Event) -> tuple[bytes | None, bytes | None]:
        """Return (wrapped key, sealed event); neither for a person who was erased."""
        if event.match.contact_id is None:
            data_key, wrapped = self.key_ring.new_data_key()
            return wrapped, _seal(data_key, event.report.raw)
        if event.match.data_key is None:
            return None, None
        theirs = self.opened.get(event.match.data_key)
        if theirs is None:
            theirs = self.opened[event.match.data_key] = self.key_ring.open_data_key(event.match.data_key)
        return None, _seal(theirs, event.report.raw)


def _seal(data_key: DataKey, raw: Any) -> bytes:
    try:
        return data_key.seal({"event": raw})
    except TypeError:  # a lone surrogate, a key that is no string: kept as text
        return data_key.seal({"event": json.dumps(raw, default=repr)})


def record(
    database: Engine, key_ring: KeyRing, reports: Sequence[Report], *, received_at: datetime | None = None
) -> Tally:
    """Write the reports, in as many transactions as it takes; return what became of them.  Again: nothing changes."""
    tally = Tally()
    for start in range(0, len(reports), PAGE):
        _record_page(database, key_ring, reports[start : start + PAGE], received_at, tally)
    return tally


def _record_page(
    database: Engine, key_ring: KeyRing, reports: Sequence[Report], received_at: datetime | None, tally: Tally
) -> None:
    with database.connect() as connection:
        matches = match(connection, key_ring, reports)
    told: dict[tuple[str, bytes], _Event] = {}
    for report, found in zip(reports, matches, strict=True):
        event = _Event(report, _key(key_ring, report), found)
        told.setdefault((report.source, event.key), event)
    tally.known += len(reports) - len(told)
    events = list(told.values())
    singly = [event for event in events if event.concerns_the_address]
    together = [event for event in events if not event.concerns_the_address]
    if together:

        def write() -> tuple[list[_Event], Tally]:
            counted = Tally()
            with database.begin() as connection:
                return _record_together(connection, key_ring, together, received_at, counted), counted

        try:
            strays, counted = db.insist(write, feedback=len(together))
            singly += strays
            tally.add(counted)
        except (DataError, IntegrityError):  # one of them cannot be stored: find out which
            singly += together
    for event in singly:
        _record_singly(database, key_ring, event, received_at, tally)


def _key(key_ring: KeyRing, report: Report) -> bytes:
    identity = report.identity.encode("utf-8", "replace").decode()
    return key_ring.address_hash("feedback", f"{report.source}\0{identity}")


def _record_together(
    connection: Connection, key_ring: KeyRing, events: list[_Event], received_at: datetime | None, tally: Tally
) -> list[_Event]:
    """Record what only moves messages on their way; return those whose message is not any more."""
    rows = _hold_messages(connection, {e.match.message_id for e in events if e.match.message_id is not None})
    now = clock.read_now(connection)
    strays: list[_Event] = []
    going: list[tuple[_Event, str | None]] = []
    for event in events:
        row = rows.get(event.match.message_id)
        if row is not None and row.status not in _ON_THEIR_WAY:
            strays.append(event)
        else:
            going.append((event, _flaw(event, row, now)))
    fresh = _insert(connection, _Sealer(key_ring), going, received_at or now, now)
    _count(tally, [(e, flaw) for e, flaw in going if e.key in fresh], len(going) - len(fresh))
    told: defaultdict[UUID, list[_Event]] = defaultdict(list)
    for event, flaw in going:
        if event.key in fresh and flaw is None and event.match.message_id is not None and event.report.kind:
            told[event.match.message_id].append(event)
    tally.moved += _move_together(connection, rows, told, now)
    return strays


_HOLD = text("""
SELECT id, contact_id, address_id, status, reason, authorised_at, settled_at, attempts FROM message
WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE
""")


def _hold_messages(connection: Connection, ids: Iterable[UUID | None]) -> dict[UUID | None, Row[Any]]:
    return {row.id: row for row in connection.execute(_HOLD, {"ids": [i for i in ids if i is not None]})}


def _flaw(event: _Event, row: Row[Any] | None, now: datetime) -> str | None:
    if event.report.flaw or row is None:
        return event.report.flaw or event.match.flaw or (NO_MESSAGE if event.report.kind else None)
    return TOO_LATE if _is_unknown_for_good(row, now) else None


def _is_unknown_for_good(row: Row[Any], now: datetime) -> bool:
    return row.status == "unknown" and row.settled_at is not None and row.settled_at <= now - FOR_GOOD_AFTER


_INSERT = text("""
INSERT INTO feedback (source, event_key, provider_event_id, kind, hard, code, message_id, contact_id, address_id,
                      occurred_at, received_at, flaw, data_key, sealed)
SELECT * FROM unnest(
    CAST(:source AS text[]), CAST(:event_key AS bytea[]), CAST(:provider_event_id AS text[]), CAST(:kind AS text[]),
    CAST(:hard AS boolean[]), CAST(:code AS text[]), CAST(:message_id AS uuid[]), CAST(:contact_id AS bigint[]),
    CAST(:address_id AS bigint[]), CAST(:occurred_at AS timestamptz[]), CAST(:received_at AS timestamptz[]),
    CAST(:flaw AS text[]), CAST(:data_key AS bytea[]), CAST(:sealed AS bytea[]))
ON CONFLICT DO NOTHING RETURNING event_key
""")
_COLUMNS = (
    "source", "event_key", "provider_event_id", "kind", "hard", "code", "message_id", "contact_id", "address_id",
    "occurred_at", "received_at", "flaw", "data_key", "sealed",
)  # fmt: skip


def _insert(
    connection: Connection,
    sealer: _Sealer,
    events: Sequence[tuple[_Event, str | None]],
    received_at: datetime,
    now: datetime,
) -> set[bytes]:
    """Write the events that were not told before; return their keys."""
    if not events:
        return set()
    rows = []
    for event, flaw in events:
        report, found = event.report, event.match
        occurred_at = min(report.occurred_at or received_at, now)
        rows.append(
            (report.source, event.key, _plain(report.event_id), report.kind, report.hard, _plain(report.code),
             found.message_id, found.contact_id, found.address_id, occurred_at, received_at, flaw, *sealer.seal(event))
        )  # fmt: skip
    columns = dict(zip(_COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    return {bytes(key) for key in connection.scalars(_INSERT, columns)}


def _plain(value: str | None) -> str | None:
    """Return the text as PostgreSQL takes it."""
    if value is None:
        return None
    return value.replace("\0", "").encode("utf-8", "replace").decode()[:200] or None


def _count(tally: Tally, fresh: Sequence[tuple[_Event, str | None]], known: int) -> None:
    tally.recorded += len(fresh)
    tally.known += known
    tally.flawed += sum(flaw is not None for _, flaw in fresh)
    tally.unmatched += sum(flaw == NO_MESSAGE for _, flaw in fresh)


_MOVE = text("""
UPDATE message m SET status = x.status, reason = x.reason, settled_at = COALESCE(m.settled_at, :now),
       provider_ref = COALESCE(m.provider_ref, x.ref)
FROM unnest(CAST(:ids AS uuid[]), CAST(:statuses AS text[]), CAST(:reasons AS text[]), CAST(:refs AS text[]))
    AS x(id, status, reason, ref)
WHERE m.id = x.id
""")


def _move_together(
    connection: Connection, rows: dict[UUID | None, Row[Any]], told: dict[UUID, list[_Event]], now: datetime
) -> int:
    moves = []
    for message_id, events in told.items():
        standing = standing_by(e.report.kind for e in events if e.report.kind)
        if standing > standing_of(rows[message_id].status, rows[message_id].reason):
            ref = next((e.report.provider_ref for e in events if e.report.provider_ref), None)
            moves.append((message_id, *STATUS[standing], _plain(ref)))
    if moves:
        ids, statuses, reasons, refs = (list(column) for column in zip(*moves, strict=True))
        connection.execute(_MOVE, {"ids": ids, "statuses": statuses, "reasons": reasons, "refs": refs, "now": now})
    return len(moves)


def _record_singly(
    database: Engine, key_ring: KeyRing, event: _Event, received_at: datetime | None, tally: Tally
) -> None:
    try:
        tally.add(db.insist(lambda: _in_its_own_transaction(database, key_ring, event, received_at), feedback=1))
    except (DataError, IntegrityError) as error:
        log.error("feedback.cannot_be_stored", source=event.report.source, error=type(error).__name__)
        tally.flawed += 1


def _in_its_own_transaction(database: Engine, key_ring: KeyRing, event: _Event, received_at: datetime | None) -> Tally:
    for _ in range(_ATTEMPTS):
        with database.begin() as connection:
            placed = _with_address(connection, key_ring, event)
            if _hold_everybody(connection, placed.match):
                return _record_one(connection, key_ring, placed, received_at)
    raise Refused("this address is being moved from contact to contact; it is tried again")


def _with_address(connection: Connection, key_ring: KeyRing, event: _Event) -> _Event:
    """Return the event with the row of its address, made if it is to be suppressed: it may be imported later."""
    report = event.report
    if event.match.address_id is not None or report.suppress is None or report.address is None:
        return event
    wanted = (report.channel, report.address)
    return replace(
        event, match=replace(event.match, address_id=ensure_addresses(connection, key_ring, [wanted])[wanted])
    )


_HOLDERS = text("""
SELECT id FROM contact WHERE :address_id IN (email_address_id, sms_address_id)
UNION SELECT COALESCE(merged_into, id) FROM contact WHERE id = :contact_id ORDER BY 1
""")


def _hold_everybody(connection: Connection, found: Match) -> bool:
    """Lock the contacts of the address, then the address; False if others have it by then."""
    who = {"address_id": found.address_id, "contact_id": found.contact_id}
    holders = list(connection.scalars(_HOLDERS, who))
    lock_contacts(connection, holders)
    if found.address_id is not None:
        lock_addresses(connection, [found.address_id])
    return list(connection.scalars(_HOLDERS, who)) == holders


def _record_one(connection: Connection, key_ring: KeyRing, event: _Event, received_at: datetime | None) -> Tally:
    tally = Tally()
    row = _hold_messages(connection, [event.match.message_id]).get(event.match.message_id)
    now = clock.read_now(connection)
    flaw = _flaw(event, row, now)
    if not _insert(connection, _Sealer(key_ring), [(event, flaw)], received_at or now, now):
        tally.known += 1
        return tally
    if row is not None and flaw is None and event.report.kind is not None:
        flaw = _move_one(connection, row, event.report, now, tally)
        if flaw is not None:
            connection.execute(
                text("UPDATE feedback SET flaw = :flaw WHERE source = :source AND event_key = :key"),
                {"flaw": flaw, "source": event.report.source, "key": event.key},
            )
    _count(tally, [(event, flaw)], 0)
    _suppress(connection, event, now, tally)
    return tally


def _move_one(connection: Connection, row: Row[Any], report: Report, now: datetime, tally: Tally) -> str | None:
    """Move one message as far as the report proves; return why not, if that would be no legal move."""
    assert report.kind is not None
    standing = standing_by([report.kind])
    try:
        with connection.begin_nested():  # the place of a message that we had given up may be taken
            if row.status == "pending" and not _recall(connection, row.id):
                return NEVER_LEFT
            if row.status in ("skipped", "cancelled") or (row.status == "failed" and row.authorised_at is None):
                return NEVER_LEFT
            if standing > standing_of(row.status, row.reason):
                _write_move(connection, row.id, standing, report, now)
                tally.moved += 1
    except IntegrityError:
        return PLACE_TAKEN
    return None


def _write_move(connection: Connection, message_id: UUID, standing: Standing, report: Report, now: datetime) -> None:
    status, reason = STATUS[standing]
    connection.execute(
        _MOVE,
        {"ids": [message_id], "statuses": [status], "reasons": [reason], "refs": [_plain(report.provider_ref)],
         "now": now},
    )  # fmt: skip


# An earlier try was accepted after all, and the next one has not begun: that try is the message's last again.
_RECALL = text("""
WITH tried AS (
    DELETE FROM attempt a USING message m
    WHERE m.id = :id AND a.message_id = m.id AND a.number = m.attempts AND a.authorise_seq IS NOT NULL RETURNING a.*)
UPDATE message m SET status = 'sending', authorised_at = t.authorised_at, authorise_seq = t.authorise_seq,
       send_deadline = t.send_deadline, handed_over_at = t.handed_over_at, worker_id = t.worker_id,
       provider = t.provider, provider_ref = t.provider_ref, deferred_reason = NULL, facts = NULL
FROM tried t WHERE m.id = :id AND m.status = 'pending'
""")


def _recall(connection: Connection, message_id: UUID) -> bool:
    """Put a pending message back to where its last try was; False if there was none."""
    return bool(connection.execute(_RECALL, {"id": message_id}).rowcount)


def _suppress(connection: Connection, event: _Event, now: datetime, tally: Tally) -> None:
    report, address_id = event.report, event.match.address_id
    if address_id is None or report.flaw is not None:
        return
    if report.suppress is not None:
        source = f"feedback: {report.source} {report.kind}{f' {report.code}' if report.code else ''}"
        tally.suppressed += suppression.add(
            connection, address_id, report.suppress, source=_plain(source) or "", now=now
        )
    elif report.kind is Kind.BOUNCED and _bounces_softly_for_ever(connection, address_id):
        source = f"feedback: {SOFT_BOUNCES} soft bounces in a row"
        tally.suppressed += suppression.add(connection, address_id, "hard_bounce", source=source, now=now)


_SOFT_ROW = text("""
SELECT count(DISTINCT message_id) >= :most AND max(occurred_at) - min(occurred_at) >= :over FROM feedback
WHERE address_id = :address_id AND kind = 'bounced' AND hard IS NOT TRUE AND message_id IS NOT NULL
  AND occurred_at > COALESCE((SELECT max(occurred_at) FROM feedback
                              WHERE address_id = :address_id AND kind IN ('delivered', 'opened', 'clicked')),
                             '-infinity')
""")


def _bounces_softly_for_ever(connection: Connection, address_id: int) -> bool:
    return bool(
        connection.scalar(_SOFT_ROW, {"address_id": address_id, "most": SOFT_BOUNCES, "over": SOFT_BOUNCES_OVER})
    )
