"""Reports into the ledger: one row an event, legal moves only, and what follows from it in the same transaction.

Most events only say how far a message has come: a page of those is one transaction, and locks messages only.  What
concerns an address (a bounce, a complaint, an opt-out), or a message that we had given up, takes the locks of the
address and of everybody who has it, a few at a time.  Where something is wrong with one event of a transaction, each
is told again in a transaction of its own, so that it reaches nobody else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
from dispatcher.feedback.storing import ON_THEIR_WAY, Event, Sealer, insert, key_of, plain
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts

log = structlog.get_logger()

#: So many soft bounces of different messages in a row, over so long, end an address; a delivery starts a new row.
SOFT_BOUNCES = 5
SOFT_BOUNCES_OVER = timedelta(days=7)
PAGE = 500
#: So many events that concern addresses take their locks together.
GROUP = 25
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
    told: dict[tuple[str, bytes], Event] = {}
    for report, found in zip(reports, matches, strict=True):
        event = Event(report, key_of(key_ring, report), found)
        told.setdefault((report.source, event.key), event)
    tally.known += len(reports) - len(told)
    events = list(told.values())
    about_addresses = [event for event in events if event.concerns_the_address]
    together = [event for event in events if not event.concerns_the_address]
    if together:
        about_addresses += _try_together(database, key_ring, together, received_at, tally)
    for start in range(0, len(about_addresses), GROUP):
        _try_group(database, key_ring, about_addresses[start : start + GROUP], received_at, tally)


def _try_together(
    database: Engine, key_ring: KeyRing, events: list[Event], received_at: datetime | None, tally: Tally
) -> list[Event]:
    """Record the events as one; return those that must be looked at more closely, all of them if one is unfit."""

    def write() -> tuple[list[Event], Tally]:
        counted = Tally()  # of this try alone: a deadlock, or a database that is away, makes it again
        with database.begin() as connection:
            return _record_together(connection, key_ring, events, received_at, counted), counted

    try:
        strays, counted = db.insist(write, feedback=len(events))
    except (DataError, IntegrityError):
        return events
    tally.add(counted)
    return strays


def _try_group(
    database: Engine, key_ring: KeyRing, events: list[Event], received_at: datetime | None, tally: Tally
) -> None:
    try:
        tally.add(db.insist(lambda: _record_group(database, key_ring, events, received_at), feedback=len(events)))
    except (DataError, IntegrityError) as error:
        if len(events) > 1:  # one of them cannot be stored: find out which
            for event in events:
                _try_group(database, key_ring, [event], received_at, tally)
            return
        log.error("feedback.cannot_be_stored", source=events[0].report.source, error=type(error).__name__)
        tally.flawed += 1


def _record_together(
    connection: Connection, key_ring: KeyRing, events: list[Event], received_at: datetime | None, tally: Tally
) -> list[Event]:
    """Record what only moves messages on their way; return those whose message is not any more."""
    rows = _hold_messages(connection, {e.match.message_id for e in events if e.match.message_id is not None})
    now = clock.read_now(connection)
    strays: list[Event] = []
    going: list[tuple[Event, str | None]] = []
    for event in events:
        row = rows.get(event.match.message_id)
        if row is not None and row.status not in ON_THEIR_WAY:
            strays.append(event)
        else:
            going.append((event, _flaw(event, row, now)))
    fresh = insert(connection, Sealer(key_ring), going, received_at or now, now)
    _count(tally, [(e, flaw) for e, flaw in going if e.key in fresh], len(going) - len(fresh))
    told: defaultdict[UUID, list[Event]] = defaultdict(list)
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


def _flaw(event: Event, row: Row[Any] | None, now: datetime) -> str | None:
    if event.report.flaw or row is None:
        return event.report.flaw or event.match.flaw or (NO_MESSAGE if event.report.kind else None)
    return TOO_LATE if _is_unknown_for_good(row, now) else None


def _is_unknown_for_good(row: Row[Any], now: datetime) -> bool:
    return row.status == "unknown" and row.settled_at is not None and row.settled_at <= now - FOR_GOOD_AFTER


def _count(tally: Tally, fresh: Sequence[tuple[Event, str | None]], known: int) -> None:
    tally.recorded += len(fresh)
    tally.known += known
    tally.flawed += sum(flaw is not None for _, flaw in fresh)
    tally.unmatched += sum(flaw == NO_MESSAGE for _, flaw in fresh)


_MOVE = text("""
UPDATE message m SET status = x.status, reason = x.reason, provider_ref = COALESCE(m.provider_ref, x.ref),
       settled_at = COALESCE(m.settled_at, GREATEST(:now, m.authorised_at))
FROM unnest(CAST(:ids AS uuid[]), CAST(:statuses AS text[]), CAST(:reasons AS text[]), CAST(:refs AS text[]))
    AS x(id, status, reason, ref)
