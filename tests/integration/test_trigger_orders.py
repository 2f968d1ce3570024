"""Any order of arrival ends as if all events had been known by the time they happened; a race ends like one order."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from flows import Flows, cart, event, make_flows, order
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from people import add_person
from sqlalchemy import Engine, text

from dispatcher import messages, sending
from dispatcher.events import Event
from dispatcher.keys import KeyRing
from dispatcher.messages import NotPending
from dispatcher.triggers.arrivals import Starting

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
_examples = count()


@pytest.fixture
def flows(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Flows:
    return make_flows(database, key_ring, tmp_path)


@dataclass(frozen=True)
class Arrival:
    """An event that arrives; `minute` is when it happened, before the beginning of the example."""

    kind: str  #: start, order, order of another with the key, cancel, stranger's order
    minute: int
    place: int  #: tells events of one instant apart


@dataclass(frozen=True)
class Look:
    """Time passes, and what is due is sent."""

    minutes: int


# Few instants, and what ends a flow rather later than what starts it: else hardly anything would ever meet.
_places = st.integers(0, 999)
starts = st.builds(Arrival, st.just("start"), st.sampled_from((20, 40, 60, 80)), _places)
others = st.sampled_from(("order", "keyed order", "cancel", "stranger"))
ends = st.builds(Arrival, others, st.sampled_from((0, 20, 40)), _places)
looks = st.builds(Look, st.integers(0, 40))
steps = st.tuples(
    st.lists(st.one_of(ends, starts), max_size=3), starts, st.lists(st.one_of(ends, starts, looks), max_size=5)
).map(lambda parts: [*parts[0], parts[1], *parts[2]])


ENDS = ("order", "keyed order", "cancel")


class Oracle:
    """Knows every event that has arrived, by the time it happened, and nothing else."""

    def __init__(self) -> None:
        self.known: list[tuple[datetime, str, str]] = []  # when, key, kind
        self.became = "none"

    def arrive(self, at: datetime, key: str, kind: str) -> None:
        if kind == "start" and self.became == "none":
            self.became = "pending"
        self.known.append((at, key, kind))

    @property
    def newest(self) -> datetime:
        return max((at, key) for at, key, kind in self.known if kind == "start")[0]

    def look(self, now: datetime) -> None:
        if self.became == "pending" and self.newest + HOUR <= now:
            ends = [at for at, _, kind in self.known if kind in ENDS and at >= self.newest]
            self.became = "FLOW_EXIT" if ends else "sent"


def written(flows: Flows, example: int, one: Arrival, at: datetime) -> Event:
    """Return the event that arrives."""
    ana, other, key = f"ana{example}", f"other{example}", f"{example}-{one.place:03}-{next(_examples)}"
    own = {"cart_id": f"cart{example}"}
    match one.kind:
        case "start":
            return event("checkout.started", at, ana, key=key, **own)
        case "order":
            return event("order.placed", at, ana, key=key)
        case "keyed order":
            return event("order.placed", at, other, key=key, **own)
        case "cancel":
            return event("checkout.cancelled", at, other, key=key, **own)
        case _:
            return event("order.placed", at, other, key=key, cart_id="another")


@settings(max_examples=settings().max_examples // 3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=steps)
def test_any_order_of_arrival_ends_as_if_all_had_been_known_by_event_time(flows: Flows, told: list[Any]) -> None:
    example, oracle = next(_examples), Oracle()
    with flows.database.begin() as connection:
        connection.execute(text("UPDATE trigger SET active = false WHERE name <> 'abandoned-cart'"))
        for name in ("ana", "other"):
            add_person(connection, flows.key_ring, f"{name}{example}")
    began = flows.now
    for step in [*told, Look(60), Look(60)]:
        if isinstance(step, Look):
            flows.wait(step.minutes * MINUTE)
            oracle.look(flows.now)
            flows.send()
        else:
            at = began - step.minute * MINUTE
            one = written(flows, example, step, at)
            flows.arrive(one)
            oracle.arrive(at, one.source_key, step.kind)
        rows = [row for row in flows.messages() if row.external_id == f"ana{example}"]
        assert [row.because or row.status for row in rows] == ([] if oracle.became == "none" else [oracle.became])
        if oracle.became == "pending":
            assert rows[0].due_at == oracle.newest + HOUR


def meddle(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen once, after a batch was rendered and before its first slice is authorised."""
    authorise, pending = sending.authorise, [happens]

    def meddled(*args: Any, **kwargs: Any) -> Any:
        if pending:
            pending.pop()()
        return authorise(*args, **kwargs)

    monkeypatch.setattr(sending, "authorise", meddled)


