"""Open circuits, probes and the second provider: what may go, and by whom."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from uuid import uuid4

from letting_go import SMTP, take, wanted
from sqlalchemy import Engine, text

from dispatcher import clock
from dispatcher.rates import accounts, line, taking
from dispatcher.rates.circuit import PROBE_WITHIN
from dispatcher.rates.taking import Offer, Speed, Taken, Wanted


def open_circuit(database: Engine, account: str = "smtp", *, for_seconds: float = 0) -> None:
    with database.begin() as connection:
        connection.execute(
            text("""INSERT INTO account (name, circuit, failures, openings, open_until, because)
                    VALUES (:name, 'open', 3, 1, clock_timestamp() + make_interval(secs => :seconds), 'no connection')
                    ON CONFLICT (name) DO UPDATE SET circuit = 'open', open_until = excluded.open_until"""),
            {"name": account, "seconds": for_seconds},
        )


def test_while_a_circuit_is_open_nothing_goes_and_everybody_is_told_until_when(database: Engine) -> None:
    open_circuit(database, for_seconds=30)
    taken = take(database, "email.transactional", wanted(3))

    assert taken.going == {}
    [facts] = {tuple(sorted(deferral.facts.items())) for deferral in taken.deferred.values()}
    assert dict(facts)["because"] == "circuit"
    assert dict(facts)["said"] == "no connection"


def test_of_two_workers_at_once_one_probes_and_with_one_message(database: Engine) -> None:
    open_circuit(database)
    together = threading.Barrier(6)
    found: list[Taken] = []

    def work() -> None:
        with database.begin() as connection:
            now = clock.read_now(connection)
            together.wait(timeout=20)
            speed = Speed(sender="hello@shop.example")
            found.append(taking.take(connection, "email.marketing", wanted(10), now, offers=[SMTP], speed=speed))

    workers = [threading.Thread(target=work) for _ in range(6)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()

    assert len(found) == 6
    assert Counter(len(taken.going) for taken in found) == {1: 1, 0: 5}
    assert [taken.probe for taken in found if taken.going] == [True]


def test_what_may_have_left_by_one_account_never_goes_by_another(database: Engine) -> None:
    open_circuit(database, "sendgrid", for_seconds=30)
    offers = [Offer("sendgrid", 250), SMTP]
    bound, free = Wanted(uuid4(), only_by="sendgrid"), Wanted(uuid4())
    first = take(database, "email.transactional", [bound, free], offers=offers)
    then = take(database, "email.transactional", [free], offers=offers)

    assert (first.going, first.short) == ({}, {free.message_id})
    assert first.deferred[bound.message_id].facts["account"] == "sendgrid"
    assert (then.provider, set(then.going)) == ("smtp", {free.message_id})
    assert take(database, "email.transactional", [free, bound], offers=offers).short == {bound.message_id}


def test_what_may_have_left_by_the_second_goes_by_the_second_although_the_first_is_back(database: Engine) -> None:
    offers = [Offer("sendgrid", 250), SMTP]
    free, bound = wanted(2), [Wanted(uuid4(), only_by="smtp") for _ in range(2)]
    first = take(database, "email.transactional", [*free, *bound], offers=offers)
    then = take(database, "email.transactional", [*bound, *free], offers=offers)

    assert (first.provider, set(first.going)) == ("sendgrid", {one.message_id for one in free})
    assert first.short == {one.message_id for one in bound}
    assert (then.provider, set(then.going)) == ("smtp", {one.message_id for one in bound})
    assert then.short == {one.message_id for one in free}


def test_what_may_have_left_by_an_account_that_is_gone_goes_by_none(database: Engine) -> None:
    gone, free = Wanted(uuid4(), only_by="twilio"), Wanted(uuid4())
    taken = take(database, "email.transactional", [gone, free])

    assert set(taken.going) == {free.message_id}
    assert taken.deferred[gone.message_id].facts["account"] == "twilio"


def test_a_failover_carries_the_slice_and_the_first_choice_gets_it_back(database: Engine) -> None:
    offers = [Offer("sendgrid", 250), SMTP]
    open_circuit(database, "sendgrid", for_seconds=30)
    assert take(database, "email.marketing", wanted(100), offers=offers).provider == "smtp"
    assert len(take(database, "email.marketing", wanted(100), offers=offers).going) == SMTP.slice_size

    open_circuit(database, "sendgrid")
    probe = take(database, "email.marketing", wanted(100), offers=offers)
    assert (probe.provider, len(probe.going), probe.probe) == ("sendgrid", 1, True)
    assert take(database, "email.marketing", wanted(100), offers=offers).provider == "smtp"  # while it is under way


def test_a_lane_waits_for_a_probe_only_while_nobody_else_carries_it(database: Engine) -> None:
    with database.begin() as connection:
        accounts.set_accounts(connection, {"email": ["sendgrid", "smtp"], "sms": ["twilio"]})
    open_circuit(database, "sendgrid")
    offers = [Offer("sendgrid", 250), SMTP]
    assert held(database) == []  # somebody must probe
    assert take(database, "email.marketing", wanted(1), offers=offers).probe
    assert held(database) == []  # the second carries it

    open_circuit(database, "smtp", for_seconds=60)
    assert held(database) == ["email.marketing", "email.transactional"]
    assert held(database, later=PROBE_WITHIN) == []  # it will never come back


def held(database: Engine, later: timedelta = timedelta(0)) -> list[str]:
    with database.begin() as connection:
        return sorted(line.held_by_a_probe(connection, clock.read_now(connection) + later))
