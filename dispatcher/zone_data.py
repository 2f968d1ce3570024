"""New zone rules: what was put off, or planned for a local time, by the old ones is reckoned afresh.

Every process that starts compares its `tzdata` with what the engine last saw.  Nothing could leave by old rules in any
case, since authorise decides afresh; but a message might wait for an hour that is no longer the right one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Connection, Engine, Row, text

from dispatcher import clock, db
from dispatcher.places import TZDATA_VERSION, places_of
from dispatcher.plan import local_wall_time
from dispatcher.quiet_hours import first_instant
from dispatcher.runs import load_run
from dispatcher.shop import load_shop

log = structlog.get_logger()

_PAGE = 5_000
_LOCAL_RUNS = text("""
    SELECT id FROM run
    WHERE kind = 'campaign' AND started_by = 'schedule' AND finished_at IS NULL
        AND CAST(definition->'schedule'->>'local' AS boolean)
    ORDER BY id
""")
_WAITING = text("""
    SELECT m.id, m.due_at, m.first_due_at, m.deferred_reason, c.zone, c.country, c.subdivision, c.phone_region
    FROM message m JOIN contact c ON c.id = m.contact_id
    WHERE m.run_id = :run AND m.status = 'pending' AND m.batch_id IS NULL AND m.first_due_at > :now AND m.id > :after
    ORDER BY m.id LIMIT :page FOR UPDATE OF m
""")
_MOVE = text("""
    UPDATE message m SET first_due_at = x.due_at, expires_at = m.expires_at + (x.due_at - m.first_due_at),
        due_at = CASE WHEN m.deferred_reason IS NULL THEN x.due_at ELSE m.due_at END
    FROM unnest(CAST(:ids AS uuid[]), CAST(:dues AS timestamptz[])) AS x(id, due_at) WHERE m.id = x.id
""")
_ASK_AGAIN = text("""
    UPDATE message SET due_at = GREATEST(:now, first_due_at)
    WHERE status = 'pending' AND batch_id IS NULL AND deferred_reason IN ('QUIET_HOURS', 'PLACE_UNKNOWN')
""")


def heed(database: Engine, version: str = TZDATA_VERSION) -> int:
    """Reckon afresh what the engine's last zone rules put off, if `version` is another; return how many messages."""
    with database.begin() as connection:
        known = connection.scalar(text("SELECT tzdata FROM engine"))
        if known == version:
            return 0
        known = connection.scalar(text("SELECT tzdata FROM engine FOR UPDATE"))  # one process does it, others find it
        if known == version:
            return 0
        connection.execute(text("UPDATE engine SET tzdata = :version"), {"version": version})
        moved = _reckon(connection) if known is not None else 0
    if known is not None:
        log.info("zone_rules.changed", before=known, now=version, messages=moved)
    return moved


def _reckon(connection: Connection) -> int:
    now = clock.read_now(connection)
    moved = sum(_move_local(connection, run_id, now) for run_id in connection.scalars(_LOCAL_RUNS).all())
    moved += connection.execute(_ASK_AGAIN, {"now": now}).rowcount
    db.notify(connection, "due")
    return moved


def _move_local(connection: Connection, run_id: Any, now: datetime) -> int:
    """Move what waits for its local time to where that is by the rules of today."""
    run = load_run(connection, run_id)
    wall = local_wall_time(run, run.campaign) if run.campaign else None
    if wall is None or run.campaign is None:
        return 0
    countries, moved, after = load_shop(connection).shop.countries, 0, "00000000-0000-0000-0000-000000000000"
    while rows := connection.execute(_WAITING, {"run": run_id, "now": now, "after": after, "page": _PAGE}).all():
        dues = {row.id: due for row in rows if (due := _due(row, wall, countries)) not in (None, row.first_due_at)}
        if dues:
            connection.execute(_MOVE, {"ids": list(dues), "dues": list(dues.values())})
        moved, after = moved + len(dues), rows[-1].id
    return moved


def _due(row: Row[Any], wall: datetime, shop_countries: tuple[str, ...]) -> datetime | None:
    """Return when it is that wall time in the first of the zones, on its day or on the next, if planned for that."""
    places = places_of(row.zone, row.country, row.subdivision, row.phone_region, shop_countries)
    days = (wall.date(), wall.date() + timedelta(days=1))
    found = [
        min(first_instant(day, wall.time(), ZoneInfo(zone)) for zone in places.zones) for day in days if places.zones
    ]
    return min(found, key=lambda at: abs(at - row.first_due_at)) if found else None
