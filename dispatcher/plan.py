"""Write one ledger row for every contact of a run's audience, with its verdict.

A page is planned whole or not at all, in one transaction: facts by one query, `decide`, rows by COPY, those that are
due already in batches.  A crash leaves whole pages; a doubled ticket finds the page taken or done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import structlog
from sqlalchemy import Connection, Engine, text
from uuid_utils import uuid7

from dispatcher import clock, db, outranked
from dispatcher.definitions import Campaign
from dispatcher.errors import Refused
from dispatcher.facts import Facts
from dispatcher.facts_page import Order, order_of, rank_of, read_facts
from dispatcher.gates import Defer, Reason, Skip, Verdict, decide
from dispatcher.locks import heed_brake
from dispatcher.quiet_hours import first_instant
from dispatcher.runs import Run, being_planned, finish_planning, load_run
from dispatcher.schedules import FARTHEST_EAST
from dispatcher.shop import load_shop

log = structlog.get_logger()

BATCH_SIZE = 500
#: Firing waits for the clock's tick and for other audiences to be frozen: nobody is late by that, least of all where
#: the day begins first.
_PUNCTUAL = timedelta(minutes=5)

_COLUMNS = (
    "id", "run_id", "contact_id", "channel", "topic", "class", "address_id", "status", "reason",
    "due_at", "first_due_at", "deferred_reason", "expires_at", "facts", "batch_id", "settled_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Planned:
    """What a contact of the audience gets: a verdict at its own due time, or now if that has come."""

    external_id: str
    facts: Facts
    first_due_at: datetime  #: what its expiry and its rank are counted from; it may have passed
    due_at: datetime
    verdict: Verdict


def plan_round(database: Engine) -> bool:
    """Plan one page of each run that has some left; return whether any was.  One that cannot be holds up no other."""
    planned = [_tried(database, run_id) for run_id in being_planned(database)]
    return any(planned)


def _tried(database: Engine, run_id: UUID) -> bool:
    try:
        return plan_page(database, run_id)
    except Exception as error:
        log.error("page.not_planned", run=str(run_id), error=type(error).__name__)
        return False


def plan_page(database: Engine, run_id: UUID) -> bool:
    """Plan the run's next page; False if there is none left to take."""
    with database.begin() as connection:
        heed_brake(connection, run_id)
        run = load_run(connection, run_id)
        if run.state not in ("planning", "cancelled") or run.planned_at is not None:
            return False
        page = connection.execute(
            text("""SELECT page, contact_ids FROM audience_page WHERE run_id = :run AND planned_at IS NULL
                    ORDER BY page LIMIT 1 FOR UPDATE SKIP LOCKED"""),
            {"run": run_id},
        ).one_or_none()
        if page is not None:
            now = clock.read_now(connection)
            order = order_of(run, load_shop(connection), stopped=False, urgent=False)
            planned = list(judge(connection, run, order, page.contact_ids, now))
            write(connection, run, planned, now)
            outranked.look_again(connection, run_id, _outranked(planned), now)
            connection.execute(
                text("UPDATE audience_page SET planned_at = :now WHERE run_id = :run AND page = :page"),
                {"now": now, "run": run_id, "page": page.page},
            )
            finish_planning(connection, run_id)  # if another planner has the last page, the tick sees to it
            db.notify(connection, "due")
    return page is not None


def _outranked(page: list[Planned]) -> list[int]:
    deferred = [p for p in page if isinstance(p.verdict, Defer) and p.verdict.reason is Reason.OUTRANKED]
    return [planned.facts.contact_id for planned in deferred]


def judge(
    connection: Connection, run: Run, order: Order, contact_ids: list[int], now: datetime,
    taken: dict[int, str] | None = None,
) -> Iterator[Planned]:  # fmt: skip
    """Yield the verdict for each contact, in contact order.

    `taken` (address -> who has it) remembers the addresses of this run across pages for those who write no rows.
    """
    campaign = run.campaign
    if campaign is None:
        raise Refused(f"run {run.id} is not of a campaign and has no audience")
    wall = local_wall_time(run, campaign)
    taken = {} if taken is None else taken
    # From the run's own time, whenever a page is planned: a pause gives nobody more of it, and no order to the pages.
    first_due_at = due_at = min(run.nominal_at, now)
    expires_at = first_due_at + campaign.expires_after
    for external_id, facts in read_facts(connection, order, contact_ids, now=now, expires_at=expires_at):
        if wall is not None:
            first_due_at, too_late = _local_due(run, campaign, wall, facts.places.zones)
            expires_at, rank = first_due_at + campaign.expires_after, rank_of(order, first_due_at)
            facts = replace(facts, expires_at=expires_at, too_late=too_late, rank=rank)  # noqa: PLW2901
        if facts.address_id in taken:
            facts = replace(facts, duplicate_of=taken[facts.address_id])  # noqa: PLW2901
        due_at = max(first_due_at, now)
        verdict = decide(facts, due_at)
        if facts.address_id is not None and not isinstance(verdict, Skip):
            taken[facts.address_id] = external_id
        yield Planned(external_id, facts, first_due_at, due_at, verdict)


