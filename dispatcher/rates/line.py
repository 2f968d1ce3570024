"""Turns for whoever has to wait: they ask when there will be enough for them, instead of in vain, all at once.

Hands wait for a turn that is near.  Where it is further away the messages are put off, each to a moment of its own.
Both are hints that say when to ask; who may go is decided by `taking`, under the rates themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, text

from dispatcher import clock
from dispatcher.rates import accounts
from dispatcher.rates.accounts import Account, Lane
from dispatcher.rates.buckets import Bucket, opens_at
from dispatcher.rates.circuit import admits
from dispatcher.rates.taking import LONGEST_LINE, Offer, is_limited

#: The line moves a little faster than the rate: who is let in and then does not go leaves no hole.
_FASTER = 1.05
#: So much of what may leave at once is waited for together: small enough that nothing overflows meanwhile.
_SHARE_OF_BURST = 0.5


@dataclass(frozen=True, slots=True)
class Turn:
    """So many messages may ask in `wait`."""

    count: int
    wait: timedelta = timedelta(0)
    limited: bool = True  #: whether there is any rate to wait for


def next_turn(
    connection: Connection, lane: str, offers: Sequence[Offer], units: Sequence[int], patience: timedelta
) -> Turn | None:
    """Return a turn for the first of these messages, which cost `units` each; None: it is further away than `patience`.

    What has no rate, and what rests or has an open circuit, is told to ask at once: authorise says the rest.
    """
    now = clock.read_now(connection)
    names = [offer.name for offer in offers]
    row, known = accounts.read_lane(connection, lane), accounts.read_accounts(connection, names)
    if not is_limited(row, known, now):
        return Turn(len(units), limited=False)
    row = accounts.read_lane(connection, lane, lock=True)
    buckets = _buckets(row, _asked(offers, known, now), now)
    if not buckets:
        return Turn(len(units), limited=False)
    count, size = _chunk(units, max(1, int(min(bucket.burst for bucket in buckets) * _SHARE_OF_BURST)))
    queue = _Queue(row.turn_until, buckets, now)
    at = max(opens_at(buckets, size, now), queue.place_of(size))
    if at - now > patience:
        return None
    queue.extend(size)
    _write(connection, lane, "turn_until", queue)
    return Turn(count, at - now)


def put_off(
    connection: Connection, lane: str, offers: Sequence[Offer], units: Sequence[int], now: datetime
) -> list[datetime]:
    """Return when each of these messages should ask again, at the end of the line; the line is that much longer."""
    names = [offer.name for offer in offers]
    connection.execute(text("INSERT INTO lane (name) VALUES (:name) ON CONFLICT DO NOTHING"), {"name": lane})
    row, known = accounts.read_lane(connection, lane, lock=True), accounts.read_accounts(connection, names)
    buckets = _buckets(row, _asked(offers, known, now), now)
    if not buckets or not units:
        return [now] * len(units)
    queue = _Queue(row.line_until, buckets, now)
    queue.begin_at(opens_at(buckets, units[0], now), units[0])
    moments = []
    for place, some in enumerate(units):
        longest = now + LONGEST_LINE + timedelta(seconds=place % 60)  # not all at the same instant
        moments.append(min(queue.place_of(some), longest))
        queue.extend(some)
    _write(connection, lane, "line_until", queue)
    return moments


def held_by_a_probe(connection: Connection, now: datetime) -> list[str]:
    """Return the lanes by which nothing can leave before a probe that is under way has come back.

    What it says lets everything go, or tells everybody for how much longer not: until then nobody need ask.
    """
    rows = connection.execute(_PROBED).all()
    known = accounts.read_accounts(connection, {name for row in rows for name in row.accounts}) if rows else {}
    return [
        row.name for row in rows if all(isinstance(admits(known[name].circuit, now), datetime) for name in row.accounts)
    ]


_PROBED = text("""
SELECT name, accounts FROM lane
WHERE EXISTS (SELECT FROM account a WHERE a.circuit = 'half_open' AND a.name = ANY(lane.accounts))
""")


class _Queue:
    """Those who wait, as a second GCRA behind that of the rate: it counts who was given a turn, taken or not."""

    def __init__(self, until: datetime | None, buckets: Sequence[Bucket], now: datetime) -> None:
        self._now = now
        self._speed = min(bucket.per_second for bucket in buckets) * _FASTER
        self._burst = min(bucket.burst for bucket in buckets)
        # Where nobody has taken anything for a while, nobody stands in line.
        begin = now if until is None or all(bucket.full for bucket in buckets) else until
        longest = now + LONGEST_LINE + timedelta(seconds=self._burst / self._speed)
        self._begin, self._ahead = min(max(begin, now), longest), 0

    @property
    def until(self) -> datetime:
        return self._begin + timedelta(seconds=self._ahead / self._speed)

    def place_of(self, units: int) -> datetime:
        """Return when so many units behind the others have their turn."""
        return max(self._now, self.until - timedelta(seconds=(self._burst - min(units, self._burst)) / self._speed))

    def begin_at(self, at: datetime, units: int) -> None:
        """Let the first of them have no turn before `at`, when there is something for them."""
        self._begin += max(at - self.place_of(units), timedelta(0))

    def extend(self, units: int) -> None:
        self._ahead += units


def _asked(offers: Sequence[Offer], known: dict[str, Account], now: datetime) -> Account:
    """Return the account that would carry a slice now."""
    open_ = [known[o.name] for o in offers if not isinstance(admits(known[o.name].circuit, now), datetime)]
    return open_[0] if open_ else known[offers[0].name]


def _buckets(lane: Lane, account: Account, now: datetime) -> list[Bucket]:
    marketing = account.marketing_bucket(now) if lane.name.endswith(".marketing") else None
    return [bucket for bucket in (lane.bucket(now), account.bucket(now), marketing) if bucket is not None]


def _chunk(units: Sequence[int], most: int) -> tuple[int, int]:
    """Return how many of the first messages are within `most` units, at least one, and their units."""
    count, size = 1, units[0]
    for some in units[1:]:
        if size + some > most:
            break
        count, size = count + 1, size + some
    return count, size


def _write(connection: Connection, lane: str, column: Literal["turn_until", "line_until"], queue: _Queue) -> None:
    connection.execute(
        text(f"""INSERT INTO lane (name, {column}) VALUES (:name, :until)
                 ON CONFLICT (name) DO UPDATE SET {column} = excluded.{column}"""),  # noqa: S608 - one of two names
        {"name": lane, "until": queue.until},
    )
