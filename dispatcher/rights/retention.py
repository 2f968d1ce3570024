"""What is kept no longer: once a day, in small bites, with a report in the audit.

Never touched: evidence of consent, suppressions, the audit, and the rows of the ledger with what caps and `verify`
count.  What goes is what can be read: events as providers and people sent them, what the shop sent along, the lines of
old orders.  Where rows are many, a report says up to which number they were looked at, and the next one goes on there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection, Engine, text

from dispatcher import audit, clock
from dispatcher.definitions import LONGEST_EXPIRY, Retention
from dispatcher.errors import Refused
from dispatcher.shop import find_shop

log = structlog.get_logger()

ACTOR = "engine"
ACTION = "retention.swept"
_LOCK = 0x72657465  # "rete": one at a time sweeps
#: So many rows a transaction.
BITE = 2_000
#: One ticket of housekeeping sweeps for this long at most; the next one goes on.
LONGEST_SECONDS = 5.0
#: No flow waits longer for an event that ends it: the longest `after` of a trigger, and its longest expiry.
FLOWS = timedelta(days=365) + LONGEST_EXPIRY + timedelta(days=28)


class Bite(NamedTuple):
    """What one transaction did."""

    gone: int
    through: int | None  #: the highest number it looked at; None: everything that was due is gone
    more: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is kept no longer than its term."""

    name: str
    goes: str  #: in words
    term: Callable[[Retention], timedelta | None]
    count: str  #: how many would go
    take: Callable[[Connection, Mapping[str, Any]], Bite]


@dataclass(frozen=True, slots=True)
class Line:
    """What became, or would become, of one rule."""

    name: str
    goes: str
    term: timedelta | None  #: None: kept for good
    before: datetime | None  #: what is older goes
    gone: int

    def to_json(self) -> dict[str, Any]:
        days = None if self.term is None else self.term.days
        return {"name": self.name, "goes": self.goes, "kept_days": days, "before": self.before, "gone": self.gone}


@dataclass(frozen=True, slots=True)
class Sweep:
    """One sweep: its lines, and whether everything that was due is gone."""

    lines: tuple[Line, ...]
    complete: bool


def _all_at_once(statement: str) -> Callable[[Connection, Mapping[str, Any]], Bite]:
    """Return how to take rows that are few, or have an index of their own."""

    def take(connection: Connection, scope: Mapping[str, Any]) -> Bite:
        gone = connection.execute(text(statement), scope).rowcount
        return Bite(gone, None, more=gone >= BITE)

    return take


def _by_number(table: str, *statements: str) -> Callable[[Connection, Mapping[str, Any]], Bite]:
    """Return how to take rows of a table that is numbered as they came: some after the last number, while old enough.

    The first statement's rows are counted.  Numbers of transactions that overlap may be a little out of order: a row
    that is not old enough yet ends the bite, so none is ever passed over.
    """
    look = text(f"""
        SELECT id, received_at < :before AS old FROM {table} WHERE id > :through ORDER BY id LIMIT :bite
    """)  # noqa: S608 - names of tables

    def take(connection: Connection, scope: Mapping[str, Any]) -> Bite:
        rows = connection.execute(look, scope).all()
        ids = []
        for row in rows:
            if not row.old:
                break
            ids.append(row.id)
        if not ids:
            return Bite(0, scope["through"], more=False)
        counts = [connection.execute(text(statement), {"ids": ids}).rowcount for statement in statements]
        return Bite(counts[0], ids[-1], more=len(ids) == len(rows) == BITE)

    return take


