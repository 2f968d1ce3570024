"""When campaigns fire: occurrences of a schedule, and firing those that are due, once, however many clocks run.

`cronsim` says which wall times a cron expression names, and nothing more: an hour that happens twice fires once, and an
hour that never happens fires right after the gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from cronsim import CronSim
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import InterfaceError, OperationalError

from dispatcher import clock
from dispatcher.definitions import Campaign, Schedule
from dispatcher.errors import DispatcherError
from dispatcher.quiet_hours import first_instant

log = structlog.get_logger()

#: Where a day begins first: `local: true` must be planned when the nominal time arrives there.
FARTHEST_EAST = timezone(timedelta(hours=14))
#: After a long sleep only the newest missed occurrences are worth a row each.
MOST_MISSED_RECORDED = 10
#: One call fires at most so many occurrences of one campaign; the next tick goes on.
MOST_FIRED_AT_ONCE = 10

#: A campaign that cannot be fired is tried again after 1, 2, 4 ... seconds, and then every so often.
LONGEST_PUT_OFF = timedelta(minutes=5)

_LONGEST_FOLD = timedelta(hours=25)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time a schedule names."""

    key: str  # nominal local time + zone: the same for both passes of an autumn hour
    nominal_local: datetime  # wall time in the schedule's zone
    at: datetime  # that wall time as an instant; for `local: true` its arrival at UTC+14


def next_occurrence(schedule: Schedule, after: datetime) -> Occurrence | None:
    """Return the first occurrence whose instant is later than `after`, or None if there is none.

    Wall times that fall on one instant (those inside a spring gap) are one occurrence, named by the earliest.
    """
    for nominal in _nominal_times(schedule, after):
        occurrence = _occurrence(schedule, nominal)
        if occurrence.at > after:
            return occurrence
    return None


def latest_occurrences(schedule: Schedule, after: datetime, until: datetime, most: int) -> list[Occurrence]:
    """Return the last `most` occurrences in (after, until], oldest first, without walking through all of them."""
    found: dict[datetime, Occurrence] = {}
    for nominal in _nominal_times_backwards(schedule, until):
        occurrence = _occurrence(schedule, nominal)
        if occurrence.at <= after or (len(found) == most and occurrence.at not in found):
            break
        if occurrence.at <= until:
            found[occurrence.at] = occurrence  # walking back: of wall times on one instant the earliest stays
    return [found[at] for at in sorted(found)]


def _occurrence(schedule: Schedule, nominal: datetime) -> Occurrence:
    zone = FARTHEST_EAST if schedule.local else _zone(schedule.zone)
    at = first_instant(nominal.date(), nominal.time(), zone)
    shown = nominal.isoformat(timespec="auto" if nominal.second or nominal.microsecond else "minutes")
    return Occurrence(key=f"{shown} {schedule.zone}", nominal_local=nominal, at=at)


