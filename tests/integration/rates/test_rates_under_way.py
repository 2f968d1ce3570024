"""Rates while a shop sends: what a provider says of its own, and what waits for its turn."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from at_work import AtWork
from ledger_rows import wait_until
from letting_go import PEOPLE, Says, account, by_provider, send_by, set_rates
from mail_server import mail_server
from people import add_person
from small_workspace import FILES
from sqlalchemy import text

from dispatcher.providers.protocol import Accepted, Allowance, RetryAfter
from dispatcher.providers.smtp import Smtp
from dispatcher.providers.smtp.connection import server_at
from dispatcher.sending import send_batch


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
