"""What accounts, lanes and domains let go, and whose turn is when."""

from __future__ import annotations

import itertools
from datetime import timedelta

from letting_go import SMTP, set_rates, take, wanted
from sqlalchemy import Engine

from dispatcher import clock
from dispatcher.gates import Reason
from dispatcher.rates import line, taking
from dispatcher.rates.taking import Offer, Speed

TWILIO = Offer("twilio", 40)


def test_marketing_never_takes_what_is_kept_for_an_order_confirmation(database: Engine) -> None:
    set_rates(database, accounts={"smtp": {"per_second": 0.01, "burst": 10, "reserve": "30%"}})

    assert len(take(database, "email.marketing", wanted(20)).going) == 7
    assert len(take(database, "email.marketing", wanted(20)).going) == 0
    assert len(take(database, "email.transactional", wanted(20)).going) == 3


def test_an_sms_of_three_parts_takes_three_of_the_account_and_of_the_lane(database: Engine) -> None:
    set_rates(
        database,
        sms__transactional={"per_second": 0.01, "burst": 12},
        accounts={"twilio": {"per_second": 0.01, "burst": 10}},
    )

    assert len(take(database, "sms.transactional", wanted(9, units=3), offers=[TWILIO]).going) == 3
    assert len(take(database, "sms.transactional", wanted(9), offers=[TWILIO]).going) == 1


def test_who_is_short_is_neither_going_nor_put_off_here(database: Engine) -> None:
    set_rates(database, email__marketing={"per_second": 0.01, "burst": 2})
    some = wanted(5)
    taken = take(database, "email.marketing", some)

    assert taken.going == {one.message_id: 1 for one in some[:2]}
    assert taken.short == {one.message_id for one in some[2:]}
    assert taken.deferred == {}


def test_those_who_wait_are_given_turns_at_the_pace_of_the_rate(database: Engine) -> None:
    set_rates(database, email__marketing={"per_second": 0.1, "burst": 2})
    take(database, "email.marketing", wanted(2))
    with database.begin() as connection:
        assert line.next_turn(connection, "email.marketing", [SMTP], [1] * 9, timedelta(0)) is None
        turns = [line.next_turn(connection, "email.marketing", [SMTP], [1] * 9, timedelta(minutes=5)) for _ in range(9)]
        now = clock.read_now(connection)
        moments = line.put_off(connection, "email.marketing", [SMTP], [1] * 20, now)

    waits = [turn.wait.total_seconds() for turn in turns if turn is not None]
    assert len(waits) == 9
    assert 60 < waits[-1] < 100
    assert moments == sorted(moments)
    assert 170 < (moments[-1] - now).total_seconds() < 230


def test_nobody_stands_behind_a_line_that_is_gone(database: Engine) -> None:
    set_rates(database, email__marketing={"per_second": 1, "burst": 2})
    with database.begin() as connection:
        now = clock.read_now(connection)
        line.put_off(connection, "email.marketing", [SMTP], [1] * 500, now)
        turn = line.next_turn(connection, "email.marketing", [SMTP], [1], timedelta(0))

    assert turn is not None


def test_what_has_no_rate_waits_for_nothing_and_locks_nothing(database: Engine) -> None:
    with database.begin() as connection, database.begin() as other:
        now = clock.read_now(connection)
        speed = Speed(sender="hello@shop.example")
        for each in (connection, other):
            taken = taking.take(each, "email.marketing", wanted(40), now, offers=[SMTP], speed=speed)
            assert len(taken.going) == 40
        assert line.next_turn(connection, "email.marketing", [SMTP], [1] * 9, timedelta(0)) == line.Turn(
            9, limited=False
        )


def test_a_domain_at_its_rate_holds_up_nobody_else(database: Engine) -> None:
    rates = set_rates(database, domains={"slow.example": {"per_second": 0.1, "burst": 2}})
    speed = Speed(rates, sender="hello@shop.example")
    slow, fast = wanted(5, domain="slow.example"), wanted(5, domain="fast.example")
    mixed = [one for pair in zip(slow, fast, strict=True) for one in pair]
    taken = take(database, "email.marketing", mixed, speed=speed)

    assert set(taken.going) == {one.message_id for one in (*slow[:2], *fast)}
    assert [taken.deferred[one.message_id].reason for one in slow[2:]] == [Reason.RATE] * 3
    moments = [taken.deferred[one.message_id].until for one in slow[2:]]
    assert [later - sooner for sooner, later in itertools.pairwise(moments)] == [timedelta(seconds=10)] * 2
    assert len(take(database, "email.marketing", slow, offers=[TWILIO], speed=speed).going) == 5  # of SMTP alone


def test_an_order_confirmation_does_not_stand_in_the_line_of_a_sale_to_its_domain(database: Engine) -> None:
    rates = set_rates(database, domains={"slow.example": {"per_second": 0.1, "burst": 2}})
    speed = Speed(rates, sender="hello@shop.example")
    sale, [order] = wanted(50, domain="slow.example"), wanted(1, domain="slow.example")
    put_off = take(database, "email.marketing", sale, speed=speed).deferred
    turn = take(database, "email.transactional", [order], speed=speed).deferred[order.message_id]

    assert turn.until <= min(deferral.until for deferral in put_off.values()) + timedelta(seconds=1)
    assert len(take(database, "email.transactional", [order], speed=speed, later=timedelta(seconds=11)).going) == 1
