"""The last step of an authorisation: which account carries the slice, and which of its messages may go now.

Under the locks of the lane, its accounts, the domains and the day's count: all workers together keep every rate.
Without a rate, a trouble or a warm-up nothing is locked at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from dispatcher.gates import Defer, Reason
from dispatcher.rates import accounts
from dispatcher.rates.accounts import Account, Lane
from dispatcher.rates.buckets import Bucket
from dispatcher.rates.circuit import admits, probing
from dispatcher.rates.rules import Rates, WarmUp, day_of, next_day

#: How soon to ask again whether a message may go by the only account that it may go by.
_BOUND_AGAIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Offer:
    """An account that could carry the slice; the first choice first."""

    name: str
    slice_size: int
    by_domain: bool = False  #: whether it is kept to the rates of `[rates.domains]`


@dataclass(frozen=True, slots=True)
class Wanted:
    """A message that no gate objects to."""

    message_id: UUID
    units: int = 1
    domain: str | None = None
    only_by: str | None = None  #: the account by which it may have left before: never by another


@dataclass(frozen=True, slots=True)
class Speed:
    """What the shop says of speed, and who it is that sends."""

    rates: Rates = field(default_factory=Rates)
    warm_up: WarmUp | None = None
    sender: str = ""
    zone: str = "UTC"


@dataclass(slots=True)
class Taken:
    """Every wanted message is in exactly one of the first three."""

    account: Account  #: as it stood
    going: dict[UUID, int] = field(default_factory=dict)  #: with the units each took
    short: set[UUID] = field(default_factory=set)  #: they wait for a turn; nothing is written of them
    deferred: dict[UUID, Defer] = field(default_factory=dict)
    probe: bool = False
    warm_up: tuple[str, date] | None = None  #: on whose day it was counted

    @property
    def provider(self) -> str:
        """Who carries what is going."""
        return self.account.name


def take(
    connection: Connection, lane: str, wanted: Sequence[Wanted], now: datetime, *, offers: Sequence[Offer], speed: Speed
) -> Taken:
    """Return which may go, by whom; what they take counts as used, whatever becomes of them.

    Who may only go by another account than the first of them is `short`: the next slice is theirs.
    """
    together, others, offers = _of_one_account(wanted, offers)
    taken = _take(connection, lane, together, now, offers=offers, speed=speed)
    taken.short |= {one.message_id for one in others}
    return taken


def _of_one_account(
    wanted: Sequence[Wanted], offers: Sequence[Offer]
) -> tuple[list[Wanted], list[Wanted], Sequence[Offer]]:
    """Return those who can go together with the first, the others, and by whom the former may go."""
    names = {offer.name for offer in offers}
    bound = [one.only_by if one.only_by in names else None for one in wanted]  # what is gone is said by `_bound`
    first = bound[0] if bound else None
    together = [one for one, name in zip(wanted, bound, strict=True) if name == first]
    others = [one for one, name in zip(wanted, bound, strict=True) if name != first]
    return together, others, [offer for offer in offers if first in (None, offer.name)]


def _take(
    connection: Connection, lane: str, wanted: Sequence[Wanted], now: datetime, *, offers: Sequence[Offer], speed: Speed
) -> Taken:
    names = [offer.name for offer in offers]
    row, known = accounts.read_lane(connection, lane), accounts.read_accounts(connection, names)
    warming = _warming(speed, lane, now)
    if not wanted or (
        warming is None
        and not speed.rates.domains
        and not _limited(row, now)
        and not any(_troubled(account, now) for account in known.values())
    ):
        return _all(offers[0], known[names[0]], wanted, now)
    row = accounts.read_lane(connection, lane, lock=True)
    known = accounts.read_accounts(connection, names, lock=True)
    if (rests_until := row.rests_until(now)) is not None:
        because = {"because": "rest", "lane": lane, "until": rests_until}
        return Taken(known[names[0]], deferred=_all_until(wanted, rests_until, because))
    chosen = _choose(offers, known, now)
    if isinstance(chosen, datetime):
        account = known[names[0]]
        because = {"because": "circuit", "account": account.name, "said": account.circuit.because, "until": chosen}
        return Taken(account, deferred=_all_until(wanted, chosen, because))
    offer, probe = chosen
    return _Taking(connection, row, known[offer.name], offer, probe, speed, now).take(wanted, warming)


def is_limited(lane: Lane, known: Mapping[str, Account], now: datetime) -> bool:
    """Return whether a rate may make messages of the lane wait."""
    return lane.per_second is not None or any(account.pace.at(now) is not None for account in known.values())


def _limited(lane: Lane, now: datetime) -> bool:
    return lane.per_second is not None or lane.rests_until(now) is not None


def _troubled(account: Account, now: datetime) -> bool:
    return account.pace.at(now) is not None or not account.circuit.sound


def _warming(speed: Speed, lane: str, now: datetime) -> tuple[date, int] | None:
    """Return the sender's day and what it allows; None: no limit, or not for this lane."""
    if speed.warm_up is None or not speed.warm_up.counts(lane):
        return None
    day = day_of(now, speed.zone)
    allowance = speed.warm_up.allowance(day)
    return None if allowance is None else (day, allowance)


