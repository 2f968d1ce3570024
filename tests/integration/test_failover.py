"""Two real servers, SendGrid's stand-in and a mail server: who carries what when the first breaks and comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from at_work import AtWork, campaign, noon_ahead
from fault_proxy import FaultProxy, fault_proxy
from mail_server import Running, mail_server
from people import add_person
from sqlalchemy import Engine, text
from standins import Say, StandIn, sendgrid_error, stand_in

from dispatcher import messages
from dispatcher.keys import KeyRing
from dispatcher.providers.http import Http
from dispatcher.providers.sendgrid import SendGrid
from dispatcher.providers.smtp import Smtp
from dispatcher.providers.smtp.connection import server_at
from dispatcher.rates import accounts, overview
from dispatcher.rates.rules import Rates
from dispatcher.sending import send_batch

PEOPLE = 9


@dataclass
class Both:
    """A shop that sends by SendGrid, behind a network that can break, and by SMTP when that is not there."""

    shop: AtWork
    sendgrid: StandIn
    network: FaultProxy
    smtp: Running

    def send(self) -> None:
        self.shop.do("UPDATE message SET due_at = first_due_at WHERE status = 'pending'")
        for batch_id in self.shop.release():
            send_batch(self.shop.hands, batch_id)

    def carried(self) -> dict[tuple[str, str | None], int]:
        with self.shop.database.connect() as connection:
            rows = connection.execute(text("SELECT status, provider, count(*) FROM message GROUP BY 1, 2"))
            return {(row[0], row[1]): row[2] for row in rows}

    def rates(self) -> dict[str, Any]:
        with self.shop.database.connect() as connection:
            return overview.read(connection)

    def wait_is_over(self) -> None:
        self.shop.do("UPDATE account SET open_until = clock_timestamp() + (SELECT clock_offset FROM engine)")

    def check_nobody_twice(self) -> None:
        by_smtp = [mail["to"] for mail in self.smtp.taken()]
        everybody = [one.to for one in self.sendgrid.taken] + by_smtp
        assert len(everybody) == len(set(everybody))


@pytest.fixture
def both(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Both]:
    shop = AtWork(database, key_ring, tmp_path, {}, starts=noon_ahead())
    with database.begin() as connection:
        for number in range(PEOPLE):
            add_person(connection, key_ring, f"p{number:02}")
    with stand_in() as sendgrid, fault_proxy(sendgrid.url) as network, mail_server(tmp_path) as smtp:
        first = SendGrid(Http(answer_seconds=5), api_key="SG.secret", url=network.url)
        second = Smtp(server_at(f"smtp://127.0.0.1:{smtp.port}"))
        shop.hands = replace(shop.hands, providers={"email": first}, failovers={"email": second})
        yield Both(shop, sendgrid, network, smtp)
        first.close()
        second.close()


def test_a_key_that_is_refused_hands_over_to_the_second_until_a_probe_gets_through(both: Both) -> None:
    both.sendgrid.answers = lambda _: sendgrid_error(401, (None, "authorization required"))
    both.shop.plan(both.shop.start("hello"))
    both.send()
    assert both.carried() == {("pending", None): PEOPLE}
    both.send()
    assert both.carried() == {("sent", "smtp"): PEOPLE}
    assert len(both.smtp.taken()) == PEOPLE

    both.sendgrid.answers = lambda _: None
    both.wait_is_over()
    both.shop.apply(campaign("second"))
    both.shop.do("UPDATE message SET authorised_at = authorised_at - interval '2 days'")  # no cap stands in the way
    both.shop.plan(both.shop.start("second"))
    both.send()
    assert [len(call.people) for call in both.sendgrid.calls] == [PEOPLE, 1, PEOPLE - 1]
    assert both.carried() == {("sent", "smtp"): PEOPLE, ("sent", "sendgrid"): PEOPLE}


def test_a_mail_that_has_left_by_the_second_has_not_left_by_the_first(both: Both) -> None:
    both.sendgrid.answers = lambda _: sendgrid_error(401, (None, "authorization required"))
    both.shop.plan(both.shop.start("hello"))
    both.send()
    both.send()
    both.sendgrid.answers = lambda _: None
    both.wait_is_over()
    both.send()
    assert both.carried() == {("sent", "smtp"): PEOPLE}
    both.check_nobody_twice()


def test_the_rate_headers_of_an_answer_slow_its_account_down(both: Both) -> None:
    with both.shop.database.begin() as connection:
        accounts.set_rates(connection, Rates.model_validate({"accounts": {"sendgrid": "1000/s"}}))
    headers = {"X-Message-Id": "r", "X-RateLimit-Remaining": "20", "X-RateLimit-Reset": f"{time.time() + 10:.0f}"}
    both.sendgrid.answers = lambda _: Say(202, headers=headers, accept=True)
    both.shop.plan(both.shop.start("hello"))
    both.send()

    assert both.carried() == {("sent", "sendgrid"): PEOPLE}
    [account] = both.rates()["accounts"]
    assert account["rate"] == 1000
    assert 17 < account["in_force"] < 400  # 20 requests of 9 mails in 10 s, and climbing by 10 a second since


def test_a_long_not_now_is_the_accounts_and_all_its_lanes_go_by_the_second(both: Both) -> None:
    both.sendgrid.answers = lambda _: Say(429, b"{}", headers={"Retry-After": "3600"})
    both.shop.plan(both.shop.start("hello"))
    both.send()
    assert both.carried() == {("pending", None): PEOPLE}
    with both.shop.database.begin() as connection:
        wish = messages.Wish("order", "email", "p01", {})
        messages.submit(connection, both.shop.key_ring, wish, client="shop", idempotency_key="order-1")
    both.send()

    assert both.carried() == {("sent", "smtp"): PEOPLE + 1}
    assert len(both.sendgrid.calls) == 1
    [account] = [one for one in both.rates()["accounts"] if one["name"] == "sendgrid"]
    assert (account["circuit"], account["because"]) == ("open", "SendGrid has had enough (429)")


def test_a_short_not_now_is_waited_out_and_nothing_goes_by_the_second(both: Both) -> None:
    both.sendgrid.answers = lambda _: Say(429, b"{}", headers={"Retry-After": "60"})
    both.shop.plan(both.shop.start("hello"))
    both.send()
    both.send()

    assert both.carried() == {("pending", None): PEOPLE}
    assert both.smtp.taken() == []
    assert len(both.sendgrid.calls) == 1
    assert {account["circuit"] for account in both.rates()["accounts"]} == {"closed"}


def test_a_probe_that_is_told_to_wait_holds_up_nothing_that_goes_by_the_second(both: Both) -> None:
    both.sendgrid.answers = lambda _: Say(429, b"{}", headers={"Retry-After": "30"})
    both.shop.do("INSERT INTO account (name, circuit, open_until) VALUES ('sendgrid', 'open', clock_timestamp())")
    both.shop.plan(both.shop.start("hello"))
    both.send()
    assert both.carried() == {("pending", None): 1, ("sent", "smtp"): PEOPLE - 1}
    both.send()

    assert both.carried() == {("sent", "smtp"): PEOPLE}
    assert [len(call.people) for call in both.sendgrid.calls] == [1]
    both.check_nobody_twice()


def test_what_may_have_left_is_never_tried_by_the_second_and_the_others_are(both: Both) -> None:
    both.network.fault = "reset after the last byte"
    first_run = both.shop.plan(both.shop.start("hello"))
    both.send()
    assert both.carried() == {("unknown", "sendgrid"): PEOPLE}
    assert len(both.sendgrid.taken) == PEOPLE  # it had them

    both.shop.do("UPDATE account SET circuit = 'open', open_until = clock_timestamp() + interval '90 days'")
    both.send()
    assert both.carried() == {("unknown", "sendgrid"): PEOPLE}
    assert both.smtp.taken() == []
    assert both.shop.became(first_run) == {"unknown": PEOPLE}
    both.check_nobody_twice()


def test_three_requests_that_get_nowhere_are_enough_and_no_mail_is_lost_or_doubled(both: Both) -> None:
    both.sendgrid.answers = lambda _: Say(503, b"<html>busy</html>")
    both.shop.hands.providers["email"].slice_size = 2
    both.shop.plan(both.shop.start("hello"))
    both.send()

    assert both.carried() == {("unknown", "sendgrid"): 6, ("sent", "smtp"): PEOPLE - 6}
    assert len(both.sendgrid.calls) == 3
    both.check_nobody_twice()
