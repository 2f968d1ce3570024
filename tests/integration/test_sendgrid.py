"""A slice that SendGrid refuses as a whole: who is the reason is left out, the others go, and nobody goes twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import pytest
from envelopes import make_mail
from hypothesis import given, settings
from hypothesis import strategies as st
from standins import Call, Say, StandIn, sendgrid_error, stand_in

from dispatcher.providers.http import Http
from dispatcher.providers.protocol import (
    Accepted,
    Envelope,
    Moment,
    NotSent,
    Receipt,
    Rejected,
    RetryAfter,
    Unknown,
    boot_seconds,
)
from dispatcher.providers.sendgrid import SendGrid


@pytest.fixture(scope="module")
def api() -> Iterator[StandIn]:
    with stand_in() as api:
        yield api


@pytest.fixture(scope="module")
def sendgrid(api: StandIn) -> Iterator[SendGrid]:
    provider = SendGrid(Http(), api_key="SG.secret", url=api.url, slice_size=1_000)
    yield provider
    provider.close()


def hand_over(
    sendgrid: SendGrid, api: StandIn, people: Sequence[Envelope], answers: Callable[[Call], Say | None]
) -> list[Receipt]:
    api.calls.clear()
    api.taken.clear()
    api.complaints.clear()
    api.answers = answers
    moment = Moment(datetime.now(UTC), boot_seconds())
    receipts = sendgrid.hand_over(people, moment, moment.boot + 20)
    assert api.complaints == []
    accepted = [str(p.message_id) for p, receipt in zip(people, receipts, strict=True) if isinstance(receipt, Accepted)]
    assert sorted(api.ids()) == sorted(accepted), "accepted, and told so; nobody twice"
    return receipts


def people(count: int) -> list[Envelope]:
    return [make_mail(number) for number in range(count)]


def bad(number: int) -> str:
    return f"p{number}@people.example"


def test_a_whole_slice_is_one_call(sendgrid: SendGrid, api: StandIn) -> None:
    receipts = hand_over(sendgrid, api, people(1_000), lambda _: None)

    assert len(api.calls) == 1
    assert {type(receipt) for receipt in receipts} == {Accepted}


def test_offenders_that_are_named_are_cut_out_and_the_rest_goes(sendgrid: SendGrid, api: StandIn) -> None:
    offenders = {bad(3), bad(17), bad(39)}

    def named(call: Call) -> Say | None:
        places = [place for place, person in enumerate(call.people) if person.to in offenders]
        errors = [(f"personalizations.{place}.to.0.email", "Does not contain a valid address.") for place in places]
        return sendgrid_error(400, *errors[:2]) if errors else None  # not all at once

    receipts = hand_over(sendgrid, api, people(40), named)

    assert len(api.calls) == 3
    for number, receipt in enumerate(receipts):
        if bad(number) in offenders:
            assert isinstance(receipt, Rejected)
            assert (receipt.scope, receipt.suppress) == ("address", "invalid")
        else:
            assert isinstance(receipt, Accepted)


def test_what_is_wrong_with_a_person_s_headers_does_not_suppress_them(sendgrid: SendGrid, api: StandIn) -> None:
    def named(call: Call) -> Say | None:
        return sendgrid_error(400, ("personalizations[0].headers", "bad")) if call.people[0].to == bad(0) else None

    receipts = hand_over(sendgrid, api, people(3), named)

    assert isinstance(receipts[0], Rejected)
    assert (receipts[0].scope, receipts[0].suppress) == ("message", None)
    assert {type(receipt) for receipt in receipts[1:]} == {Accepted}


@settings(max_examples=20)
@given(offenders=st.sets(st.integers(0, 59), max_size=6))
def test_offenders_that_are_not_named_are_found_by_halving(
    sendgrid: SendGrid, api: StandIn, offenders: set[int]
) -> None:
    wrong = {bad(number) for number in offenders}

    def unnamed(call: Call) -> Say | None:
        return sendgrid_error(400, (None, "Bad Request")) if any(p.to in wrong for p in call.people) else None

    receipts = hand_over(sendgrid, api, people(60), unnamed)

    assert {number for number, receipt in enumerate(receipts) if isinstance(receipt, Rejected)} == offenders
    assert all(receipt.suppress is None for receipt in receipts if isinstance(receipt, Rejected))
    assert len(api.calls) <= 1 + 2 * 6 * len(offenders)


def test_many_offenders_among_people_who_are_accepted_are_all_found(sendgrid: SendGrid, api: StandIn) -> None:
    wrong = {bad(number) for number in range(2, 60, 3)}

    def unnamed(call: Call) -> Say | None:
        return sendgrid_error(400, (None, "Bad Request")) if any(p.to in wrong for p in call.people) else None

    receipts = hand_over(sendgrid, api, people(60), unnamed)

    assert {bad(number) for number, receipt in enumerate(receipts) if isinstance(receipt, Rejected)} == wrong
    assert {receipt.scope for receipt in receipts if isinstance(receipt, Rejected)} == {"message"}


def test_what_concerns_all_of_them_is_not_asked_one_by_one(sendgrid: SendGrid, api: StandIn) -> None:
    receipts = hand_over(sendgrid, api, people(250), lambda _: sendgrid_error(400, (None, "Bad Request")))

    assert len(api.calls) < 40
    assert all(isinstance(receipt, Rejected) for receipt in receipts)
    assert sum(isinstance(r, Rejected) and r.scope == "template" for r in receipts) > 200


def test_what_is_wrong_with_the_content_concerns_the_template(sendgrid: SendGrid, api: StandIn) -> None:
    said = sendgrid_error(400, ("content.0.value", "The content value must be a string"))
    receipts = hand_over(sendgrid, api, people(50), lambda _: said)

    assert len(api.calls) == 1
    assert all(isinstance(r, Rejected) and r.scope == "template" for r in receipts)


@pytest.mark.parametrize(
    "said", [sendgrid_error(403, ("from", "not verified")), sendgrid_error(400, ("from.email", "x"))]
)
def test_what_is_wrong_with_the_sender_concerns_the_account(sendgrid: SendGrid, api: StandIn, said: Say) -> None:
    receipts = hand_over(sendgrid, api, people(5), lambda _: said)

    assert all(isinstance(r, Rejected) and r.scope == "account" for r in receipts)


def test_a_request_that_is_too_large_is_halved(sendgrid: SendGrid, api: StandIn) -> None:
    def too_large(call: Call) -> Say | None:
        return Say(413, b"<html>413 Request Entity Too Large</html>") if len(call.people) > 10 else None

    receipts = hand_over(sendgrid, api, people(64), too_large)

    assert {type(receipt) for receipt in receipts} == {Accepted}
    assert len(api.calls) == 15


def test_doubt_about_one_half_is_not_doubt_about_the_other(sendgrid: SendGrid, api: StandIn) -> None:
    def answers(call: Call) -> Say | None:
        if len(call.people) > 10:
            return Say(413)
        return Say(202, accept=True, lose=True) if call.people[0].to == bad(0) else None

    api.answers = answers
    api.taken.clear()
    moment = Moment(datetime.now(UTC), boot_seconds())
    receipts = sendgrid.hand_over(people(20), moment, moment.boot + 20)

    assert [type(receipt) for receipt in receipts] == [Unknown] * 10 + [Accepted] * 10
    assert len(api.ids()) == len(set(api.ids())) == 20


def test_an_index_beyond_the_request_names_nobody(sendgrid: SendGrid, api: StandIn) -> None:
    receipts = hand_over(sendgrid, api, people(1), lambda _: sendgrid_error(400, ("personalizations.7.to", "bad")))

    assert [(type(r), r.suppress) for r in receipts if isinstance(r, Rejected)] == [(Rejected, None)]


def test_half_a_character_concerns_only_its_own_mail(sendgrid: SendGrid, api: StandIn) -> None:
    receipts = hand_over(sendgrid, api, [*people(2), make_mail(5, text="\ud83d")], lambda _: None)

    assert [type(receipt) for receipt in receipts] == [Accepted, Accepted, Rejected]


def test_after_the_deadline_whoever_is_left_was_not_sent(sendgrid: SendGrid, api: StandIn) -> None:
    api.answers = lambda _: sendgrid_error(400, (None, "Bad Request"))
    receipts = sendgrid.hand_over(people(4), Moment(datetime.now(UTC), boot_seconds()), boot_seconds())

    assert {type(receipt) for receipt in receipts} == {NotSent}


def test_a_rest_is_for_everybody_in_the_request(sendgrid: SendGrid, api: StandIn) -> None:
    receipts = hand_over(sendgrid, api, people(3), lambda _: sendgrid_error(429, (None, "too many requests")))

    assert {type(receipt) for receipt in receipts} == {RetryAfter}


def test_nobody_s_address_is_in_what_is_written_down(sendgrid: SendGrid, api: StandIn) -> None:
    said = sendgrid_error(400, ("personalizations.0.to.0.email", "p0@people.example is not valid, nor +44 7700 900001"))
    [receipt] = hand_over(sendgrid, api, people(1), lambda _: said)

    assert isinstance(receipt, Rejected)
    assert "p0@" not in receipt.detail
    assert "7700" not in receipt.detail