def _all(offer: Offer, account: Account, wanted: Sequence[Wanted], now: datetime) -> Taken:
    taken = Taken(account)
    for one in wanted:
        if one.only_by not in (None, offer.name):
            taken.deferred[one.message_id] = _bound(one, now)
        elif len(taken.going) < offer.slice_size:
            taken.going[one.message_id] = one.units
        else:
            taken.short.add(one.message_id)
    return taken


def _all_until(wanted: Sequence[Wanted], until: datetime, because: dict[str, object]) -> dict[UUID, Defer]:
    return {one.message_id: Defer(until, Reason.RATE, because) for one in wanted}


def _bound(one: Wanted, now: datetime) -> Defer:
    return Defer(now + _BOUND_AGAIN, Reason.RATE, {"because": "circuit", "account": one.only_by})


def _choose(offers: Sequence[Offer], known: Mapping[str, Account], now: datetime) -> tuple[Offer, bool] | datetime:
    """Return the first account that may be asked, and whether only as a probe; else when the first may be."""
    closed: list[datetime] = []
    for offer in offers:
        answer = admits(known[offer.name].circuit, now)
        if not isinstance(answer, datetime):
            return offer, answer == "probe"
        closed.append(answer)
    return min(closed)


class _Taking:
    """One slice, one account, everything locked."""

    def __init__(
        self,
        connection: Connection,
        lane: Lane,
        account: Account,
        offer: Offer,
        probe: bool,
        speed: Speed,
        now: datetime,
    ) -> None:
        self._connection, self._lane, self._account, self._offer = connection, lane, account, offer
        self._speed, self._now = speed, now
        self._taken = Taken(account, probe=probe)
        self._most = 1 if probe else offer.slice_size
        self._lane_bucket = lane.bucket(now)
        self._account_bucket = account.bucket(now)
        self._marketing = lane.name.endswith(".marketing")
        self._marketing_bucket = account.marketing_bucket(now) if self._marketing else None
        self._buckets = [b for b in (self._lane_bucket, self._account_bucket, self._marketing_bucket) if b is not None]

    def take(self, wanted: Sequence[Wanted], warming: tuple[date, int] | None) -> Taken:
        taken, now = self._taken, self._now
        domains = self._domains(wanted)
        room = None if warming is None else self._room(warming)
        full = False
        for one in wanted:
            domain = domains.get(one.domain or "")
            if one.only_by not in (None, taken.provider):
                taken.deferred[one.message_id] = _bound(one, now)
            elif room is not None and len(taken.going) >= room:
                assert warming is not None
                taken.deferred[one.message_id] = self._tomorrow(*warming)
            elif full or len(taken.going) >= self._most:
                taken.short.add(one.message_id)
            elif domain is not None and not domain.bucket.has(1):
                taken.deferred[one.message_id] = domain.turn(now)
            elif not all(bucket.has(one.units) for bucket in self._buckets):
                full = True  # those behind it wait, too: nobody overtakes because they are smaller
                taken.short.add(one.message_id)
            else:
                taken.going[one.message_id] = one.units
                for bucket in (*self._buckets, *([domain.bucket] if domain else [])):
                    bucket.take(1 if domain is not None and bucket is domain.bucket else one.units)
        self._write(domains, warming)
        return taken

    def _domains(self, wanted: Sequence[Wanted]) -> dict[str, _Domain]:
        if not self._offer.by_domain or not self._speed.rates.domains:
            return {}
        names = {one.domain for one in wanted if one.domain in self._speed.rates.domains}
        rows = accounts.read_domains(self._connection, [name for name in names if name is not None])
        return {
            name: _Domain(
                name,
                Bucket(row.rate_per_second, row.burst, row.theoretical_arrival_at, self._now),
                row.line_until if self._marketing else None,
            )
            for name, row in rows.items()
        }

    def _room(self, warming: tuple[date, int]) -> int:
        day, allowance = warming
        return max(0, allowance - accounts.authorised_on(self._connection, self._speed.sender, day, lock=True))

    def _tomorrow(self, day: date, allowance: int) -> Defer:
        until = next_day(self._now, self._speed.zone)
        return Defer(until, Reason.RATE, {"because": "warm-up", "day": str(day), "allowance": allowance})

    def _write(self, domains: Mapping[str, _Domain], warming: tuple[date, int] | None) -> None:
        """Write what was taken.  Nothing is written of a rate that nobody took anything of."""
        connection, taken = self._connection, self._taken
        if self._lane_bucket is not None and (taken.going or self._lane_bucket.mended):
            connection.execute(
                text("UPDATE lane SET theoretical_arrival_at = :at WHERE name = :name"),
                {"at": self._lane_bucket.arrival, "name": self._lane.name},
            )
        if self._account_bucket is not None and (taken.going or self._account_bucket.mended):
            connection.execute(
                text("""UPDATE account SET theoretical_arrival_at = :at,
                               marketing_arrival_at = COALESCE(:marketing, marketing_arrival_at) WHERE name = :name"""),
                {
                    "at": self._account_bucket.arrival,
                    "marketing": self._marketing_bucket.arrival if self._marketing_bucket else None,
                    "name": self._account.name,
                },
            )
        for domain in domains.values():
            if domain.touched:
                connection.execute(
                    text("""UPDATE domain_rate SET theoretical_arrival_at = :at,
                                   line_until = COALESCE(:line, line_until) WHERE name = :name"""),
                    {
                        "at": domain.bucket.arrival,
                        "line": domain.line_until if self._marketing else None,
                        "name": domain.name,
                    },
                )
        if taken.going and warming is not None:
            accounts.count_on(connection, self._speed.sender, warming[0], len(taken.going))
            taken.warm_up = (self._speed.sender, warming[0])
        if taken.probe:
            if taken.going:
                accounts.write_circuit(connection, self._account.name, probing(self._account.circuit, self._now))
            else:
                taken.probe = False


class _Domain:
    """A domain that has a rate, and the line of those who wait for it: marketing in the one that is written down, what
    else goes there before it, behind those of its own slice alone.
    """

    def __init__(self, name: str, bucket: Bucket, line_until: datetime | None) -> None:
        self.name, self.bucket, self.line_until = name, bucket, line_until
        self._waiting = False

    @property
    def touched(self) -> bool:
        return self._waiting or self.bucket.taken > 0

    def turn(self, now: datetime) -> Defer:
        """Put somebody off to the end of the domain's line; the others of the slice need not wait for them."""
        opens_at = self.bucket.opens_at(1)
        at = max(opens_at, self.line_until or opens_at)
        at = min(at, now + LONGEST_LINE)
        self.line_until, self._waiting = at + timedelta(seconds=1 / self.bucket.per_second), True
        return Defer(at, Reason.RATE, {"because": "domain", "domain": self.name, "until": at})


#: Nobody is told to come back later than this: by then the line may be another.
LONGEST_LINE = timedelta(minutes=15)
