"""The rows behind rates and circuits: lanes, accounts, domains and days of a warm-up.

Locked last inside authorise, in this order: lane, accounts by name, domains by name, day.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, get_args

from sqlalchemy import Connection, Row, text

from dispatcher.rates.adaptive import Pace
from dispatcher.rates.buckets import Bucket
from dispatcher.rates.circuit import LONGEST_REST, Circuit, State, is_ahead
from dispatcher.rates.rules import LaneName, Rates


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane's row."""

    name: str
    per_second: float | None = None
    burst: int = 1
    arrival: datetime | None = None
    paused_until: datetime | None = None
    turn_until: datetime | None = None
    line_until: datetime | None = None

    def bucket(self, now: datetime) -> Bucket | None:
        return None if self.per_second is None else Bucket(self.per_second, self.burst, self.arrival, now)

    def rests_until(self, now: datetime) -> datetime | None:
        """When something of it may be authorised again; None: now."""
        return self.paused_until if is_ahead(self.paused_until, now, LONGEST_REST) else None


@dataclass(frozen=True, slots=True)
class Account:
    """An account's row."""

    name: str
    pace: Pace = field(default_factory=Pace)
    burst: int = 1
    reserve: float = 0.0
    arrival: datetime | None = None
    marketing_arrival: datetime | None = None
    circuit: Circuit = field(default_factory=Circuit)

    def burst_at(self, per_second: float) -> int:
        """How many at once: as configured, or without a rate of its own what a second allows."""
        return self.burst if self.pace.configured is not None else max(1, int(per_second))

    def bucket(self, now: datetime) -> Bucket | None:
        """What all classes together may take."""
        rate = self.pace.at(now)
        return None if rate is None else Bucket(rate, self.burst_at(rate), self.arrival, now)

    def marketing_bucket(self, now: datetime) -> Bucket | None:
        """What marketing may take: everything but the reserve."""
        rate = self.pace.at(now)
        if rate is None or not self.reserve:
            return None
        share = 1 - self.reserve
        return Bucket(rate * share, max(1, int(self.burst_at(rate) * share)), self.marketing_arrival, now)


@dataclass(frozen=True, slots=True)
class LaneState:
    """How a lane stands."""

    name: str
    rate_per_second: float | None  #: as configured; None: as fast as the provider takes it
    burst: int
    rests: timedelta  #: for how much longer nothing of it is authorised; zero: it is at work


def read_states(connection: Connection, now: datetime) -> list[LaneState]:
    """Return every lane's state, also of those nobody has set anything for, by name."""
    rows = {row.name: lane_of(row) for row in connection.execute(text("SELECT * FROM lane"))}
    lanes = [rows.get(name, Lane(name)) for name in sorted(get_args(LaneName))]
    return [LaneState(lane.name, lane.per_second, lane.burst, (lane.rests_until(now) or now) - now) for lane in lanes]


@dataclass(frozen=True, slots=True)
class AccountState:
    """How an account at a provider stands; rates in units a second, None: as fast as the provider takes it."""

    name: str
    configured: float | None
    in_force: float | None  #: lowered for a while by the provider's own words
    circuit: State


def read_account_states(connection: Connection, now: datetime) -> list[AccountState]:
    """Return the state of every account that has a rate, or carries a lane, or has had troubles, by name."""
    names = connection.scalars(text("SELECT name FROM account UNION SELECT unnest(accounts) FROM lane")).all()
    return [
        AccountState(account.name, account.pace.configured, account.pace.at(now), account.circuit.state)
        for _, account in sorted(read_accounts(connection, names).items())
    ]


def set_rates(connection: Connection, rates: Rates) -> None:
    """Make these the rates of all lanes, accounts and domains; what is not named has none.

    What was taken before still counts, and what a provider's words have lowered stays lowered.
    """
    lanes = rates.lanes
    connection.execute(
        text("UPDATE lane SET rate_per_second = NULL, turn_until = NULL, line_until = NULL WHERE name <> ALL(:named)"),
        {"named": list(lanes)},
    )
    for name, rate in sorted(lanes.items()):
        connection.execute(
            text("""INSERT INTO lane (name, rate_per_second, burst) VALUES (:name, :rate, :burst)
                    ON CONFLICT (name) DO UPDATE SET rate_per_second = excluded.rate_per_second,
                        burst = excluded.burst, turn_until = NULL, line_until = NULL"""),
            {"name": name, "rate": rate.per_second, "burst": rate.at_once},
        )
    named = [str(name) for name in rates.accounts]
    connection.execute(
        text("UPDATE account SET rate_per_second = NULL, reserve = 0 WHERE name <> ALL(:named)"), {"named": named}
    )
    for name, account in sorted(rates.accounts.items()):
        connection.execute(
            text("""INSERT INTO account (name, rate_per_second, burst, reserve) VALUES (:name, :rate, :burst, :reserve)
                    ON CONFLICT (name) DO UPDATE SET rate_per_second = excluded.rate_per_second,
                        burst = excluded.burst, reserve = excluded.reserve"""),
            {"name": name, "rate": account.per_second, "burst": account.at_once, "reserve": account.reserve},
        )
    connection.execute(text("DELETE FROM domain_rate WHERE name <> ALL(:named)"), {"named": list(rates.domains)})
    for name, rate in sorted(rates.domains.items()):
        connection.execute(
            text("""INSERT INTO domain_rate (name, rate_per_second, burst) VALUES (:name, :rate, :burst)
                    ON CONFLICT (name) DO UPDATE SET rate_per_second = excluded.rate_per_second,
                        burst = excluded.burst, line_until = NULL"""),
            {"name": name, "rate": rate.per_second, "burst": rate.at_once},
        )


