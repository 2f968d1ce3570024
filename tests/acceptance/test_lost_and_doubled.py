"""A ticket may be lost, late or doubled without harm, and so may a NOTIFY, a clock or a control room."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import cycle, islice
from typing import Any

import dramatiq
import psycopg
import pytest
from dramatiq.brokers.redis import RedisBroker
from house import CROWD, Live, eventually
from sqlalchemy import text

from dispatcher import clock

pytestmark = pytest.mark.thorough

HOURS = 3


@pytest.fixture(autouse=True)
def _nobody_dies(live: Live) -> Iterator[None]:
    before = live.rooms.deaths()
    yield
    assert live.rooms.deaths() == before


@pytest.fixture
def tickets(live: Live) -> Iterator[RedisBroker]:
    """What puts any ticket whatever into the broker."""
    broker = RedisBroker(url=live.runtime.broker_url, middleware=[], namespace="dispatcher")
    yield broker
    broker.close()
    broker.client.close()


def put(broker: RedisBroker, queue: str, actor: str, *arguments: Any) -> None:
    broker.enqueue(dramatiq.Message(queue_name=queue, actor_name=actor, args=arguments, kwargs={}, options={}))


def test_two_clocks_and_two_control_rooms_fire_each_occurrence_once(live: Live, tickets: RedisBroker) -> None:
    for hour in range(1, HOURS + 1):
        with live.database.begin() as connection:
            due = connection.scalar(text("SELECT next_fire_at FROM campaign WHERE name = 'hourly'"))
            offset = connection.scalar(text("SELECT clock_offset FROM engine"))
            ahead = due - clock.read_now(connection) + timedelta(milliseconds=1)
            clock.shift(connection, offset + ahead, sandbox_only=True)
        for _ in range(20):
            put(tickets, "housekeeping", "fire")
        eventually(lambda hour=hour: len(_hourly_runs(live)) >= hour, saying=f"the run of hour {hour}")
        eventually(lambda: not live.broker_holds("housekeeping"), saying="every fire ticket taken")
    fired = _hourly_runs(live)
    for run in fired:
        live.finish(run.id)
        live.check_nobody_twice_nobody_lost(run.id)

    assert len(fired) == HOURS
    assert len({run.occurrence_key for run in fired}) == HOURS
    assert {run.state for run in _hourly_runs(live)} <= {"running", "finished"}


def _hourly_runs(live: Live) -> list[Any]:
    return list(live.rows("SELECT id, occurrence_key, state FROM run WHERE name = 'hourly' ORDER BY nominal_at"))


def test_a_storm_of_tickets_and_notifications_changes_nothing(live: Live, tickets: RedisBroker) -> None:
    live.tell_sandbox(seconds_per_call=0.3)
    runs = [live.start("hello"), live.start("again")]
    eventually(lambda: live.one("SELECT count(*) FROM batch WHERE state = 'claimed'"))
    batches = [row.id for row in live.rows("SELECT id FROM batch ORDER BY id")]
    for batch_id in islice(cycle(batches), 400):
        put(tickets, "email.marketing", "send", batch_id)
        put(tickets, "email.transactional", "send", batch_id)
    for nonsense in (0, -1, 10**9, 2**80, "x", "'; --", None, 1.5, {"batch": 1}, [batches[0]], True):
        put(tickets, "email.marketing", "send", nonsense)
    put(tickets, "email.marketing", "send")
    put(tickets, "email.marketing", "send", batches[0], batches[0])
    put(tickets, "email.marketing", "nobody_knows_this_actor", batches[0])
    for actor, queue in (
        ("release", "release"),
        ("plan", "plan"),
        ("rescue", "housekeeping"),
        ("fire", "housekeeping"),
    ):
        for _ in range(50):
            put(tickets, queue, actor)
    with live.database.connect() as connection:
        for topic in islice(cycle(["run", "due", "engine", "nonsense", ""]), 500):
            connection.execute(text("SELECT pg_notify('dispatcher', :topic)"), {"topic": topic})
            connection.commit()
    for run_id in runs:
        live.finish(run_id)
        assert live.check_nobody_twice_nobody_lost(run_id)["sent"] == live.agreed()
    eventually(lambda: not live.broker_holds("email.marketing"), saying="every ticket taken")


def test_a_broker_that_forgets_everything_in_mid_run_costs_seconds(
    live: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    live.tell_sandbox(seconds_per_call=0.3)
    runs = [live.start(campaign) for campaign in ("hello", "again") * 2]
    lost = 0
    while lost < 5:
        eventually(lambda: live.broker_holds("email.marketing"), saying="tickets that wait")
        with live.broker() as broker:
            lost += live.broker_holds("email.marketing")
            broker.flushdb()
    live.tell_sandbox()
    seconds = sum(live.finish(run_id) for run_id in runs)
    for run_id in runs:
        assert live.check_nobody_twice_nobody_lost(run_id)["sent"] == live.agreed()
    with capsys.disabled():
        print(f"\nbroker emptied in mid-run, {lost} tickets lost: all sent {seconds:.1f} s later")


def test_the_tick_alone_is_enough(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    with live.database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        name = live.database.url.database
        connection.execute(text("CREATE SCHEMA quiet"))
        connection.execute(text("CREATE FUNCTION quiet.pg_notify(text, text) RETURNS void LANGUAGE sql AS ''"))
        connection.execute(text(f"ALTER DATABASE {name} SET search_path = quiet, public, pg_catalog"))
        connection.execute(  # every connection is made anew, and finds that one first
            text("""SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()""")
        )
        connection.invalidate()
    with psycopg.connect(live.runtime.database_url, autocommit=True) as listening:
        listening.execute("LISTEN dispatcher")
        run_id = live.start("hello")
        seconds = live.finish(run_id)

        assert not list(listening.notifies(timeout=0)), "NOTIFY is still heard"
    assert live.check_nobody_twice_nobody_lost(run_id)["sent"] == live.agreed()
    with capsys.disabled():
        print(f"\nwithout NOTIFY, every connection cut before: {CROWD} contacts in {seconds:.1f} s")
