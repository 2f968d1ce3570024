"""Who gets a slot when there are fewer than messages, and that nobody sleeps behind one who is out of the way."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from at_work import AtWork, campaign, noon_ahead
from people import add_person
from small_workspace import FILES
from sqlalchemy import Engine, text

from dispatcher import plan as planning
from dispatcher import release, runs
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page
from dispatcher.sending import send_batch

PEOPLE = 12
NOON = noon_ahead()
WORKSPACE = {
    **campaign("lesser", "priority: 20\n"),
    **campaign("middle", "priority: 40\n"),
    **campaign("other-middle", "priority: 40\n"),
    **campaign("better", "priority: 90\nexpires_after: 3h\n"),
    **campaign("patient", "priority: 90\nexpires_after: 48h\n"),
    **campaign("local", 'priority: 20\nschedule: {cron: "0 18 * * *", zone: UTC, local: true, late: skip}\n'),
}


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> AtWork:
    """Twelve people who agreed, and one mail a day at most."""
    shop = AtWork(database, key_ring, tmp_path, WORKSPACE, starts=NOON)
    with database.begin() as connection:
        for number in range(PEOPLE):
            add_person(connection, key_ring, f"p{number:02}")
    return shop


def test_pausing_the_run_of_the_winners_makes_the_losers_due_at_once(shop: AtWork) -> None:
    winners, losers = shop.plan(shop.start("better")), shop.plan(shop.start("lesser"))
    assert shop.became(losers) == {"OUTRANKED": PEOPLE}
    with shop.database.begin() as connection:
        runs.pause(connection, winners, by="test")
    shop.send()

    assert shop.became(losers) == {"sent": PEOPLE}
    with shop.database.begin() as connection:
        runs.resume(connection, winners, by="test")
    shop.send()
    assert shop.became(winners) == {"CAPPED": PEOPLE}


def test_what_waits_behind_a_run_that_goes_on_is_not_woken_by_one_that_is_paused(shop: AtWork) -> None:
    shop.plan(shop.start("better"))
    paused = shop.plan(shop.start("middle"))
    losers = shop.plan(shop.start("lesser"))
    with shop.database.begin() as connection:
        runs.pause(connection, paused, by="test")
    release.release(shop.database)

    assert shop.became(losers) == {"OUTRANKED": PEOPLE}


def test_a_winner_that_would_outlive_the_loser_costs_it_nothing_if_it_is_cancelled(shop: AtWork) -> None:
    winners, losers = shop.plan(shop.start("patient")), shop.plan(shop.start("lesser"))
    assert shop.became(losers) == {"OUTRANKED": PEOPLE}
    with shop.database.begin() as connection:
        runs.cancel(connection, winners, by="test")
    shop.send()

    assert shop.became(losers) == {"sent": PEOPLE}


def test_who_is_woken_still_waits_for_their_own_time(shop: AtWork) -> None:
    winners = shop.plan(shop.start("better"))
    losers = shop.plan(shop.fire("local", NOON.replace(hour=4)))  # 18:00 where the day begins; in London in six hours
    assert shop.became(losers) == {"OUTRANKED": PEOPLE}
    with shop.database.begin() as connection:
        runs.cancel(connection, winners, by="test")
    shop.send()
    assert {row.due_at for row in shop.rows(losers).values()} == {NOON.replace(hour=18)}
    assert shop.became(losers) == {"pending": PEOPLE}

    shop.move_to(NOON.replace(hour=18))
    shop.send()
    assert shop.became(losers) == {"sent": PEOPLE}


def test_a_winner_that_leaves_while_the_losers_are_planned_is_not_waited_for(
    shop: AtWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    winners, losers = shop.plan(shop.start("better")), shop.start("lesser")
    write = planning.write

    def meanwhile(*args: object) -> None:
        shop.do("UPDATE contact SET paused_until = '2100-01-01Z' WHERE external_id = 'p03'")
        for batch_id in shop.release():
            send_batch(shop.hands, batch_id)
        shop.do("UPDATE contact SET paused_until = NULL")
        write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(planning, "write", meanwhile)
    shop.plan(losers)
    shop.send()

    assert shop.became(winners) == {"sent": PEOPLE - 1, "PAUSED": 1}
    assert shop.became(losers) == {"CAPPED": PEOPLE - 1, "sent": 1}


def test_planning_waits_for_nobody_who_holds_a_contact(shop: AtWork) -> None:
    """An import that holds them may itself wait for the page that is being planned."""
    shop.plan(shop.start("better"))
    losers = shop.start("lesser")
    with shop.database.begin() as importing:
        importing.execute(text("SELECT FROM contact WHERE external_id = 'p05' FOR NO KEY UPDATE"))
        with ThreadPoolExecutor(1) as planner:
            planner.submit(shop.plan, losers).result(timeout=20)

    assert shop.became(losers) == {"OUTRANKED": PEOPLE - 1, "pending": 1}
    shop.send()
    assert shop.became(losers) == {"CAPPED": PEOPLE}


def test_of_one_slice_each_has_the_rank_of_its_own_first_due_time(shop: AtWork) -> None:
    one, other = shop.plan(shop.start("middle")), shop.start("other-middle")
    shop.plan(other)
    shop.do("UPDATE message SET deferred_reason = NULL, facts = NULL, due_at = first_due_at, batch_id = NULL")
    shop.do("UPDATE message SET first_due_at = first_due_at - interval '1 h' WHERE run_id = :run", run=one)
    shop.do(
        """UPDATE message m SET first_due_at = first_due_at - interval '2 h' FROM contact c
           WHERE c.id = m.contact_id AND m.run_id = :run AND c.external_id = 'p07'""",
        run=other,
    )
    # the other's are asked first: all but p07 have to give way
    shop.do("UPDATE run SET state = 'paused' WHERE id = :run", run=one)
    batches = shop.release()
    shop.do("UPDATE run SET state = 'running' WHERE id = :run", run=one)
    for batch_id in batches:
        send_batch(shop.hands, batch_id)

    assert shop.sent() == {("p07", "other-middle")}
    assert shop.became(other) == {"OUTRANKED": PEOPLE - 1, "sent": 1}


def test_what_the_rate_holds_back_wakes_nobody(shop: AtWork) -> None:
    shop.do("INSERT INTO lane (name, rate_per_second, burst) VALUES ('email.marketing', 0.001, 2)")
    winners, losers = shop.plan(shop.start("better")), shop.plan(shop.start("lesser"))
    shop.send()

    assert shop.became(winners) == {"sent": 2, "RATE": PEOPLE - 2}
    # of the two whose winner has left nobody is asked before there is a turn for them
    assert shop.became(losers) == {"RATE": 2, "OUTRANKED": PEOPLE - 2}


def test_a_pause_while_planning_gives_nobody_more_time(shop: AtWork) -> None:
    run_id = shop.start("better")
    shop.pages_of(run_id, PEOPLE // 2)
    assert plan_page(shop.database, run_id)
    with shop.database.begin() as connection:
        runs.pause(connection, run_id, by="test")
    shop.move_to(NOON + timedelta(hours=3, seconds=1))
    with shop.database.begin() as connection:
        runs.resume(connection, run_id, by="test")
    shop.plan(run_id)
    shop.send()

    assert shop.became(run_id) == {"EXPIRED": PEOPLE}


@pytest.mark.parametrize("seed", range(4))
def test_the_same_campaigns_have_the_same_winners_in_whatever_order_they_are_planned_and_by_how_many_hands(
    database: Engine, key_ring: KeyRing, tmp_path: Path, seed: int
) -> None:
    rules = FILES["dispatcher.toml"].replace("max = 1\n", "max = 2\n")
    shop = AtWork(database, key_ring, tmp_path, {**WORKSPACE, "dispatcher.toml": rules}, starts=NOON)
    with database.begin() as connection:
        for number in range(PEOPLE):
            add_person(connection, key_ring, f"p{number:02}")
    dice = random.Random(seed)
    names = ["lesser", "other-middle", "better", "middle"]
    dice.shuffle(names)
    fired = [shop.fire(name, NOON) for name in names]
    pages = [run_id for run_id in fired for _ in range(shop.pages_of(run_id, 5))]
    dice.shuffle(pages)
    for run_id in pages:
        assert plan_page(shop.database, run_id)

    while batches := shop.release():
        dice.shuffle(batches)
        with ThreadPoolExecutor(seed + 1) as hands:
            list(hands.map(partial(send_batch, shop.hands), batches))

    assert shop.sent() == {(f"p{n:02}", winner) for n in range(PEOPLE) for winner in ("better", "middle")}
