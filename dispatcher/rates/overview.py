"""How fast everything may go now: what `dispatcher rate list` and `doctor` show."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from dispatcher import clock
from dispatcher.errors import Refused
from dispatcher.rates.accounts import account_of, authorised_on, lane_of
from dispatcher.rates.rules import day_of
from dispatcher.rates.units import UNITS
from dispatcher.shop import load_shop


def read(connection: Connection) -> dict[str, Any]:
    """Return `lanes`, `accounts`, `domains` (rates in units a second; None: no limit) and `warm_up`.

    The warm-up is that of the shop's own address; None: there is none.
    """
    now = clock.read_now(connection)
    lanes = connection.execute(text("SELECT * FROM lane ORDER BY name")).all()
    rows = connection.execute(text("SELECT * FROM account ORDER BY name")).all()
    domains = connection.execute(text("SELECT * FROM domain_rate ORDER BY name")).all()
    return {
        "at": now,
        "lanes": [
            {
                "name": row.name,
                "rate": row.rate_per_second,
                "burst": row.burst,
                "rests_until": lane_of(row).rests_until(now),
                "accounts": row.accounts or [],
            }
            for row in lanes
        ],
        "accounts": [
            {
                "name": account.name,
                "unit": UNITS.get(account.name, "messages"),
                "rate": account.pace.configured,
                "burst": account.burst,
                "reserve": account.reserve,
                "in_force": account.pace.at(now),
                "lowered_at": account.pace.lowered_at,
                "circuit": account.circuit.state,
                "failures": account.circuit.failures,
                "open_until": account.circuit.open_until,
                "because": account.circuit.because,
            }
            for account in map(account_of, rows)
        ],
        "domains": [{"name": row.name, "rate": row.rate_per_second, "burst": row.burst} for row in domains],
        "warm_up": warm_up_today(connection),
    }


def warm_up_today(connection: Connection) -> dict[str, Any] | None:
    """Return `sender`, its `day`, how many that allows (`allowance`; None: it is warm) and how many are `authorised`.

    None if the shop's own address is not warmed up.
    """
    try:
        shop = load_shop(connection)
    except Refused:  # nothing is applied yet
        return None
    if shop.warm_up is None:
        return None
    sender, day = shop.shop.from_email, day_of(clock.read_now(connection), shop.shop.zone)
    return {
        "sender": sender,
        "day": day,
        "allowance": shop.warm_up.allowance(day),
        "authorised": authorised_on(connection, sender, day),
        "ends_on": shop.warm_up.ends_on(),
    }