@lru_cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _wall_time(schedule: Schedule, instant: datetime) -> datetime:
    """Return what the schedule's clock shows at `instant`."""
    zone = FARTHEST_EAST if schedule.local else _zone(schedule.zone)
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _nominal_times(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Yield in order the schedule's wall times later than what its clock shows at `after`."""
    if schedule.at is not None:
        yield schedule.at
    elif schedule.cron is not None:
        yield from CronSim(schedule.cron, _wall_time(schedule, after))


def _nominal_times_backwards(schedule: Schedule, until: datetime) -> Iterator[datetime]:
    """Yield, newest first, the schedule's wall times; begins so late that no wall time up to `until` is left out."""
    if schedule.at is not None:
        yield schedule.at
    elif schedule.cron is not None:
        start = (_wall_time(schedule, until) + _LONGEST_FOLD).replace(second=0, microsecond=0)
        yield from CronSim(schedule.cron, start, reverse=True)


_DUE = text(
    "SELECT campaign.id FROM campaign, engine "
    "WHERE active AND next_fire_at <= clock_timestamp() + clock_offset "
    "AND (fire_retry_at IS NULL OR fire_retry_at <= clock_timestamp()) ORDER BY next_fire_at"
)
_TAKE = text(
    "SELECT id, name, definition, fires_after, next_fire_at FROM campaign "
    "WHERE id = :id AND active AND next_fire_at IS NOT NULL FOR UPDATE SKIP LOCKED"
)
_ADVANCE = text(
    "UPDATE campaign SET fires_after = :fires_after, next_fire_at = :next_fire_at, fire_error = NULL, "
    "fire_failures = 0, fire_failed_at = NULL, fire_retry_at = NULL WHERE id = :id"
)
_PUT_OFF = text("""
UPDATE campaign c SET fire_error = CAST(:error AS text), fire_failures = LEAST(c.fire_failures + 1, 1000),
    fire_failed_at = COALESCE(c.fire_failed_at, clock_timestamp() + (SELECT clock_offset FROM engine)),
    fire_retry_at = clock_timestamp() + LEAST(interval '1 s' * power(2, LEAST(c.fire_failures, 15)), :longest)
FROM (SELECT id, name, fire_error FROM campaign WHERE id = :id FOR UPDATE) AS before
WHERE c.id = before.id
RETURNING before.name, before.fire_error IS DISTINCT FROM CAST(:error AS text) AS is_news, c.fire_failures
""")


def fire_due(database: Engine) -> list[UUID]:
    """Fire every campaign whose time has come; return the ids of the new runs.  Safe to run twice and at once.

    Each occurrence is fired in a transaction of its own that also moves the campaign on, so a crash in between leaves
    either both or neither.
    """
    with database.connect() as connection:
        due = list(connection.execute(_DUE).scalars())
    fired: list[UUID] = []
    for campaign_id in due:
        try:
            fired += _fire_campaign(database, campaign_id)
        except DispatcherError as error:  # the others' time has come, too
            _put_off(database, campaign_id, str(error))
        except Exception as error:  # a definition or a segment that breaks is no reason either
            _put_off(database, campaign_id, type(error).__name__)
    return fired


def _put_off(database: Engine, campaign_id: int, error: str) -> None:
    """Write why the campaign could not be fired, and try again later; said once, not every second."""
    try:
        with database.begin() as connection:
            row = connection.execute(
                _PUT_OFF, {"id": campaign_id, "error": error, "longest": LONGEST_PUT_OFF}
            ).one_or_none()
    except (OperationalError, InterfaceError):  # the database is away: then nothing else is fired either
        log.error("campaign.not_fired", campaign_id=campaign_id, error=error)
        return
    if row is None:  # it was taken away meanwhile
        return
    if row.is_news:
        log.error("campaign.not_fired", campaign=row.name, error=error)
    else:
        log.debug("campaign.not_fired", campaign=row.name, error=error, failures=row.fire_failures)


def _fire_campaign(database: Engine, campaign_id: int) -> list[UUID]:
    """Fire the campaign's due occurrences, oldest first; return the new runs."""
    fired = []
    for _ in range(MOST_FIRED_AT_ONCE):
        with database.begin() as connection:
            went_on, run_id = _fire_next(connection, campaign_id)
        if run_id is not None:
            fired.append(run_id)
        if not went_on:
            break
    return fired


def _fire_next(connection: Connection, campaign_id: int) -> tuple[bool, UUID | None]:
    """Handle the campaign's oldest due occurrence; return whether there was one, and the run it became."""
    row = connection.execute(_TAKE, {"id": campaign_id}).one_or_none()
    if row is None:  # another clock has it in hand, or the campaign was retired
        return False, None
    now = clock.read_now(connection)
    schedule = Campaign.model_validate(row.definition).schedule
    occurrence = next_occurrence(schedule, row.fires_after) if schedule else None
    if schedule is None or occurrence is None or occurrence.at > now:
        _move_on(connection, campaign_id, occurrence, row.fires_after)
        return False, None
    run_id = None
    if occurrence.at < now - schedule.max_lateness:
        occurrence = _record_missed(connection, row.name, schedule, row.fires_after, now)
    else:
        run_id = _fire(connection, row.name, occurrence, now)
    _move_on(connection, campaign_id, next_occurrence(schedule, occurrence.at), occurrence.at)
    return True, run_id


def _fire(
    connection: Connection, name: str, occurrence: Occurrence, now: datetime, *, missed: bool = False
) -> UUID | None:
    """Return the new run, or None if this occurrence has its run already."""
    from dispatcher import runs  # the clock asks every second and fires seldom

    run_id = runs.fire(
        connection,
        name,
        occurrence_key=occurrence.key,
        nominal_at=occurrence.at,
        now=now,
        started_by="schedule",
        missed=missed,
    )
    event = "campaign.missed" if missed else "campaign.fired"
    log.info(event, campaign=name, occurrence=occurrence.key, run=str(run_id) if run_id else None)
    return run_id


def _move_on(connection: Connection, campaign_id: int, following: Occurrence | None, fires_after: datetime) -> None:
    connection.execute(
        _ADVANCE, {"id": campaign_id, "fires_after": fires_after, "next_fire_at": following.at if following else None}
    )


def _record_missed(connection: Connection, name: str, schedule: Schedule, after: datetime, now: datetime) -> Occurrence:
    """Write a `missed` run for each occurrence that is too late now (the newest ten); return the newest of them."""
    too_late = now - schedule.max_lateness - timedelta(microseconds=1)
    missed = latest_occurrences(schedule, after, too_late, MOST_MISSED_RECORDED)
    for occurrence in missed:
        _fire(connection, name, occurrence, now, missed=True)
    return missed[-1]
