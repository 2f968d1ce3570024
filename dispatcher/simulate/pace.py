"""Will it all be out in time?  How a lane's rate spreads what is due over the hours.

First come, first served, by the instant a message is due: the same GCRA as `lanes`, without the database.  It is a
forecast: workers that are down, providers that answer slowly and messages asked for meanwhile are not in it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

from sqlalchemy import Connection, text

from dispatcher.facts import Facts
from dispatcher.gates import Defer, Send, outside_quiet_hours


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane's rate as it stands, and what of other runs is due on it: (due, how many), in no order."""

    name: str
    rate_per_second: float | None = None  #: None: as fast as the provider takes it
    burst: int = 1
    theoretical_arrival_at: datetime | None = None
    paused_until: datetime | None = None
    others: tuple[tuple[datetime, int], ...] = ()

    @property
    def limited(self) -> bool:
        """Whether anything here can make a message wait."""
        return self.rate_per_second is not None or self.paused_until is not None

    @property
    def pace(self) -> str:
        """The rate in words."""
        rate = self.rate_per_second
        if rate is None:
            return "as fast as the provider takes them"
        return f"{rate:g} a second" if rate >= 1 else f"one every {1 / rate:g} s"


@dataclass(frozen=True, slots=True)
class Ready:
    """A message that no gate objects to at `at`; `facts` say when quiet hours close on it again."""

    at: datetime
    facts: Facts


@dataclass(slots=True)
class Passage:
    """Who leaves when."""

    left: list[tuple[datetime, Facts]] = field(default_factory=list)
    expire_waiting: set[int] = field(default_factory=set)  #: contacts whose message expires before its turn
    put_off_waiting: set[int] = field(default_factory=set)  #: contacts whose turn comes when quiet hours are on again
    others: int = 0  #: messages of other runs that have their turn before our last one


def read_lane(connection: Connection, name: str, now: datetime, until: datetime) -> Lane:
    """Return the lane with what else is due on it before `until`; runs being planned count with everybody left."""
    row = connection.execute(text("SELECT * FROM lane WHERE name = :name"), {"name": name}).one_or_none()
    if row is None or (row.rate_per_second is None and (row.paused_until is None or row.paused_until <= now)):
        return Lane(name)
    others = connection.execute(_OTHERS, {"lane": name, "now": now, "until": until}).all()
    paused = row.paused_until if row.paused_until is not None and row.paused_until > now else None
    return Lane(
        name,
        row.rate_per_second,
        row.burst,
        row.theoretical_arrival_at,
        paused,
        tuple((due.due_at, due.messages) for due in others),
    )


_OTHERS = text("""
    SELECT GREATEST(date_trunc('minute', m.due_at), :now) AS due_at, count(*) AS messages
    FROM message m JOIN run r ON r.id = m.run_id
    WHERE m.status = 'pending' AND r.lane = :lane AND r.state IN ('planning', 'running')
      AND m.due_at < :until AND m.expires_at > :now
    GROUP BY 1
    UNION ALL
    SELECT :now, sum(cardinality(p.contact_ids))
    FROM audience_page p JOIN run r ON r.id = p.run_id
    WHERE p.planned_at IS NULL AND r.lane = :lane AND r.state IN ('planning', 'running') AND r.finished_at IS NULL
    HAVING sum(cardinality(p.contact_ids)) > 0
""")


def pass_through(lane: Lane, ready: Iterable[Ready], now: datetime) -> Passage:
    """Return who of `ready` leaves when, behind and between what else is due on the lane."""
    passage = Passage()
    if not lane.limited:
        passage.left = [(one.at, one.facts) for one in ready]
        return passage
    gate = _Rate(lane, now)
    order = count()
    queue: list[tuple[datetime, int, Facts | int]] = [(max(at, now), next(order), n) for at, n in lane.others]
    queue += [(one.at, next(order), one.facts) for one in ready]
    heapq.heapify(queue)
    waiting = sum(1 for *_, what in queue if not isinstance(what, int))
    while waiting:
        at, _, what = heapq.heappop(queue)
        if isinstance(what, int):
            passage.others += what
            gate.take(at, what)
            continue
        turn = gate.turn(at)
        if turn >= what.expires_at:
            passage.expire_waiting.add(what.contact_id)
        elif turn > at and not isinstance(verdict := outside_quiet_hours(what, turn), Send):
            passage.put_off_waiting.add(what.contact_id)
            if isinstance(verdict, Defer) and verdict.until < what.expires_at:
                heapq.heappush(queue, (verdict.until, next(order), what))
                continue
            passage.expire_waiting.add(what.contact_id)
        else:
            gate.take(at, 1)
            passage.left.append((turn, what))
        waiting -= 1
    passage.put_off_waiting -= passage.expire_waiting
    return passage


class _Rate:
    """`lanes.take`, asked for one turn after the other."""

    def __init__(self, lane: Lane, now: datetime) -> None:
        self._paused_until = lane.paused_until
        self._step = timedelta(seconds=1 / lane.rate_per_second) if lane.rate_per_second else timedelta(0)
        self._ahead = self._step * (lane.burst - 1)
        arrival = max(lane.theoretical_arrival_at or now, now)
        self._arrival = min(arrival, now + self._step * lane.burst)

    def turn(self, at: datetime) -> datetime:
        """Return when one that is due at `at` may go."""
        turn = max(at, self._arrival - self._ahead)
        return turn if self._paused_until is None else max(turn, self._paused_until)

    def take(self, at: datetime, messages: int) -> None:
        self._arrival = max(self._arrival, self.turn(at)) + self._step * messages