def local_wall_time(run: Run, campaign: Campaign) -> datetime | None:
    """Return the nominal local time of a scheduled `local: true` run; None: everybody is due now."""
    if campaign.schedule is None or not campaign.schedule.local or run.started_by != "schedule":
        return None
    return run.nominal_at.astimezone(FARTHEST_EAST).replace(tzinfo=None)


def _local_due(run: Run, campaign: Campaign, wall: datetime, zones: tuple[str, ...]) -> tuple[datetime, bool]:
    """Return when it is `wall` in the first of `zones`, and whether that had passed and the campaign says skip.

    Passed is what had when the run was fired: how long planning takes makes nobody late.
    """
    if not zones:
        return run.nominal_at, False
    due = _first_of(zones, wall)
    late = campaign.schedule.late if campaign.schedule else None
    if due >= run.as_of - _PUNCTUAL or late is None:
        return due, False
    if late == "next_day":
        return _first_of(zones, wall + timedelta(days=1)), False
    return run.as_of, late == "skip"


@lru_cache(maxsize=4096)
def _first_of(zones: tuple[str, ...], wall: datetime) -> datetime:
    return min(first_instant(wall.date(), wall.time(), ZoneInfo(zone)) for zone in zones)


def write(connection: Connection, run: Run, page: list[Planned], now: datetime) -> None:
    """Write the page's rows, those that are due into new batches."""
    due_now = sum(1 for p in page if not isinstance(p.verdict, Defer | Skip) and p.due_at <= now)
    batches = _new_batches(connection, run, -(-due_now // BATCH_SIZE))
    db.copy_rows(connection, "message", _COLUMNS, _rows(run, page, batches, now))


def _new_batches(connection: Connection, run: Run, number: int) -> list[int]:
    return list(
        connection.scalars(
            text("""INSERT INTO batch (run_id, lane, priority) SELECT :run, :lane, :priority
                    FROM generate_series(1, :number) RETURNING id"""),
            {"run": run.id, "lane": run.lane, "priority": run.priority, "number": number},
        )
    )


def _rows(run: Run, page: list[Planned], batches: list[int], now: datetime) -> Iterator[tuple[Any, ...]]:
    """Yield the page's rows for COPY; instants as text, since most of a page share theirs."""
    cancelled = run.state == "cancelled"
    shown_at = _instants()
    run_id = str(run.id)
    settled_at = shown_at(now)
    placed = 0
    for planned in page:
        facts, verdict = planned.facts, planned.verdict
        first_due_at = planned.first_due_at
        status, reason, due_at, deferred, shown, batch_id = "pending", None, first_due_at, None, None, None
        if isinstance(verdict, Skip):
            status, reason, shown = "cancelled" if cancelled else "skipped", verdict.reason, verdict.facts
        elif isinstance(verdict, Defer):
            due_at, deferred, shown = verdict.until, verdict.reason, verdict.facts
        elif due_at <= now:
            batch_id = batches[placed // BATCH_SIZE]
            placed += 1
        yield (
            str(uuid7()), run_id, facts.contact_id, run.channel, run.topic, run.class_, facts.address_id, status,
            reason and reason.value, shown_at(due_at), shown_at(first_due_at), deferred and deferred.value,
            shown_at(facts.expires_at), orjson.dumps(shown).decode() if shown else None, batch_id,
            settled_at if reason else None,
        )  # fmt: skip


def _instants() -> Callable[[datetime], str]:
    """Return a function that writes an instant as text, and remembers it."""
    written: dict[datetime, str] = {}

    def shown(at: datetime) -> str:
        found = written.get(at)
        if found is None:
            found = written[at] = at.isoformat()
        return found

    return shown
