"""Will it all be out in time?  How a lane's rate spreads what is due over the hours.

First come, first served, by the instant a message is due: the same GCRA as `rates`, without the database.  It is a
forecast: workers that are down, providers that answer slowly and messages asked for meanwhile are not in it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import count

from sqlalchemy import Connection, text

from dispatcher.facts import Facts
from dispatcher.gates import Defer, Send, outside_quiet_hours
from dispatcher.rates import accounts
from dispatcher.rates.buckets import Bucket
from dispatcher.rates.rules import WarmUp, day_of, next_day
from dispatcher.shop import load_shop


@dataclass(frozen=True, slots=True)
class Days:
    """The warm-up of a sender, and how many it has authorised on its days so far."""

    warm_up: WarmUp
    zone: str
    used: Mapping[date, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane's rate as it stands, and what of other runs is due on it: (due, how many), in no order."""

    name: str
    rate_per_second: float | None = None  #: None: as fast as the provider takes it
    burst: int = 1
    theoretical_arrival_at: datetime | None = None
    paused_until: datetime | None = None
    others: tuple[tuple[datetime, int], ...] = ()
    days: Days | None = None  #: None: the sender is warm
    units_each: float = 1.0  #: that one of our messages takes of the rate, on average: the parts of an SMS

    @property
    def limited(self) -> bool:
        """Whether anything here can make a message wait."""
        return self.rate_per_second is not None or self.paused_until is not None or self.days is not None

    @property
    def pace(self) -> str:
        """The rate in words."""
        rate = self.rate_per_second
        if rate is None:
            return "as fast as the provider takes them"
        pace = f"{rate:g} a second" if rate >= 1 else f"one every {1 / rate:g} s"
        return pace if self.units_each == 1 else f"{pace}, and a text takes {self.units_each:.2g} of that"


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
    row = accounts.read_lane(connection, name)
    paused = row.rests_until(now)
    bucket = _slowest(connection, row, now)
    days = _days(connection, name, now)
    if bucket is None and paused is None and days is None:
        return Lane(name)
    others = connection.execute(_OTHERS, {"lane": name, "now": now, "until": until}).all()
    waiting = tuple((due.due_at, due.messages) for due in others)
    if bucket is None:
        return Lane(name, paused_until=paused, others=waiting, days=days)
    return Lane(name, bucket.per_second, bucket.burst, bucket.arrival, paused, waiting, days)


def _slowest(connection: Connection, lane: accounts.Lane, now: datetime) -> Bucket | None:
    """Return the slowest rate that the lane's messages are under: its own, or that of the account that carries them."""
    first = connection.scalar(text("SELECT accounts[1] FROM lane WHERE name = :name"), {"name": lane.name})
    buckets = [lane.bucket(now)]
    if first is not None:
        account = accounts.read_accounts(connection, [first])[first]
        buckets += [account.bucket(now), account.marketing_bucket(now) if lane.name.endswith(".marketing") else None]
    return min((b for b in buckets if b is not None), key=lambda bucket: bucket.per_second, default=None)


def _days(connection: Connection, lane: str, now: datetime) -> Days | None:
    shop = load_shop(connection)
    if shop.warm_up is None or not shop.warm_up.counts(lane):
        return None
    day = day_of(now, shop.shop.zone)
    return Days(shop.warm_up, shop.shop.zone, {day: accounts.authorised_on(connection, shop.shop.from_email, day)})


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
        turn = gate.turn(at, lane.units_each)
        if turn >= what.expires_at:
            passage.expire_waiting.add(what.contact_id)
        elif turn > at and not isinstance(verdict := outside_quiet_hours(what, turn), Send):
            passage.put_off_waiting.add(what.contact_id)
            if isinstance(verdict, Defer) and verdict.until < what.expires_at:
                heapq.heappush(queue, (verdict.until, next(order), what))
                continue
            passage.expire_waiting.add(what.contact_id)
        else:
            gate.take(at, 1, lane.units_each)
            passage.left.append((turn, what))
        waiting -= 1
    passage.put_off_waiting -= passage.expire_waiting
    return passage


class _Rate:
    """`rates.taking`, asked for one turn after the other."""

    def __init__(self, lane: Lane, now: datetime) -> None:
        self._paused_until = lane.paused_until
        self._step = timedelta(seconds=1 / lane.rate_per_second) if lane.rate_per_second else timedelta(0)
        self._burst = lane.burst
        arrival = max(lane.theoretical_arrival_at or now, now)
        self._arrival = min(arrival, now + self._step * lane.burst)
        self._days, self._used = lane.days, Counter(lane.days.used if lane.days else {})

    def turn(self, at: datetime, units: float = 1) -> datetime:
        """Return when one that is due at `at` and takes so many units may go."""
        turn = max(at, self._arrival - self._step * (self._burst - min(units, self._burst)))
        return self._on_a_free_day(turn if self._paused_until is None else max(turn, self._paused_until))

    def take(self, at: datetime, messages: int, units: float = 1) -> None:
        turn = self.turn(at, units)
        left = messages
        while left and self._days is not None:  # day after day, as far as each reaches
            room = self._room(turn)
            if room is None:
                break
            self._used[day_of(turn, self._days.zone)] += min(room, left)
            left -= min(room, left)
            turn = next_day(turn, self._days.zone) if left else turn
        self._arrival = max(self._arrival, self.turn(at, units)) + self._step * messages * units

    def _on_a_free_day(self, at: datetime) -> datetime:
        while self._days is not None and self._room(at) == 0:
            at = next_day(at, self._days.zone)
        return at

    def _room(self, at: datetime) -> int | None:
        """Return how many more the sender may send on the day of `at`; None: as many as it likes."""
        assert self._days is not None
        day = day_of(at, self._days.zone)
        allowance = self._days.warm_up.allowance(day)
        return None if allowance is None else max(0, allowance - self._used[day])
