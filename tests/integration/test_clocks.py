"""A worker that is frozen while it reads the clock, and a clock that is set back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from at_work import AtWork, noon_ahead
from people import add_person
from sqlalchemy import Engine, event, text

from dispatcher import clock
from dispatcher.keys import KeyRing
from dispatcher.providers.protocol import Envelope, Moment, NotSent, Receipt, boot_seconds
from dispatcher.providers.sandbox import Sandbox
from dispatcher.rates import accounts
from dispatcher.verify import verify

PEOPLE = 3
FROZEN = timedelta(seconds=0.4)


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> AtWork:
    at_work = AtWork(database, key_ring, tmp_path, {}, starts=noon_ahead())
    with database.begin() as connection:
        for number in range(PEOPLE):
            add_person(connection, key_ring, f"p{number}")
    return at_work


@contextmanager
def frozen_after_each_look_at_the_clock(database: Engine, seconds: float) -> Iterator[None]:
    with database.connect() as other:

        def freeze(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if "clock_timestamp() + clock_offset" in statement:
                other.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})

        event.listen(database, "after_cursor_execute", freeze)
        try:
            yield
        finally:
            event.remove(database, "after_cursor_execute", freeze)


class Watchful(Sandbox):
    """A sandbox that looks how far behind the engine's clock its worker believes to be."""

    behind = timedelta(0)

    def __init__(self, shop: AtWork) -> None:
        super().__init__(shop.home / "sandbox", "email")
        self._shop = shop

    def hand_over(self, slice_: Sequence[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        believed = moment.instant(boot_seconds())
        self.behind = self._shop.now() - believed
        return super().hand_over(slice_, moment, deadline)


def test_a_worker_that_was_frozen_right_after_it_read_the_clock_knows_how_late_it_is(shop: AtWork) -> None:
    sandbox = Watchful(shop)
    shop.hands = replace(shop.hands, providers={"email": sandbox})
    shop.plan(shop.start("hello"))
    with frozen_after_each_look_at_the_clock(shop.database, FROZEN.total_seconds()):
        shop.send()

    assert len(shop.sent()) == PEOPLE
    assert sandbox.behind < FROZEN / 2  # else what it authorised by day may leave at night


def test_a_lane_that_rested_when_the_clock_was_set_back_rests_no_longer_than_it_was_told(shop: AtWork) -> None:
    with shop.database.begin() as connection:
        accounts.rest(connection, "email.marketing", timedelta(seconds=30), clock.read_now(connection))
    shop.move_to(shop.now() - timedelta(hours=5))
    run_id = shop.plan(shop.start("hello"))
    shop.send()

    assert shop.became(run_id) == {"sent": PEOPLE}


class SetBack(Sandbox):
    """A sandbox during whose first hand-over the clock is set back by an hour."""

    def __init__(self, shop: AtWork, *, takes_it: bool) -> None:
        super().__init__(shop.home / "sandbox", "email")
        self._shop, self._takes_it = shop, takes_it
        self._first = True

    def hand_over(self, slice_: Sequence[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        first, self._first = self._first, False
        if first:
            self._shop.move_to(self._shop.now() - timedelta(hours=1))
        if first and not self._takes_it:
            return [NotSent("not now", answered=True) for _ in slice_]
        return super().hand_over(slice_, moment, deadline)


@pytest.mark.parametrize("takes_it", [True, False])
def test_a_clock_set_back_during_a_hand_over_breaks_no_invariant(shop: AtWork, takes_it: bool) -> None:
    shop.hands = replace(shop.hands, providers={"email": SetBack(shop, takes_it=takes_it)})
    run_id = shop.plan(shop.start("hello"))
    shop.send()
    shop.move_to(shop.now() + timedelta(hours=1, minutes=1))
    shop.send()

    assert shop.became(run_id) == {"sent": PEOPLE}
    with shop.database.connect() as connection:
        report = verify(connection, shop.key_ring, shop.home / "sandbox" / "outbox.jsonl")
    assert [finding for result in report.results for finding in result.findings] == []
