"""Rates, circuits, failover and warm-up through the database: what all workers together let go."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from at_work import AtWork, noon_ahead
from ledger_rows import wait_until
from lost_commits import lossy_network
from mail_server import mail_server
from people import add_person
from small_workspace import FILES
from sqlalchemy import Engine, text

from dispatcher import clock
from dispatcher.gates import Reason
from dispatcher.keys import KeyRing
from dispatcher.providers.protocol import Accepted, Allowance, Moment, NotSent, Receipt, Rejected, RetryAfter, Unknown
from dispatcher.providers.sandbox import Sandbox
from dispatcher.providers.smtp import Smtp
from dispatcher.providers.smtp.connection import server_at
from dispatcher.rates import accounts, line, overview, taking
from dispatcher.rates.circuit import FIRST_WAIT, PROBE_WITHIN
from dispatcher.rates.rules import Rates, WarmUp
from dispatcher.rates.taking import Offer, Speed, Taken, Wanted
from dispatcher.sending import send_batch

PEOPLE = 12
SMTP = Offer("smtp", 40, by_domain=True)
TWILIO = Offer("twilio", 40)


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


# --- accounts and lanes


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


# --- domains


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


# --- circuits


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


# --- warm-up


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


# --- hands


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> AtWork:
    at_work = AtWork(database, key_ring, tmp_path, {}, starts=noon_ahead())
    with database.begin() as connection:
        for number in range(PEOPLE):
            add_person(connection, key_ring, f"p{number:02}")
    return at_work


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


def test_the_second_provider_comes_in_when_the_first_refuses_us_and_goes_when_it_is_back(
    shop: AtWork, tmp_path: Path
) -> None:
    first = Says(tmp_path, "sendgrid", Rejected("401", 1.0, scope="account"), None)
    second = Says(tmp_path, "smtp", None)
    shop.plan(shop.start("hello"))
    send_by(shop, first, second)
    assert by_provider(shop) == {("pending", None): PEOPLE}
    send_by(shop, first, second)
    assert by_provider(shop) == {("sent", "smtp"): PEOPLE}

    shop.do("DELETE FROM attempt")
    shop.do("DELETE FROM message")
    shop.do("UPDATE account SET open_until = now() - interval '1 s' + (SELECT clock_offset FROM engine)")
    shop.plan(shop.start("hello"))
    send_by(shop, first, second)
    assert by_provider(shop) == {("sent", "sendgrid"): PEOPLE}
    assert first.sizes == [PEOPLE, 1, PEOPLE - 1]
    assert account(shop, "sendgrid")["circuit"] == "closed"


def test_a_message_in_doubt_stays_with_the_provider_that_may_have_it(shop: AtWork, tmp_path: Path) -> None:
    first, second = Says(tmp_path, "sendgrid", Unknown("reset", 1.0)), Says(tmp_path, "smtp", None)
    shop.plan(shop.start("hello"))
    for _ in range(3):
        send_by(shop, first, second)
    assert by_provider(shop) == {("unknown", "sendgrid"): PEOPLE}
    # as if they were transactional, and had waited long enough to be sent once more
    shop.do(
        """INSERT INTO attempt (message_id, number, authorised_at, settled_at, provider, outcome)
           SELECT id, attempts, authorised_at, settled_at, provider, 'unknown' FROM message"""
    )
    shop.do(
        """UPDATE message SET status = 'pending', batch_id = NULL, authorised_at = NULL, authorise_seq = NULL,
                  send_deadline = NULL, handed_over_at = NULL, settled_at = NULL, worker_id = NULL, provider = NULL"""
    )
    shop.do(
        "UPDATE account SET circuit = 'open', open_until = now() + interval '4 min' + (SELECT clock_offset FROM engine)"
    )
    send_by(shop, first, second)

    assert by_provider(shop) == {("pending", None): PEOPLE}
    assert second.sizes == []


def test_a_few_hand_overs_that_get_nowhere_open_the_circuit_and_a_probe_closes_it(shop: AtWork, tmp_path: Path) -> None:
    nobody_there = NotSent("no connection", unreachable=True)
    down = Says(tmp_path, "smtp", nobody_there, nobody_there, nobody_there, nobody_there, None)
    run_id = shop.plan(shop.start("hello"))
    for _ in range(5):
        send_by(shop, down)
    assert down.sizes == [PEOPLE] * 3
    assert shop.became(run_id) == {"RATE": PEOPLE}

    opened = account(shop, "smtp")
    assert opened["circuit"] == "open"
    shop.move_to(opened["open_until"])
    send_by(shop, down)
    assert down.sizes == [PEOPLE] * 3 + [1]
    again = account(shop, "smtp")
    assert again["open_until"] - opened["open_until"] >= 2 * FIRST_WAIT
    shop.move_to(again["open_until"])
    send_by(shop, down)
    assert by_provider(shop) == {("sent", "smtp"): PEOPLE}
    assert account(shop, "smtp")["circuit"] == "closed"


def test_while_a_probe_is_under_way_nothing_that_waits_for_it_is_looked_at(shop: AtWork, tmp_path: Path) -> None:
    with shop.database.begin() as connection:
        accounts.set_accounts(connection, {"email": ["smtp"], "sms": ["sandbox"]})
    run_id = shop.plan(shop.start("hello"))
    shop.do("INSERT INTO account (name, circuit, open_until) VALUES ('smtp', 'open', now())")
    released: list[list[int]] = []

    def look() -> None:
        shop.do("UPDATE message SET due_at = first_due_at WHERE status = 'pending' AND batch_id IS NULL")
        released.append(shop.release())

    first, second = dealt_out_to_two(shop)
    provider = Warns(tmp_path, "smtp", lambda: (send_batch(shop.hands, second), look()), None)
    shop.hands = replace(shop.hands, providers={"email": provider})
    send_batch(shop.hands, first)

    assert provider.sizes == [1, PEOPLE // 2 - 1]
    assert shop.became(run_id) == {"sent": PEOPLE // 2, "RATE": PEOPLE // 2}
    assert released[0] == []
    look()
    assert len(released[-1]) == 1  # it was well: nothing waits any more


def dealt_out_to_two(shop: AtWork) -> tuple[int, int]:
    """Release what is due; return its batch, and another that has half of it."""
    [batch_id] = shop.release()
    with shop.database.begin() as connection:
        other = connection.scalar(text("INSERT INTO batch (run_id, lane) SELECT run_id, lane FROM batch RETURNING id"))
        connection.execute(
            text("UPDATE message SET batch_id = :other WHERE id IN (SELECT id FROM message LIMIT :half)"),
            {"other": other, "half": PEOPLE // 2},
        )
    return batch_id, int(other)


def test_a_provider_that_has_enough_is_written_to_half_as_fast(shop: AtWork, tmp_path: Path) -> None:
    set_rates(shop.database, accounts={"sendgrid": {"per_second": 1000, "reserve": "0%"}})
    shop.plan(shop.start("hello"))
    send_by(shop, Says(tmp_path, "sendgrid", RetryAfter("429", timedelta(seconds=5))))

    assert 490 < account(shop, "sendgrid")["in_force"] < 700
    assert by_provider(shop) == {("pending", None): PEOPLE}


def test_the_words_of_a_provider_about_its_limit_slow_us_down_before_it_says_no(shop: AtWork, tmp_path: Path) -> None:
    set_rates(shop.database, accounts={"sendgrid": {"per_second": 1000, "reserve": "0%"}})
    shop.plan(shop.start("hello"))
    few = Accepted("one-request", 1.0, allowance=Allowance(50, timedelta(seconds=10)))
    send_by(shop, Says(tmp_path, "sendgrid", few))

    assert by_provider(shop) == {("sent", "sendgrid"): PEOPLE}
    assert 55 < account(shop, "sendgrid")["in_force"] < 300  # 50 requests of 12 mails in 10 s


def everybody_has_it(shop: AtWork, run_id: UUID) -> bool:
    shop.send()
    return set(shop.became(run_id)) == {"sent"}


def test_over_smtp_a_domain_never_passes_its_rate_and_holds_up_no_other(shop: AtWork, tmp_path: Path) -> None:
    per_second, burst, slow = 4, 2, 8
    rate = f'\n[rates.domains]\n"slow.example" = {{per_second = {per_second}, burst = {burst}}}\n'
    shop.apply({"dispatcher.toml": FILES["dispatcher.toml"] + rate})
    with shop.database.begin() as connection:
        for number in range(slow):
            add_person(connection, shop.key_ring, f"s{number}", email=f"s{number}@slow.example")
    run_id = shop.plan(shop.start("hello"))
    with mail_server(tmp_path) as server:
        shop.hands = replace(shop.hands, providers={"email": Smtp(server_at(f"smtp://127.0.0.1:{server.port}"))})
        [batch_id] = shop.release()
        send_batch(shop.hands, batch_id)
        went_at_once = Counter(mail["to"].partition("@")[2] for mail in server.taken())
        wait_until(lambda: everybody_has_it(shop, run_id))
        taken = [mail["to"] for mail in server.taken()]
        shop.hands.providers["email"].close()

    assert went_at_once == {"people.example": PEOPLE, "slow.example": burst}
    assert len(taken) == len(set(taken)) == PEOPLE + slow
    left = sorted(row.authorised_at for name, row in shop.rows(run_id).items() if name.startswith("s"))
    for (i, earlier), (j, later) in itertools.combinations(enumerate(left), 2):
        assert j - i + 1 <= per_second * (later - earlier).total_seconds() + burst


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


class Warns(Says):
    """A provider that lets something happen when it is first given something."""

    def __init__(self, home: Path, name: str, happens: Callable[[], object], answer: Receipt | None) -> None:
        super().__init__(home, name, answer)
        self._happens = happens

    def hand_over(self, slice_: Any, moment: Moment, deadline: float) -> list[Receipt]:
        if not self.sizes:
            self._happens()
        return super().hand_over(slice_, moment, deadline)


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


def test_a_lost_commit_counts_no_failure_twice(shop: AtWork, tmp_path: Path) -> None:
    shop.plan(shop.start("hello"))
    with lossy_network(shop.database) as (network, database):
        shop.hands = replace(shop.hands, database=database)
        nobody_there = NotSent("no connection", unreachable=True)
        send_by(shop, Warns(tmp_path, "smtp", lambda: setattr(network, "lose", b"SET circuit"), nobody_there))

    assert network.lost == 1
    assert account(shop, "smtp")["failures"] == 1


def changed_between(shop: AtWork, statement: str, work: Callable[[], object]) -> None:
    """Do `work`, and the statement between its rendering and its authorisation."""
    with shop.database.begin() as connection:
        connection.execute(text("SELECT id FROM contact ORDER BY id FOR NO KEY UPDATE"))
        worker = threading.Thread(target=work)
        worker.start()
        wait_until(lambda: waiting_for_a_lock(shop.database))
        connection.execute(text(statement))
    worker.join()


def waiting_for_a_lock(database: Engine) -> bool:
    with database.connect() as connection:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return connection.scalar(text(waiting)) is not None


def test_what_a_provider_holds_up_past_its_expiry_is_told_so_when_it_expires(shop: AtWork, tmp_path: Path) -> None:
    run_id = shop.plan(shop.start("hello"))
    shop.do("UPDATE message SET expires_at = now() + interval '20 s' + (SELECT clock_offset FROM engine)")
    send_by(shop, Says(tmp_path, "smtp", RetryAfter("429", timedelta(minutes=1))))

    rows = shop.rows(run_id).values()
    assert {row.status for row in rows} == {"pending"}
    assert all(row.due_at == row.expires_at for row in rows)
    shop.move_to(max(row.due_at for row in rows))
    shop.send()
    assert shop.became(run_id) == {"EXPIRED": PEOPLE}


def test_what_waits_for_the_rate_comes_back_at_its_own_moment_and_in_time(shop: AtWork) -> None:
    set_rates(shop.database, email__marketing={"per_second": 0.1, "burst": 1})
    run_id = shop.plan(shop.start("hello"))
    shop.send()

    rows = shop.rows(run_id).values()
    assert shop.became(run_id) == {"sent": 1, "RATE": PEOPLE - 1}
    moments = sorted(row.due_at for row in rows if row.status == "pending")
    gaps = [(later - sooner).total_seconds() for sooner, later in itertools.pairwise(moments)]
    assert all(9.4 < gap < 9.6 for gap in gaps[1:])  # a little faster than the rate, which leaves no hole


def test_no_day_counts_less_than_nothing(database: Engine) -> None:
    with database.begin() as connection:
        assert accounts.authorised_on(connection, "hello@shop.example", date(2026, 1, 1), lock=True) == 0
        accounts.count_on(connection, "hello@shop.example", date(2026, 1, 1), 7)
        accounts.count_on(connection, "hello@shop.example", date(2026, 1, 1), -9)
        assert accounts.authorised_on(connection, "hello@shop.example", date(2026, 1, 1)) == 0


def test_the_parts_of_a_text_are_taken_of_its_account_and_kept_with_the_message(shop: AtWork, tmp_path: Path) -> None:
    words = "A lantern for every window, and a candle for every lantern. " * 5 + "{{ unsubscribe_url }}"
    shop.apply(
        {
            "campaigns/text.yaml": "name: text\nchannel: sms\ntopic: offers\nsegment: everybody\ntemplate: text\n",
            "segments/everybody.yaml": "name: everybody\nmatch: {attribute: country, eq: GB}\n",
            "templates/sms/text/meta.yaml": "class: marketing\ntopic: offers\n",
            "templates/sms/text/body.txt": words,
        }
    )
    set_rates(shop.database, accounts={"sandbox": {"per_second": 0.01, "burst": 100, "reserve": "0%"}})
    with shop.database.begin() as connection:
        for number in range(3):
            phone = f"+44790090000{number}"
            add_person(connection, shop.key_ring, f"t{number}", email=None, phone=phone, granted=(("sms", "offers"),))
    run_id = shop.plan(shop.start("text"))
    shop.send()

    rows = [row for row in shop.rows(run_id).values() if row.status == "sent"]
    assert len(rows) == 3
    assert all(row.units >= 3 for row in rows)
    with shop.database.connect() as connection:
        owed = connection.execute(
            text("SELECT theoretical_arrival_at FROM account WHERE name = 'sandbox'")
        ).scalar_one()
    assert (owed - rows[0].authorised_at).total_seconds() == pytest.approx(100 * sum(row.units for row in rows), abs=5)
