"""Confirming: what a link grants, and all that it may no longer grant."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from asking import TOPIC, House, _move, refused
from people import add_person
from sqlalchemy import text
from unsubscribing import everything

from dispatcher import consent, identity, opt_in, suppression
from dispatcher.contacts import hold_contact
from dispatcher.tokens import BadToken


def test_a_click_grants_and_its_evidence_proves_the_mail(house: House) -> None:
    asked = house.request()
    house.shop.send()
    house.confirm(house.way_in(asked))

    assert house.state() == ("granted", True)
    with house.database.connect() as connection:
        event = connection.execute(text("SELECT * FROM consent_event ORDER BY id DESC LIMIT 1")).one()
        message = connection.execute(text("SELECT * FROM message")).one()
        data_key = connection.scalar(text("SELECT data_key FROM contact WHERE id = :id"), {"id": house.anna})
        assert consent.verify_chain(connection) == []
    assert (event.actor, event.opt_in_level, event.source) == ("person", "confirmed_opt_in", "confirmation link")
    proof = event.confirmation
    assert (proof["message"], proof["request"]) == (str(asked.message_id), asked.request_id)
    assert (proof["provider"], proof["provider_ref"]) == ("sandbox", message.provider_ref)
    assert proof["sent_at"] is not None
    assert proof["template_hash"] == event.wording["hash"]
    assert b"192.0.2.9" not in bytes(event.sealed)
    assert house.key_ring.open_data_key(data_key).open(event.sealed) == {"ip": "192.0.2.9", "user_agent": "Firefox"}


def test_a_second_click_changes_nothing(house: House) -> None:
    way_in = house.way_in(house.request())
    house.confirm(way_in)
    before = everything(house.database)

    assert house.confirm(way_in).used
    assert everything(house.database) == before


def test_two_clicks_at_once_are_one_grant(house: House) -> None:
    way_in = house.way_in(house.request())
    start = threading.Barrier(8)

    def click(_: int) -> bool:
        start.wait()
        return house.confirm(way_in).used

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(click, range(8))) == [False] + [True] * 7
    assert house.one("SELECT count(*) FROM consent_event WHERE action = 'granted' AND topic = 'letters'") == 1


def test_a_link_is_good_for_seven_days(house: House) -> None:
    way_in = house.way_in(house.request())
    house.shop.wait(timedelta(days=7, seconds=-5))
    with house.database.connect() as connection:
        assert not opt_in.look(connection, way_in).used
    house.shop.wait(timedelta(seconds=10))

    refused(house, way_in)


def test_a_changed_address_voids_the_link(house: House) -> None:
    way_in = house.way_in(house.request())
    with house.database.begin() as connection:
        _move(connection, house, "new@people.example")

    refused(house, way_in)


def test_a_link_of_nobody_or_of_another_request_opens_nothing(house: House) -> None:
    way_in = house.way_in(house.request())
    with house.database.begin() as connection:
        ben = add_person(connection, house.key_ring, "ben", granted=())

    for wrong in (
        replace(way_in, contact_id=99_999), replace(way_in, request_id=99_999), replace(way_in, topic="offers"),
        replace(way_in, contact_id=ben), replace(way_in, contact_id=ben, address_id=house.address(ben)),
        replace(way_in, request_id=1),  # a grant
    ):  # fmt: skip
        refused(house, wrong)


def test_a_withdrawal_after_the_request_beats_its_link(house: House) -> None:
    way_in = house.way_in(house.request())
    house.withdraw()

    refused(house, way_in)


def test_a_no_said_twice_takes_back_the_request_between(house: House) -> None:
    """The second click finds the topic withdrawn already, and must count all the same."""
    house.withdraw()
    way_in = house.way_in(house.request())
    house.withdraw()

    refused(house, way_in)
    assert house.state() == ("withdrawn", False)


def test_an_earlier_withdrawal_that_arrives_late_does_not_take_the_request_back(house: House) -> None:
    way_in = house.way_in(house.request())
    with house.database.begin() as connection:
        held = hold_contact(connection, house.key_ring, "anna", "email")
        late = consent.ConsentChange(
            house.anna, "email", TOPIC, "withdrawn", "import", "file", held.now - timedelta(days=30), held.address_id
        )
        consent.record(connection, house.key_ring, [late], now=held.now)
    assert house.state()[0] == "withdrawn"

    house.confirm(way_in)

    assert house.state() == ("granted", True)


def test_a_person_comes_back_after_a_withdrawal_by_asking_and_confirming(house: House) -> None:
    house.withdraw()
    house.confirm(house.way_in(house.request()))

    assert house.state() == ("granted", True)


def test_confirming_opens_a_closed_address_for_this_topic_only(house: House) -> None:
    with house.database.begin() as connection:
        suppression.add(connection, house.address(house.anna), "unsubscribe", source="an old link")

    house.confirm(house.way_in(house.request()))

    assert house.one("SELECT count(*) FROM suppression") == 0
    assert house.state() == ("granted", True)
    assert house.state(topic="offers") == ("withdrawn", False)


def test_who_had_confirmed_and_then_complained_can_come_back(house: House) -> None:
    house.confirm(house.way_in(house.request()))
    with house.database.begin() as connection:
        suppression.add(connection, house.address(house.anna), "complaint", source="feedback")
    house.shop.wait(timedelta(days=2))

    asked = house.request()

    assert asked.message_id is not None
    house.confirm(house.way_in(asked))
    assert house.one("SELECT count(*) FROM suppression") == 0
    assert house.state() == ("granted", True)


def test_an_opt_out_of_the_address_after_the_request_beats_its_link(house: House) -> None:
    way_in = house.way_in(house.request())
    with house.database.begin() as connection:
        suppression.add(connection, way_in.address_id, "complaint", source="feedback")

    refused(house, way_in)


def test_a_mail_confirms_no_texts(house: House) -> None:
    by_mail, by_text = house.request(), house.request(channel="sms")
    house.shop.send()
    assert sorted(mail["channel"] for mail in house.mails()) == ["email", "sms"]
    house.confirm(house.way_in(by_mail))

    assert house.state("sms") == ("pending", False)
    house.confirm(house.way_in(by_text, channel="sms"))
    assert house.state("sms") == ("granted", True)


def test_the_link_follows_a_merge(house: House) -> None:
    with house.database.begin() as connection:
        ben = add_person(connection, house.key_ring, "ben", granted=())
    way_in = house.way_in(house.request("ben"), ben)
    with house.database.begin() as connection:  # anna loses her address, so ben's becomes the survivor's
        connection.execute(text("UPDATE contact SET email_address_id = NULL WHERE id = :id"), {"id": house.anna})
        identity.merge(connection, house.key_ring, house.anna, ben)

    assert house.confirm(way_in).contact_id == house.anna
    assert house.state() == ("granted", True)
    assert house.confirm(way_in).used


@pytest.mark.parametrize("first", ["confirm", "withdraw"])
def test_of_a_click_and_an_unsubscribe_the_no_holds_in_either_order(house: House, first: str) -> None:
    """Both wait for the same lock; whoever gets it first, the end is the same."""
    way_in = house.way_in(house.request())
    if first == "confirm":
        house.confirm(way_in)
        house.withdraw()
    else:
        house.withdraw()
        refused(house, way_in)
    assert house.state() == ("withdrawn", False)


def test_a_click_racing_an_unsubscribe_never_outlives_it(house: House) -> None:
    way_in = house.way_in(house.request())
    start = threading.Barrier(2)

    def click() -> None:
        start.wait()
        with suppress(BadToken):
            house.confirm(way_in)

    def leave() -> None:
        start.wait()
        house.withdraw()

    threads = [threading.Thread(target=work) for work in (click, leave)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert house.state() == ("withdrawn", False)