RULES = (
    Rule(
        "message_data", "what the shop sent along with messages", lambda kept: kept.message_data,
        "SELECT count(*) FROM message WHERE sealed IS NOT NULL AND settled_at < :before",
        _all_at_once("""
            UPDATE message SET sealed = NULL WHERE id IN (
                SELECT id FROM message WHERE sealed IS NOT NULL AND settled_at < :before LIMIT :bite
                FOR NO KEY UPDATE SKIP LOCKED)"""),
    ),
    Rule(
        "feedback", "events of providers as they came", lambda kept: kept.feedback,
        "SELECT count(*) FROM feedback WHERE id > :through AND received_at < :before AND sealed IS NOT NULL",
        _by_number("feedback", """
            UPDATE feedback SET sealed = NULL, data_key = NULL WHERE id = ANY(:ids) AND sealed IS NOT NULL"""),
    ),
    Rule(
        "inbox", "requests of providers that could never be sorted", lambda kept: kept.inbox,
        "SELECT count(*) FROM feedback_inbox WHERE received_at < :before AND failures > 0",
        _all_at_once("""
            DELETE FROM feedback_inbox WHERE id IN (
                SELECT id FROM feedback_inbox WHERE received_at < :before AND failures > 0 LIMIT :bite
                FOR UPDATE SKIP LOCKED)"""),
    ),
    Rule(
        "replies", "the words of texts that need no look any more", lambda kept: kept.replies,
        """SELECT count(*) FROM reply
           WHERE sealed IS NOT NULL AND received_at < :before AND review IS DISTINCT FROM 'open'""",
        _all_at_once("""
            UPDATE reply SET sealed = NULL, data_key = NULL WHERE id IN (
                SELECT id FROM reply WHERE sealed IS NOT NULL AND received_at < :before
                    AND review IS DISTINCT FROM 'open' LIMIT :bite FOR NO KEY UPDATE SKIP LOCKED)"""),
    ),
    Rule(
        "events", "items and properties of events", lambda kept: kept.events,
        """SELECT count(*) FROM event e WHERE e.id > :through AND e.received_at < :before
           AND (e.properties <> '{}' OR EXISTS (SELECT FROM event_item i WHERE i.event_id = e.id))""",
        _by_number("event",
            """UPDATE event e SET properties = '{}' WHERE id = ANY(:ids)
               AND (properties <> '{}' OR EXISTS (SELECT FROM event_item i WHERE i.event_id = e.id))""",
            "DELETE FROM event_item WHERE event_id = ANY(:ids)"),
    ),
    Rule(
        "flows", "which events end flows that are over for good", lambda _: FLOWS,
        """SELECT count(*) FROM flow_exit x JOIN event e ON e.id = x.event_id
           WHERE e.id > :through AND e.received_at < :before""",
        _by_number("event", "DELETE FROM flow_exit WHERE event_id = ANY(:ids)"),
    ),
    Rule(  # what came in at the very moment of an erasure
        "erased", "what is left of addresses that were erased", lambda _: timedelta(0),
        """SELECT count(*) FROM feedback WHERE sealed IS NOT NULL AND contact_id IS NULL AND address_id IN (
               SELECT address_id FROM suppression WHERE reason = 'erasure')""",
        _all_at_once("""
            UPDATE feedback SET sealed = NULL, data_key = NULL WHERE id IN (
                SELECT id FROM feedback WHERE sealed IS NOT NULL AND contact_id IS NULL AND address_id IN (
                    SELECT address_id FROM suppression WHERE reason = 'erasure') LIMIT :bite)"""),
    ),
)  # fmt: skip


def sweep_if_due(database: Engine) -> Sweep | None:
    """Sweep if the last one is a day old, or did not come to its end; None if there is nothing to do yet."""
    with database.connect() as connection:
        if not connection.scalar(_IS_DUE, {"action": ACTION}):
            return None
    return sweep(database, by=ACTOR, seconds=LONGEST_SECONDS)


_IS_DUE = text("""
    SELECT COALESCE((
        SELECT NOT (details->>'complete')::boolean OR at < clock_timestamp() - interval '1 day'
        FROM audit WHERE action = :action ORDER BY id DESC LIMIT 1), true)
""")
_LAST = text("SELECT details FROM audit WHERE action = :action ORDER BY id DESC LIMIT 1")


def sweep(database: Engine, *, by: str, seconds: float | None = None) -> Sweep:
    """Take what is due, for so many seconds at most, and return what has gone; the report is in the audit.

    Refused if another sweep is at work.  One that is killed is repeated from where the last report says.
    """
    until = None if seconds is None else time.monotonic() + seconds
    with database.begin() as guard:
        if not guard.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}):
            raise Refused("a sweep is at work already; see: dispatcher audit list --action retention")
        throughs = _throughs(guard)
        lines, complete = [], True
        for rule in RULES:
            line, throughs[rule.name], done = _take(database, rule, throughs.get(rule.name, 0), until)
            complete = complete and done
            lines.append(line)
    report = {line.name: {"gone": line.gone, "through": throughs[line.name]} for line in lines}
    with database.begin() as connection:
        audit.record(connection, by, ACTION, "retention", {"complete": complete, "rules": report})
    gone = {line.name: line.gone for line in lines if line.gone}
    log.info("retention.swept", complete=complete, **gone)
    return Sweep(tuple(lines), complete)


def _throughs(connection: Connection) -> dict[str, int]:
    """Return up to which number each rule has looked, by the last report."""
    last = connection.scalar(_LAST, {"action": ACTION}) or {"rules": {}}
    return {name: told["through"] or 0 for name, told in last["rules"].items()}


def _take(database: Engine, rule: Rule, through: int, until: float | None) -> tuple[Line, int, bool]:
    gone, line = 0, None
    while True:
        with database.begin() as connection:
            line = _line(connection, rule)
            if line.before is None:
                return line, through, True
            bite = rule.take(connection, {"before": line.before, "through": through, "bite": BITE})
        gone, through = gone + bite.gone, through if bite.through is None else bite.through
        in_time = until is None or time.monotonic() < until
        if not (bite.more and in_time):
            return Line(rule.name, rule.goes, line.term, line.before, gone), through, not bite.more


def _line(connection: Connection, rule: Rule) -> Line:
    """Return the rule's term under the shop's present rules, and what is too old by it."""
    shop = find_shop(connection)
    term = rule.term(shop.retention if shop else Retention())
    before = None if term is None else clock.read_now(connection) - term
    return Line(rule.name, rule.goes, term, before, 0)


def preview(connection: Connection) -> Sweep:
    """Return what a sweep would take now; nothing is changed."""
    throughs = _throughs(connection)
    lines = []
    for rule in RULES:
        line = _line(connection, rule)
        gone = 0
        if line.before is not None:
            scope = {"before": line.before, "through": throughs.get(rule.name, 0)}
            gone = int(connection.execute(text(rule.count), scope).scalar_one())
        lines.append(Line(rule.name, rule.goes, line.term, line.before, gone))
    return Sweep(tuple(lines), complete=False)
