"""How much a contact cares for an interest now: a decayed count of the items they ordered.

Forward decay (Cormode, Shkapenyuk, Srivastava, Xu: "Forward decay: a practical time decay model for streaming
systems", ICDE 2009): an item weighs by how long after a fixed landmark it came, `2^((t - LANDMARK) / half-life)`, and a
score at an instant divides the sum by that instant's own weight.  So a new item is one addition, whenever it arrives
and however late, and as time passes no row is touched.  The sum outgrows every number, so its log2 is kept.

What counts: each item of an `order.placed`, once for each of its interests, whatever its quantity.  Refunds do not
subtract.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from dispatcher.definitions import InterestRules

LANDMARK = datetime(2010, 1, 1, tzinfo=UTC)

#: The one event whose items show interest.
COUNTED = "order.placed"

_DAY = timedelta(days=1)
_LOCK = 0x696E7472  # "intr": adding takes it shared, a change of the half-life exclusively
_LARGEST = 1023.0  # the largest whole log2 a float can have

# power() below the smallest float is an error in PostgreSQL; a term 2^1000 times smaller than another changes no digit.
_MERGE = """
    ON CONFLICT (contact_id, name) DO UPDATE SET
        log2_mass = GREATEST(interest.log2_mass, excluded.log2_mass)
            + CASE WHEN abs(interest.log2_mass - excluded.log2_mass) < 1000
                   THEN ln(1 + power(2::float8, -abs(interest.log2_mass - excluded.log2_mass))) / ln(2::float8)
                   ELSE 0 END,
        half_life_days = excluded.half_life_days
"""
# Rows are written in the order of contacts, so that two writers never wait for each other in a circle.
_SUM_UP = """
    INSERT INTO interest (contact_id, name, log2_mass, half_life_days)
    SELECT contact_id, name,
           max(top)
               + ln(sum(CASE WHEN x - top > -1000 THEN items * power(2::float8, x - top) ELSE 0 END)) / ln(2::float8),
           CAST(:half_life_days AS float8)
    FROM (
        SELECT contact_id, name, items, x, max(x) OVER (PARTITION BY contact_id, name) AS top
        FROM (
            SELECT event.contact_id, of_item.name, count(*) AS items,
                   CAST(EXTRACT(epoch FROM event.occurred_at) - :landmark_epoch AS float8)
                       / (86400 * CAST(:half_life_days AS float8)) AS x
            FROM event
            JOIN event_item ON event_item.event_id = event.id
            CROSS JOIN LATERAL unnest(event_item.interests) AS of_item (name)
            WHERE event.name = :counted AND {which}
            GROUP BY event.contact_id, of_item.name, event.occurred_at
        ) AS by_instant
    ) AS ranked
    GROUP BY contact_id, name
    ORDER BY contact_id, name
"""
_ADD = text(_SUM_UP.format(which="event.id = ANY(:event_ids)") + _MERGE)
_RECOMPUTE = text(_SUM_UP.format(which="true"))
_MOVE = text(f"""
    WITH gone AS (DELETE FROM interest WHERE contact_id = :loser RETURNING name, log2_mass, half_life_days)
    INSERT INTO interest (contact_id, name, log2_mass, half_life_days)
    SELECT :survivor, name, log2_mass, half_life_days FROM gone ORDER BY name
    {_MERGE}
""")  # noqa: S608 - constants only


def exponent(at: datetime, half_life: timedelta) -> float:
    """Return log2 of the weight of one item at `at`."""
    return (at - LANDMARK) / half_life


def score(log2_mass: float, half_life: timedelta, at: datetime) -> float:
    """Return the decayed number of items as seen at `at`; an item of exactly then counts 1."""
    return math.exp2(min(log2_mass - exponent(at, half_life), _LARGEST))


def read_half_life(connection: Connection) -> timedelta:
    """Return the shop's half-life, or the usual one while no workspace has been applied."""
    stored = connection.execute(text("SELECT shop -> 'interests' FROM engine")).scalar_one()
    return InterestRules.model_validate(stored or {}).half_life


def add(connection: Connection, event_ids: Sequence[int]) -> None:
    """Add the items of these events, each of which must be new; others than orders add nothing."""
    if not event_ids:
        return
    connection.execute(text("SELECT pg_advisory_xact_lock_shared(:lock)"), {"lock": _LOCK})
    half_life = read_half_life(connection)  # after the lock: the one every other row is in
    connection.execute(_ADD, {**_parameters(half_life), "event_ids": list(event_ids)})


def recompute(connection: Connection, half_life: timedelta) -> None:
    """Sum up every score afresh from the items: for whoever changes the shop's half-life, in the same transaction."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    connection.execute(text("DELETE FROM interest"))
    connection.execute(_RECOMPUTE, _parameters(half_life))


def combine(connection: Connection, *, survivor: int, loser: int) -> None:
    """Give the loser's scores to the survivor of a merge; both contacts are locked by the caller."""
    connection.execute(text("SELECT pg_advisory_xact_lock_shared(:lock)"), {"lock": _LOCK})
    connection.execute(_MOVE, {"survivor": survivor, "loser": loser})


def _parameters(half_life: timedelta) -> dict[str, Any]:
    return {
        "half_life_days": half_life / _DAY,
        "landmark_epoch": int(LANDMARK.timestamp()),
        "counted": COUNTED,
    }


def strongest(connection: Connection, contact_ids: Sequence[int]) -> dict[int, list[str]]:
    """Return the names of each contact's five strongest interests, the strongest first.

    All scores of one contact fade alike, so their order is that of the stored mass, at any instant.
    """
    rows = connection.execute(
        text("""SELECT contact_id, array_agg(name ORDER BY log2_mass DESC, name) AS names FROM interest
                WHERE contact_id = ANY(:ids) GROUP BY contact_id"""),
        {"ids": list(contact_ids)},
    )
    return {row.contact_id: row.names[:5] for row in rows}
