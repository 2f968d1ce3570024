"""Days of a warm-up, counted exactly by all workers together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from at_work import AtWork
from ledger_rows import wait_until, waiting_for_a_lock
from letting_go import PEOPLE, Says, Warns, send_by, take, wanted
from lost_commits import lossy_network
from small_workspace import FILES
from sqlalchemy import Engine, text

from dispatcher import clock
from dispatcher.providers.protocol import NotSent, Receipt, Rejected
from dispatcher.rates import accounts
from dispatcher.rates.rules import WarmUp
from dispatcher.rates.taking import Speed, Taken
from dispatcher.sending import send_batch


def test_a_day_of_warm_up_is_counted_exactly_by_all_workers_together(database: Engine) -> None:
    with database.begin() as connection:
        today = clock.read_now(connection).date()
    speed = Speed(warm_up=WarmUp(start=today, days=(25, 100)), sender="hello@shop.example")
    found: list[Taken] = []

    def work() -> None:
        found.extend(take(database, "email.marketing", wanted(4), speed=speed) for _ in range(3))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()

    assert sum(len(taken.going) for taken in found) == 25
    deferrals = [deferral for taken in found for deferral in taken.deferred.values()]
    assert len(deferrals) == 48 - 25
    assert {deferral.until.time().isoformat() for deferral in deferrals} == {"00:00:00"}
    assert {deferral.facts["because"] for deferral in deferrals} == {"warm-up"}
    assert len(take(database, "email.transactional", wanted(9), speed=speed).going) == 9
    other = replace(speed, sender="other@shop.example")
    assert len(take(database, "email.marketing", wanted(30), speed=other).going) == 25
    assert len(take(database, "email.marketing", wanted(40), speed=speed, later=timedelta(days=1)).going) == 40


@pytest.mark.parametrize("answer", [NotSent("mailbox full", answered=True), Rejected("401", scope="account")])
def test_what_was_not_sent_is_not_of_the_days_warm_up(shop: AtWork, tmp_path: Path, answer: Receipt) -> None:
    start = f"{shop.now():%Y-%m-%d}"
    toml = FILES["dispatcher.toml"] + f"\n[warm_up]\nstart = {start}\ndays = [5, 100]\n"
    shop.apply({"dispatcher.toml": toml})
    run_id = shop.plan(shop.start("hello"))
    send_by(shop, Says(tmp_path, "smtp", answer))
    shop.do("DELETE FROM account")  # the key was put in order
    send_by(shop, Says(tmp_path, "smtp", None))

    assert shop.became(run_id) == {"sent": 5, "RATE": PEOPLE - 5}
    [row, *_] = [row for row in shop.rows(run_id).values() if row.status == "pending"]
    assert row.facts["because"] == "warm-up"
    shop.move_to(row.due_at + timedelta(hours=12))
    send_by(shop, Says(tmp_path, "smtp", None))
    assert shop.became(run_id)["sent"] == PEOPLE


def test_whose_contact_changed_under_way_is_not_of_the_days_warm_up(shop: AtWork, tmp_path: Path) -> None:
    start = f"{shop.now():%Y-%m-%d}"
    toml = FILES["dispatcher.toml"] + f"\n[warm_up]\nstart = {start}\ndays = [{PEOPLE}, 100]\n"
    shop.apply({"dispatcher.toml": toml})
    run_id = shop.plan(shop.start("hello"))
    shop.hands = replace(shop.hands, providers={"email": Says(tmp_path, "smtp", None)})
    [batch_id] = shop.release()
    changed_between(shop, "UPDATE contact SET version = version + 1", lambda: send_batch(shop.hands, batch_id))
    assert shop.became(run_id) == {"pending": PEOPLE}
    shop.send()

    assert shop.became(run_id) == {"sent": PEOPLE}


def test_a_lost_commit_gives_no_day_of_a_warm_up_back_twice(shop: AtWork, tmp_path: Path) -> None:
    start = f"{shop.now():%Y-%m-%d}"
    toml = FILES["dispatcher.toml"] + f"\n[warm_up]\nstart = {start}\ndays = [{PEOPLE}, 100]\n"
    shop.apply({"dispatcher.toml": toml})
    shop.plan(shop.start("hello"))
    with shop.database.begin() as connection:  # of another run, and gone
        day, sender = clock.read_now(connection).date(), "hello@small.example"
        accounts.authorised_on(connection, sender, day, lock=True)
        accounts.count_on(connection, sender, day, 7)
    with lossy_network(shop.database) as (network, database):
        shop.hands = replace(shop.hands, database=database)
        full = NotSent("mailbox full", answered=True)
        send_by(shop, Warns(tmp_path, "smtp", lambda: setattr(network, "lose", b"UPDATE warm_up_day"), full))

    assert network.lost == 1
    with shop.database.connect() as connection:
        assert accounts.authorised_on(connection, sender, day) == 7


def changed_between(shop: AtWork, statement: str, work: Callable[[], object]) -> None:
    """Do `work`, and the statement between its rendering and its authorisation."""
    with shop.database.begin() as connection:
        connection.execute(text("SELECT id FROM contact ORDER BY id FOR NO KEY UPDATE"))
        worker = threading.Thread(target=work)
        worker.start()
        wait_until(lambda: waiting_for_a_lock(shop.database))
        connection.execute(text(statement))
    worker.join()


def test_no_day_counts_less_than_nothing(database: Engine) -> None:
    with database.begin() as connection:
        assert accounts.authorised_on(connection, "hello@shop.example", date(2026, 1, 1), lock=True) == 0
        accounts.count_on(connection, "hello@shop.example", date(2026, 1, 1), 7)
        accounts.count_on(connection, "hello@shop.example", date(2026, 1, 1), -9)
        assert accounts.authorised_on(connection, "hello@shop.example", date(2026, 1, 1)) == 0
