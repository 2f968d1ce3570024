"""What the tests of rates ask for, and providers that say what they are told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from at_work import AtWork
from sqlalchemy import Engine, text

from dispatcher import clock
from dispatcher.providers.protocol import Moment, Receipt
from dispatcher.providers.sandbox import Sandbox
from dispatcher.rates import accounts, overview, taking
from dispatcher.rates.rules import Rates
from dispatcher.rates.taking import Offer, Speed, Taken, Wanted
from dispatcher.sending import send_batch

PEOPLE = 12
SMTP = Offer("smtp", 40, by_domain=True)


def set_rates(database: Engine, **rates: Any) -> Rates:
    made = Rates.model_validate({name.replace("__", "."): rate for name, rate in rates.items()})
    with database.begin() as connection:
        accounts.set_rates(connection, made)
    return made


def wanted(number: int, *, units: int = 1, domain: str | None = None) -> list[Wanted]:
    return [Wanted(uuid4(), units, domain) for _ in range(number)]


def take(
    database: Engine,
    lane: str,
    some: Sequence[Wanted],
    *,
    offers: Sequence[Offer] = (SMTP,),
    speed: Speed | None = None,
    later: timedelta = timedelta(0),
) -> Taken:
    with database.begin() as connection:
        now = clock.read_now(connection) + later
        return taking.take(
            connection, lane, some, now, offers=offers, speed=speed or Speed(sender="hello@shop.example")
        )


class Says(Sandbox):
    """A provider of any name that gives its answers in turn, the last one for ever, or takes a mail itself (None)."""

    def __init__(self, home: Path, name: str, *answers: Receipt | None) -> None:
        super().__init__(home / name, "email")
        self.name = name
        self.answers = list(answers)
        self.sizes: list[int] = []

    def hand_over(self, slice_: Any, moment: Moment, deadline: float) -> list[Receipt]:
        self.sizes.append(len(slice_))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [answer] * len(slice_) if answer else super().hand_over(slice_, moment, deadline)


def send_by(shop: AtWork, first: Sandbox, second: Sandbox | None = None) -> None:
    shop.hands = replace(shop.hands, providers={"email": first}, failovers={"email": second} if second else {})
    shop.do("UPDATE message SET due_at = first_due_at WHERE status = 'pending'")
    for batch_id in shop.release():
        send_batch(shop.hands, batch_id)


def by_provider(shop: AtWork) -> dict[tuple[str, str | None], int]:
    with shop.database.connect() as connection:
        rows = connection.execute(text("SELECT status, provider, count(*) FROM message GROUP BY 1, 2"))
        return {(row[0], row[1]): row[2] for row in rows}


def account(shop: AtWork, name: str) -> dict[str, Any]:
    with shop.database.connect() as connection:
        return next(one for one in overview.read(connection)["accounts"] if one["name"] == name)


class Warns(Says):
    """A provider that lets something happen when it is first given something."""

    def __init__(self, home: Path, name: str, happens: Callable[[], object], answer: Receipt | None) -> None:
        super().__init__(home, name, answer)
        self._happens = happens

    def hand_over(self, slice_: Any, moment: Moment, deadline: float) -> list[Receipt]:
        if not self.sizes:
            self._happens()
        return super().hand_over(slice_, moment, deadline)