WHERE m.id = x.id
""")


def _move_together(
    connection: Connection, rows: dict[UUID | None, Row[Any]], told: dict[UUID, list[Event]], now: datetime
) -> int:
    moves = []
    for message_id, events in told.items():
        standing = standing_by(e.report.kind for e in events if e.report.kind)
        if standing > standing_of(rows[message_id].status, rows[message_id].reason):
            ref = next((e.report.provider_ref for e in events if e.report.provider_ref), None)
            moves.append((message_id, *STATUS[standing], plain(ref)))
    if moves:
        ids, statuses, reasons, refs = (list(column) for column in zip(*moves, strict=True))
        connection.execute(_MOVE, {"ids": ids, "statuses": statuses, "reasons": reasons, "refs": refs, "now": now})
    return len(moves)


def _record_group(database: Engine, key_ring: KeyRing, events: list[Event], received_at: datetime | None) -> Tally:
    for _ in range(_ATTEMPTS):
        with database.begin() as connection:
            placed = _with_addresses(connection, key_ring, events)
            if _hold_everybody(connection, [event.match for event in placed]):
                return _record_held(connection, key_ring, placed, received_at)
    raise Refused("an address is being moved from contact to contact; it is tried again")


def _with_addresses(connection: Connection, key_ring: KeyRing, events: list[Event]) -> list[Event]:
    """Return the events with rows for their addresses, made where one is to be suppressed: it may come later."""
    wanted = {
        (event.report.channel, event.report.address)
        for event in events
        if event.match.address_id is None and event.report.suppress is not None and event.report.address is not None
    }
    if not wanted:
        return events
    made = ensure_addresses(connection, key_ring, wanted)
    return [
        event
        if (address_id := made.get((event.report.channel, event.report.address or ""))) is None
        else replace(event, match=replace(event.match, address_id=event.match.address_id or address_id))
        for event in events
    ]


_HOLDERS = text("""
SELECT id, email_address_id, sms_address_id FROM contact
WHERE email_address_id = ANY(:addresses) OR sms_address_id = ANY(:addresses)
UNION SELECT id, email_address_id, sms_address_id FROM contact
WHERE id IN (SELECT COALESCE(merged_into, id) FROM contact WHERE id = ANY(:contacts)) ORDER BY 1
""")


def _hold_everybody(connection: Connection, matches: Sequence[Match]) -> bool:
    """Lock everybody who has one of the addresses, then the addresses; False if others have them by then."""
    addresses = [found.address_id for found in matches if found.address_id is not None]
    who = {"addresses": addresses, "contacts": [found.contact_id for found in matches if found.contact_id is not None]}
    holders = connection.execute(_HOLDERS, who).all()
    lock_contacts(connection, [holder.id for holder in holders])
    lock_addresses(connection, addresses)
    return connection.execute(_HOLDERS, who).all() == holders


def _record_held(connection: Connection, key_ring: KeyRing, events: list[Event], received_at: datetime | None) -> Tally:
    tally = Tally()
    rows = _hold_messages(connection, [event.match.message_id for event in events])
    now = clock.read_now(connection)
    flawed = [(event, _flaw(event, rows.get(event.match.message_id), now)) for event in events]
    fresh = insert(connection, Sealer(key_ring), flawed, received_at or now, now)
    tally.known += len(events) - len(fresh)
    for event, flaw in flawed:
        if event.key not in fresh:
            continue
        if flaw is None and event.match.message_id is not None and event.report.kind is not None:
            row = _hold_messages(connection, [event.match.message_id])[
                event.match.message_id
            ]  # as the last one left it
            flaw = _move_one(connection, row, event.report, now, tally)  # noqa: PLW2901
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
    if row.status in ON_THEIR_WAY:
        if standing > standing_of(row.status, row.reason):
            _write_move(connection, row.id, standing, report, now)
            tally.moved += 1
        return None
    try:
        with connection.begin_nested():  # its place may be taken
            if row.status != "failed" and not (row.status == "pending" and _recall(connection, row.id)):
                return NEVER_LEFT
            if row.status == "failed" and row.authorised_at is None:
                return NEVER_LEFT
            _write_move(connection, row.id, standing, report, now)
            tally.moved += 1
    except IntegrityError:
        return PLACE_TAKEN
    return None


def _write_move(connection: Connection, message_id: UUID, standing: Standing, report: Report, now: datetime) -> None:
    status, reason = STATUS[standing]
    connection.execute(
        _MOVE,
        {"ids": [message_id], "statuses": [status], "reasons": [reason], "refs": [plain(report.provider_ref)],
         "now": now},
    )  # fmt: skip


# An earlier try was accepted after all, and the next one has not begun: that try is the message's own again.  The one
# in doubt, if there is one: of the others, also of a later one, it was proved that nothing was accepted.
_RECALL = text("""
WITH tried AS (
    DELETE FROM attempt WHERE (message_id, number) = (
        SELECT message_id, number FROM attempt WHERE message_id = :id AND authorise_seq IS NOT NULL
        ORDER BY outcome = 'unknown' DESC, number DESC LIMIT 1) RETURNING *)
UPDATE message m SET status = 'sending', authorised_at = t.authorised_at, authorise_seq = t.authorise_seq,
       send_deadline = t.send_deadline, handed_over_at = t.handed_over_at, worker_id = t.worker_id,
       provider = t.provider, provider_ref = t.provider_ref, deferred_reason = NULL, facts = NULL
FROM tried t WHERE m.id = :id AND m.status = 'pending'
""")


def _recall(connection: Connection, message_id: UUID) -> bool:
    """Put a pending message back to where the try was that is proved now; False if there was none."""
    return bool(connection.execute(_RECALL, {"id": message_id}).rowcount)


def _suppress(connection: Connection, event: Event, now: datetime, tally: Tally) -> None:
    report, address_id = event.report, event.match.address_id
    if address_id is None or report.flaw is not None:
        return
    if report.suppress is not None:
        since = report.occurred_at if report.listed else None
        if since is not None and suppression.was_taken_back(connection, address_id, report.suppress, since):
            return
        what = " ".join(filter(None, (report.source, report.kind, report.code)))
        source = f"feedback: {what}"
        tally.suppressed += suppression.add(
            connection, address_id, report.suppress, source=plain(source) or "", now=now
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
