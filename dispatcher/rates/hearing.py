"""What a hand-over told of its provider: too much, nobody there, or all in order again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection, text

from dispatcher import db
from dispatcher.providers.protocol import Accepted, Allowance, Receipt, RetryAfter
from dispatcher.rates import accounts
from dispatcher.rates.accounts import Account
from dispatcher.rates.adaptive import Pace, after_allowance, after_enough
from dispatcher.rates.buckets import rescaled
from dispatcher.rates.circuit import LONGEST_REST, Sign, after, sign_of

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Heard:
    """What the receipts of one hand-over say of the account that carried it."""

    sign: Sign
    because: str
    rest: timedelta | None  #: what the provider asked for, or until it takes anything again
    allowance: Allowance | None  #: the least of what it said that it takes
    units_per_call: float = 1.0

    def lane_rests(self, *, probe: bool) -> bool:
        """Whether the lane waits for the provider; else the circuit says how long, and another may come in."""
        return self.rest is not None and self.sign != "enough" and not (probe and self.sign == "none")

    def matters(self, account: Account, reached: float, now: datetime, *, probe: bool) -> bool:
        """Whether anything of it must be written down; `account` as the hand-over found it."""
        return (
            probe
            or not account.circuit.sound
            or self.sign in ("failed", "refused")
            or self.rest is not None
            or _pace_after(account.pace, self, reached, now) != account.pace
        )


def listen_to(receipts: Sequence[Receipt]) -> Heard:
    """Return what these receipts say."""
    sign, because = sign_of(receipts)
    told_to_wait = [receipt for receipt in receipts if isinstance(receipt, RetryAfter)]
    waits = [receipt.wait for receipt in told_to_wait]
    taken = [receipt for receipt in receipts if isinstance(receipt, Accepted)]
    said = {receipt.allowance for receipt in taken if receipt.allowance is not None}
    calls = len({receipt.ref for receipt in taken}) or 1
    least = min(said, key=lambda one: (one.calls, one.window), default=None)
    if least is not None and least.calls == 0:
        waits.append(least.window)
    rest = max(waits, default=None)
    if rest is not None and rest > LONGEST_REST and sign != "refused":
        sign, because = "enough", told_to_wait[0].detail if told_to_wait else "it takes no more in this window"
    return Heard(
        sign,
        because,
        rest,
        least,
        sum(receipt.units for receipt in taken) / calls,
    )


def heed(
    connection: Connection, lane: str, account_name: str, heard: Heard, now: datetime, *, probe: bool, reached: float
) -> None:
    """Write it down: let the lane or the account rest, lower the account's rate, move its circuit.

    `reached`: units a second that went to the provider just now, for an account without a rate of its own.
    """
    if heard.rest is not None and heard.lane_rests(probe=probe):
        accounts.rest(connection, lane, heard.rest, now)
    connection.execute(text("INSERT INTO account (name) VALUES (:name) ON CONFLICT DO NOTHING"), {"name": account_name})
    account = accounts.read_accounts(connection, [account_name], lock=True)[account_name]
    pace = _pace_after(account.pace, heard, reached, now)
    if pace != account.pace:
        was, becomes = account.pace.at(now) or float("inf"), pace.at(now)
        assert becomes is not None
        arrivals = tuple(rescaled(at, now, was, becomes) for at in (account.arrival, account.marketing_arrival))
        accounts.write_pace(connection, account_name, pace, (arrivals[0], arrivals[1]))
        log.warning("rate.lowered", account=account_name, to=round(becomes, 3), lane=lane)
    circuit = after(account.circuit, heard.sign, heard.because, now, probe=probe, rest=heard.rest)
    if circuit != account.circuit:
        accounts.write_circuit(connection, account_name, circuit)
        if circuit.state != account.circuit.state:
            say = log.error if circuit.state == "open" else log.info
            say("circuit.moved", account=account_name, to=circuit.state, because=circuit.because, lane=lane)
            if circuit.state == "closed":
                db.notify(connection, "due")


def _pace_after(pace: Pace, heard: Heard, reached: float, now: datetime) -> Pace:
    if heard.rest is not None:
        return after_enough(pace, reached, now)
    if heard.allowance is not None:
        units = heard.allowance.calls * max(heard.units_per_call, 1.0)
        return after_allowance(pace, units, heard.allowance.window, reached, now)
    return pace