@pytest.fixture
def due(flows: Flows) -> Flows:
    """Ana's cart, whose reminder is due."""
    with flows.database.begin() as connection:
        for name in ("ana", "ben"):
            add_person(connection, flows.key_ring, name)
    flows.arrive(cart(flows.now - 2 * HOUR))
    return flows


def test_an_order_that_arrives_when_the_reminder_is_rendered_still_ends_it(
    due: Flows, monkeypatch: pytest.MonkeyPatch
) -> None:
    meddle(monkeypatch, lambda: due.arrive(order(due.now, "ana"), starting=Starting.NOTHING))
    due.send()

    assert due.became() == {"FLOW_EXIT": 1}


@pytest.mark.parametrize("contact", ["ana", "ben"])
def test_a_newer_event_that_arrives_when_the_reminder_is_rendered_moves_it(
    due: Flows, monkeypatch: pytest.MonkeyPatch, contact: str
) -> None:
    meddle(monkeypatch, lambda: due.arrive(cart(due.now, contact, value=99)))
    due.send()
    assert due.mails() == []
    due.wait(61 * MINUTE)
    due.send()

    assert [(mail["contact"], mail["subject"]) for mail in due.mails()] == [(contact, "Cart cart-1 of 99")]


def test_a_message_stopped_when_it_is_rendered_does_not_leave(due: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    [row] = due.messages()

    def stop() -> None:
        with due.database.begin() as connection:
            messages.cancel(connection, row.id, by="test")

    meddle(monkeypatch, stop)
    due.send()

    assert (due.mails(), due.became()) == ([], {"OPERATOR": 1})


def test_events_of_many_contacts_with_one_key_race_to_one_message_of_the_newest(due: Flows) -> None:
    names = [f"racer{number}" for number in range(8)]
    with due.database.begin() as connection:
        for name in names:
            add_person(connection, due.key_ring, name)
    now = due.now
    told = [cart(now - number * MINUTE, name, "shared") for number, name in enumerate(names)]
    told += [cart(now - 30 * MINUTE, name, "other") for name in names]
    random.Random(7).shuffle(told)
    ready = threading.Barrier(8)

    def arrive(some: list[Event]) -> None:
        ready.wait()
        for one in some:
            due.arrive(one)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(arrive, [told[start::8] for start in range(8)]))

    rows = {row.external_id: row for row in due.messages() if row.external_id.startswith("racer")}
    assert len(due.messages()) == 3
    assert rows["racer0"].due_at == now + HOUR
    assert len(rows) == 2


def test_stopping_and_sending_at_once_never_do_both(flows: Flows) -> None:
    with flows.database.begin() as connection:
        add_person(connection, flows.key_ring, "ana")
    stopped = 0
    for number in range(6):
        flows.arrive(order(flows.now, "ana", key=f"race-{number}"))
        [row] = [row for row in flows.messages() if row.status == "pending"]
        ready = threading.Barrier(2)

        def stop(message: Any = row.id, ready: threading.Barrier = ready) -> bool:
            ready.wait()
            try:
                with flows.database.begin() as connection:
                    messages.cancel(connection, message, by="test")
            except NotPending:
                return False
            return True

        with ThreadPoolExecutor(1) as pool:
            stopping = pool.submit(stop)
            ready.wait()
            flows.send()
            done = stopping.result()
        stopped += done
        assert done == (f"Order race-{number}" not in [mail["subject"] for mail in flows.mails()])
    assert flows.became() == {k: v for k, v in {"sent": 6 - stopped, "OPERATOR": stopped}.items() if v}
