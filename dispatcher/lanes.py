"""The rate of a lane: GCRA in one row, shared by all workers through the database, crash-safe and without leaks.

A lane without a row, or without a rate, goes as fast as its provider takes it.  Locked last inside authorise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

from sqlalchemy import Connection, Row, text

from dispatcher.definitions import LaneName, Rate


@dataclass(frozen=True, slots=True)
class Grant:
    """How many may go now, and when the next one may."""

    count: int
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class LaneState:
    """How a lane stands."""

    name: str
    rate_per_second: float | None  #: as configured; None: as fast as the provider takes it
    burst: int
    rests: timedelta  #: for how much longer nothing of it is authorised; zero: it is at work


def read_states(connection: Connection, now: datetime) -> list[LaneState]:
    """Return every lane's state, also of those nobody has set anything for, by name."""
    rows = {row.name: row for row in connection.execute(text("SELECT * FROM lane"))}
    return [_state(name, rows.get(name), now) for name in sorted(get_args(LaneName))]


def _state(name: str, row: Row[Any] | None, now: datetime) -> LaneState:
    if row is None:
        return LaneState(name, None, 1, timedelta(0))
    rests = max(row.paused_until - now, timedelta(0)) if row.paused_until is not None else timedelta(0)
    return LaneState(name, row.rate_per_second, row.burst, rests)


def set_rates(connection: Connection, rates: Mapping[LaneName, Rate]) -> None:
    """Make these the rates of all lanes; one that is not named has none.  What was taken before still counts."""
    connection.execute(text("UPDATE lane SET rate_per_second = NULL WHERE name <> ALL(:named)"), {"named": list(rates)})
    for name, rate in sorted(rates.items()):
        connection.execute(
            text("""INSERT INTO lane (name, rate_per_second, burst) VALUES (:name, :rate, :burst)
                    ON CONFLICT (name) DO UPDATE
                    SET rate_per_second = excluded.rate_per_second, burst = excluded.burst"""),
            {"name": name, "rate": rate.per_second, "burst": rate.at_once},
        )


def rest(connection: Connection, name: str, wait: timedelta, now: datetime) -> None:
    """Let nothing of the lane be authorised until `wait` is over; a longer rest that it has already stays."""
    connection.execute(
        text("""INSERT INTO lane (name, paused_until) VALUES (:name, :until)
                ON CONFLICT (name) DO UPDATE SET paused_until = GREATEST(lane.paused_until, excluded.paused_until)"""),
        {"name": name, "until": now + wait},
    )


def take(connection: Connection, name: str, wanted: int, now: datetime) -> Grant:
    """Take up to `wanted` tokens of the lane's rate; what is granted counts as used, whatever becomes of it."""
    row = connection.execute(
        text("SELECT rate_per_second, paused_until FROM lane WHERE name = :name"), {"name": name}
    ).one_or_none()
    if row is None or (row.rate_per_second is None and (row.paused_until is None or row.paused_until <= now)):
        return Grant(wanted, None)
    row = connection.execute(text("SELECT * FROM lane WHERE name = :name FOR UPDATE"), {"name": name}).one()
    if row.paused_until is not None and row.paused_until > now:
        return Grant(0, row.paused_until)
    if row.rate_per_second is None:
        return Grant(wanted, None)
    step = timedelta(seconds=1 / row.rate_per_second)
    arrival = max(row.theoretical_arrival_at or now, now)
    arrival = min(arrival, now + step * row.burst)  # later only if the clock was set back since
    room = int((now + step * row.burst - arrival) / step)
    count = min(wanted, max(room, 0))
    arrival += step * count
    connection.execute(
        text("UPDATE lane SET theoretical_arrival_at = :at WHERE name = :name"), {"at": arrival, "name": name}
    )
    return Grant(count, arrival - step * (row.burst - 1) if count < wanted else None)
