"""Planning: one row for everybody, once, whatever happens in between."""

from __future__ import annotations

import threading
from pathlib import Path
from uuid import UUID

import pytest
from people import add_person, say
from small_workspace import write_workspace
from sqlalchemy import Connection, Engine, text

from dispatcher import runs
from dispatcher.apply import apply
from dispatcher.errors import NotFound, Refused
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page
from dispatcher.simulate import simulate
from dispatcher.workspace import read_workspace


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Engine:
    """The small workspace, and six people for each of whom something else holds."""
    folder = write_workspace(tmp_path / "workspace", {"campaigns/text.yaml": TEXT, **SMS_TEMPLATE})
    with database.begin() as connection:
        apply(connection, read_workspace(folder), by="test")
        add_person(connection, key_ring, "agreed")
        add_person(connection, key_ring, "silent", granted=())
        add_person(connection, key_ring, "mailless", email=None)
        left = add_person(connection, key_ring, "left")
        say(connection, key_ring, left, [("email", "offers", "withdrawn")])
        add_person(connection, key_ring, "elsewhere", country="DE")  # not in the segment
        for name in ("phone-1", "phone-2"):
            add_person(connection, key_ring, name, phone="+447700900001", granted=(("sms", "offers"),))
    return database


TEXT = "name: text\nchannel: sms\ntopic: offers\nsegment: everybody\ntemplate: hello\n"
SMS_TEMPLATE = {
    "templates/sms/hello/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/hello/body.txt": "Hello {{ contact.first_name }} {{ unsubscribe_url }}\n",
}


def start(database: Engine, name: str = "hello", *, again: bool = False) -> UUID:
    with database.begin() as connection:
        return runs.start(connection, name, started_by="test", again=again)


def plan(database: Engine, run_id: UUID) -> int:
    pages = 0
    while plan_page(database, run_id):
        pages += 1
    return pages


def reasons(connection: Connection, run_id: UUID) -> dict[str, str]:
    rows = connection.execute(
        text("""SELECT c.external_id, COALESCE(m.reason, m.deferred_reason, m.status) AS became
                FROM message m JOIN contact c ON c.id = m.contact_id WHERE run_id = :run"""),
        {"run": run_id},
    )
    return {row.external_id: row.became for row in rows}


def test_everybody_in_the_audience_gets_one_row_and_a_reason(shop: Engine) -> None:
    run_id = start(shop)
    plan(shop, run_id)

    with shop.connect() as connection:
        assert reasons(connection, run_id) == {
            "agreed": "pending",
            "silent": "NO_CONSENT",
            "mailless": "NO_ADDRESS",
            "left": "NO_CONSENT",
            "phone-1": "NO_CONSENT",
            "phone-2": "NO_CONSENT",
        }
        run = connection.execute(text("SELECT state, audience FROM run")).one()
        assert tuple(run) == ("running", 6)


def test_a_shared_phone_gets_one_text_and_the_lowest_contact_has_it(shop: Engine) -> None:
    run_id = start(shop, "text")
    plan(shop, run_id)

    with shop.connect() as connection:
        became = reasons(connection, run_id)
    assert became["phone-2"] == "DUPLICATE_ADDRESS"
    assert became["phone-1"] in ("pending", "QUIET_HOURS")


def test_the_simulation_tells_beforehand_what_the_plan_then_does(shop: Engine) -> None:
    with shop.begin() as connection:
        told = simulate(connection, "hello").as_json()
        assert connection.scalar(text("SELECT count(*) FROM message")) == 0

    funnel = {name: told[name] for name in ("audience", "send", "defer", "skip")}
    assert funnel == {"audience": 6, "send": 1, "defer": {}, "skip": {"NO_CONSENT": 4, "NO_ADDRESS": 1}}


def test_two_planners_at_once_plan_each_page_once(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path)), by="test")
        for number in range(60):
            add_person(connection, key_ring, f"p{number:02}")
        run_id = runs.start(connection, "hello", started_by="test")
        connection.execute(text("DELETE FROM audience_page"))
        connection.execute(
            text("""INSERT INTO audience_page (run_id, page, contact_ids)
                    SELECT :run, id, ARRAY[id] FROM contact"""),
            {"run": run_id},
        )
    planners = [threading.Thread(target=plan, args=(database, run_id)) for _ in range(4)]
    for planner in planners:
        planner.start()
    for planner in planners:
        planner.join()
    runs.being_planned(database)

    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message")) == 60
        assert connection.scalar(text("SELECT state FROM run")) == "running"


def test_a_cancelled_run_still_says_what_became_of_everybody(shop: Engine) -> None:
    run_id = start(shop)
    with shop.begin() as connection:
        runs.cancel(connection, run_id, by="test")
    plan(shop, run_id)

    with shop.connect() as connection:
        statuses = connection.execute(text("SELECT status, reason, count(*) FROM message GROUP BY 1, 2")).all()
    assert [tuple(row) for row in statuses] == [("cancelled", "OPERATOR", 6)]


def test_cancelling_sweeps_what_was_planned(shop: Engine) -> None:
    run_id = start(shop)
    plan(shop, run_id)
    with shop.begin() as connection:
        runs.cancel(connection, run_id, by="test")
        now = connection.scalar(text("SELECT clock_timestamp()"))
        assert len(runs.sweep(connection, now)) == 1
        runs.finish(connection, now)

    with shop.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message WHERE status = 'pending'")) == 0
        assert connection.scalar(text("SELECT finished_at IS NOT NULL FROM run"))


def test_a_paused_run_is_planned_on_when_it_goes_on(shop: Engine) -> None:
    run_id = start(shop)
    with shop.begin() as connection:
        runs.pause(connection, run_id, by="test")
    assert plan(shop, run_id) == 0
    with shop.begin() as connection:
        runs.resume(connection, run_id, by="test")

    assert plan(shop, run_id) == 1


def test_a_campaign_is_not_started_twice_in_a_day_by_accident(shop: Engine) -> None:
    start(shop)

    with pytest.raises(Refused, match="--again"):
        start(shop)
    start(shop, again=True)


def test_an_unknown_campaign_names_those_that_exist(shop: Engine) -> None:
    with pytest.raises(NotFound, match="christmas, hello, text"):
        start(shop, "helo")


def test_an_occurrence_has_one_run(shop: Engine) -> None:
    with shop.begin() as connection:
        now = connection.scalar(text("SELECT clock_timestamp()"))
        fired = [
            runs.fire(connection, "hello", occurrence_key="2026", nominal_at=now, now=now, started_by="schedule")
            for _ in range(2)
        ]

    assert fired[0] is not None
    assert fired[1] is None