def set_accounts(connection: Connection, accounts: Mapping[str, Sequence[str]]) -> None:
    """Note by whom each channel's messages go, the first choice first: for forecasts, overviews and `release`."""
    for channel, names in sorted(accounts.items()):
        for class_ in ("marketing", "transactional"):
            connection.execute(
                text("""INSERT INTO lane (name, accounts) VALUES (:name, :accounts)
                        ON CONFLICT (name) DO UPDATE SET accounts = excluded.accounts
                        WHERE lane.accounts IS DISTINCT FROM excluded.accounts"""),
                {"name": f"{channel}.{class_}", "accounts": list(names)},
            )


def rest(connection: Connection, name: str, wait: timedelta, now: datetime) -> None:
    """Let nothing of the lane be authorised until `wait`, at most `LONGEST_REST`, is over; a longer one stays."""
    connection.execute(
        text("""INSERT INTO lane (name, paused_until) VALUES (:name, :until)
                ON CONFLICT (name) DO UPDATE SET
                    paused_until = LEAST(GREATEST(lane.paused_until, excluded.paused_until), :latest)"""),
        {"name": name, "until": now + min(wait, LONGEST_REST), "latest": now + LONGEST_REST},
    )


def read_lane(connection: Connection, name: str, *, lock: bool = False) -> Lane:
    """Return a lane; one without a row goes as fast as its provider takes it."""
    row = connection.execute(
        text(f"SELECT * FROM lane WHERE name = :name{' FOR UPDATE' if lock else ''}"),  # noqa: S608 - a constant
        {"name": name},
    ).one_or_none()
    return Lane(name) if row is None else lane_of(row)


def lane_of(row: Row[Any]) -> Lane:
    until = (row.paused_until, row.turn_until, row.line_until)
    return Lane(row.name, row.rate_per_second, row.burst, row.theoretical_arrival_at, *until)


def read_accounts(connection: Connection, names: Collection[str], *, lock: bool = False) -> dict[str, Account]:
    """Return accounts by name; one without a row has neither a rate nor troubles."""
    rows = connection.execute(
        text(f"SELECT * FROM account WHERE name = ANY(:names) ORDER BY name{' FOR UPDATE' if lock else ''}"),  # noqa: S608
        {"names": sorted(names)},
    )
    return {name: Account(name) for name in names} | {row.name: account_of(row) for row in rows}


def account_of(row: Row[Any]) -> Account:
    return Account(
        row.name,
        Pace(row.rate_per_second, row.whole_rate, row.lowered_to, row.lowered_at),
        row.burst,
        row.reserve,
        row.theoretical_arrival_at,
        row.marketing_arrival_at,
        Circuit(row.circuit, row.failures, row.openings, row.open_until, row.probe_until, row.because),
    )


def write_circuit(connection: Connection, name: str, circuit: Circuit) -> None:
    connection.execute(
        text("""UPDATE account SET circuit = :state, failures = :failures, openings = :openings,
                       open_until = :open_until, probe_until = :probe_until, because = :because WHERE name = :name"""),
        {
            "name": name, "state": circuit.state, "failures": circuit.failures, "openings": circuit.openings,
            "open_until": circuit.open_until, "probe_until": circuit.probe_until, "because": circuit.because,
        },
    )  # fmt: skip


def write_pace(
    connection: Connection, name: str, pace: Pace, arrivals: tuple[datetime | None, datetime | None]
) -> None:
    connection.execute(
        text("""UPDATE account SET whole_rate = :whole, lowered_to = :lowered_to, lowered_at = :lowered_at,
                       theoretical_arrival_at = :arrival, marketing_arrival_at = :marketing WHERE name = :name"""),
        {
            "name": name, "whole": pace.whole, "lowered_to": pace.lowered_to, "lowered_at": pace.lowered_at,
            "arrival": arrivals[0], "marketing": arrivals[1],
        },
    )  # fmt: skip


def read_domains(connection: Connection, names: Collection[str]) -> dict[str, Row[Any]]:
    """Return and lock the rates of these domains, of those that have one."""
    if not names:
        return {}
    rows = connection.execute(
        text("SELECT * FROM domain_rate WHERE name = ANY(:names) ORDER BY name FOR UPDATE"), {"names": sorted(names)}
    )
    return {row.name: row for row in rows}


def authorised_on(connection: Connection, sender: str, day: date, *, lock: bool = False) -> int:
    """Return how many a sender has authorised on one of its days; with `lock`, hold that figure."""
    key = {"sender": sender, "day": day}
    if lock:
        connection.execute(
            text("INSERT INTO warm_up_day (sender, day) VALUES (:sender, :day) ON CONFLICT DO NOTHING"), key
        )
    return int(
        connection.scalar(
            text(
                "SELECT authorised FROM warm_up_day WHERE sender = :sender AND day = :day"  # noqa: S608 - a constant
                f"{' FOR UPDATE' if lock else ''}"
            ),
            key,
        )
        or 0
    )


def count_on(connection: Connection, sender: str, day: date, more: int) -> None:
    """Count so many more, or fewer, on a sender's day."""
    connection.execute(
        text("""UPDATE warm_up_day SET authorised = GREATEST(authorised + :more, 0)
                WHERE sender = :sender AND day = :day"""),
        {"sender": sender, "day": day, "more": more},
    )
