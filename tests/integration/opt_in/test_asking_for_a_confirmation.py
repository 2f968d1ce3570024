"""Asking: one mail, once a day, to whom it may go."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from asking import House, _move
from people import add_person
from sqlalchemy import text

from dispatcher import suppression
from dispatcher.errors import Refused
from dispatcher.tokens import OptInTokens
from dispatcher.verify import verify


def test_a_request_waits_and_one_mail_asks(house: House) -> None:
    asked = house.request()
    house.shop.send()

    assert (asked.state, house.state()) == ("pending", ("pending", False))
    [mail] = house.mails()
    assert mail["subject"] == "Confirm Letters"
    assert mail["message_id"] == str(asked.message_id)
    assert f"/d/{OptInTokens(house.key_ring).make(house.way_in(asked))}" in mail["text"]
    assert "List-Unsubscribe" not in dict(mail["headers"])
    assert house.one("SELECT class || ' ' || status FROM message") == "transactional sent"


def test_a_ledger_with_a_confirmation_in_it_holds(house: House) -> None:
    house.request()
    house.shop.send()

    with house.database.connect() as connection:
        report = verify(connection, house.key_ring, house.shop.home / "sandbox" / "outbox.jsonl")

    assert len(house.mails()) == 1
    assert [result for result in report.results if result.status == "broken"] == []


def test_a_second_request_within_a_day_sends_nothing_and_says_when(house: House) -> None:
    first, again = house.request(), house.request()

    assert first.message_id is not None
    assert again.message_id is None
    assert again.because is not None
    assert again.because.startswith("a confirmation was asked for less than 24 hours ago")
    house.shop.wait(timedelta(hours=24, seconds=-5))
    assert house.request().message_id is None
    house.shop.wait(timedelta(seconds=10))
    assert house.request().message_id is not None


def test_a_storm_of_requests_is_one_mail(house: House) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda _: house.request(), range(40)))

    assert sum(one.message_id is not None for one in asked) == 1
    assert house.one("SELECT count(*) FROM message") == 1
    assert house.one("SELECT count(*) FROM consent_event WHERE action = 'requested'") == 40


def test_two_contacts_with_one_phone_get_one_text_a_day(house: House) -> None:
    with house.database.begin() as connection:
        add_person(connection, house.key_ring, "ben", phone="+447700900001", granted=())

    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda number: house.request(("anna", "ben")[number % 2], "sms"), range(16)))

    assert sum(one.message_id is not None for one in asked) == 1


def test_who_has_confirmed_is_not_asked_again(house: House) -> None:
    house.confirm(house.way_in(house.request()))
    house.shop.wait(timedelta(days=2))

    asked = house.request()

    assert (asked.message_id, asked.because) == (None, "they have confirmed it already")
    assert house.state() == ("granted", True)


def test_without_an_address_or_a_template_there_is_nothing_to_ask_with(house: House) -> None:
    with house.database.begin() as connection:
        add_person(connection, house.key_ring, "nobody", email=None, granted=())
        connection.execute(text("UPDATE template SET current = false WHERE channel = 'sms'"))

    with pytest.raises(Refused, match="has no address for email"):
        house.request("nobody")
    with pytest.raises(Refused, match="add it to templates/"):
        house.request(channel="sms")
    assert house.one("SELECT count(*) FROM consent_event WHERE action = 'requested'") == 0


@pytest.mark.parametrize(("reason", "goes"), [("unsubscribe", True), ("complaint", True), ("hard_bounce", False),
                                              ("invalid", False), ("operator", False)])  # fmt: skip
def test_the_mail_passes_the_persons_own_opt_out_and_no_other(
    house: House, reason: suppression.Reason, goes: bool
) -> None:
    house.withdraw()
    with house.database.begin() as connection:
        suppression.add(connection, house.address(house.anna), reason, source="test")

    house.request()
    house.shop.send()

    assert len(house.mails()) == goes
    assert house.state() == ("withdrawn", False)


def test_a_withdrawal_stops_a_confirmation_that_has_not_left(house: House) -> None:
    house.request()
    house.withdraw()
    house.shop.send()

    assert house.mails() == []
    assert house.one("SELECT status || ' ' || reason FROM message") == "skipped NO_CONSENT"


def test_a_new_address_does_not_get_the_mail_of_the_former(house: House) -> None:
    house.request()
    with house.database.begin() as connection:
        _move(connection, house, "new@people.example")
    house.shop.send()

    assert house.mails() == []
    assert house.one("SELECT reason FROM message") == "RENDER_FAILED"
