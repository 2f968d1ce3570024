"""What SendGrid and Twilio show of a message in doubt: beyond doubt, or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from envelopes import ACCOUNT_SID, SERVICE_SID, make_mail, make_text
from standins import Call, Say, StandIn, stand_in

from dispatcher.doubt import Doubtful
from dispatcher.providers.http import Http
from dispatcher.providers.protocol import Envelope, Moment, Unknown, boot_seconds
from dispatcher.providers.sendgrid import SendGrid
from dispatcher.providers.twilio import Twilio


@pytest.fixture
def api() -> Iterator[StandIn]:
    with stand_in() as api:
        yield api
        assert api.complaints == api.records.complaints == []


@pytest.fixture
def sendgrid(api: StandIn) -> Iterator[SendGrid]:
    provider = SendGrid(Http(), api_key="SG.secret", url=api.url, reads_activity=True)
    yield provider
    provider.close()


@pytest.fixture
def twilio(api: StandIn) -> Iterator[Twilio]:
    provider = Twilio(
        Http(), account_sid=ACCOUNT_SID, auth_token="secret", messaging_service_sid=SERVICE_SID,
        public_url="https://shop.example", url=api.url,
    )  # fmt: skip
    yield provider
    provider.close()


def lose_every_reply(api: StandIn) -> None:
    def lost(call: Call) -> Say:
        return Say(0, accept=True, lose=True)

    api.answers = lost


def left(provider: SendGrid | Twilio, envelopes: Sequence[Envelope]) -> list[Doubtful]:
    """Hand over, and return what is in doubt now: everything."""
    moment = Moment(datetime.now(UTC), boot_seconds())
    receipts = provider.hand_over(envelopes, moment, moment.boot + 20)
    assert {type(receipt) for receipt in receipts} == {Unknown}
    return [in_doubt(envelope, moment.at) for envelope in envelopes]


def in_doubt(envelope: Envelope, since: datetime | None = None) -> Doubtful:
    address = int(envelope.to[-5:]) if envelope.to[-5:].isdecimal() else hash(envelope.to)
    return Doubtful(envelope.message_id, address, since or datetime.now(UTC), lambda: envelope)


def seen(provider: SendGrid | Twilio, doubtful: Sequence[Doubtful]) -> dict[UUID, str | None]:
    return {one.message_id: one.ref for one in provider.look_up(doubtful)}


def test_sendgrids_activity_shows_what_it_took_by_our_own_id(api: StandIn, sendgrid: SendGrid) -> None:
    lose_every_reply(api)
    [taken] = left(sendgrid, [make_mail(1)])
    never = in_doubt(make_mail(2))

    assert seen(sendgrid, [taken, never]) == {taken.message_id: str(taken.message_id)}


def test_a_record_of_sendgrids_without_our_id_in_it_shows_nothing(api: StandIn, sendgrid: SendGrid) -> None:
    lose_every_reply(api)
    doubtful = left(sendgrid, [make_mail(1)])
    api.records.change = lambda record: {**record, "unique_args": json.dumps({"dispatcher_message_id": "another"})}

    assert seen(sendgrid, doubtful) == {}


def test_sendgrid_is_not_asked_unless_its_activity_was_bought(api: StandIn) -> None:
    provider = SendGrid(Http(), api_key="SG.secret", url=api.url)

    assert provider.look_up([in_doubt(make_mail(1))]) == []
    assert api.records.asked == []
    provider.close()


def test_twilios_list_shows_a_text_whose_number_service_words_and_time_agree(api: StandIn, twilio: Twilio) -> None:
    lose_every_reply(api)
    [taken, other] = left(twilio, [make_text(1), make_text(2)])
    never = in_doubt(make_text(3))

    assert seen(twilio, [taken, other, never]) == {
        one.message_id: f"SM{str(one.message_id).replace('-', '')}" for one in (taken, other)
    }


@pytest.mark.parametrize(
    "otherwise",
    [
        {"body": ""},  # redacted
        {"body": "Small Shop: hello"},
        {"messaging_service_sid": "MG" + "f" * 32},
        {"direction": "outbound-reply"},
        {"date_created": "Tue, 01 Dec 2020 10:00:00 +0000"},
        {"date_created": "soon"},
    ],
    ids=str,
)
def test_a_record_of_twilios_that_differs_in_anything_shows_nothing(
    api: StandIn, twilio: Twilio, otherwise: dict[str, str | None]
) -> None:
    lose_every_reply(api)
    doubtful = left(twilio, [make_text(1)])
    api.records.change = lambda record: {**record, **otherwise}

    assert seen(twilio, doubtful) == {}


def test_two_messages_that_would_look_the_same_stay_in_doubt(api: StandIn, twilio: Twilio) -> None:
    lose_every_reply(api)
    first = make_text(1)
    [taken] = left(twilio, [first])
    twin = Doubtful(UUID(int=7), taken.address_id, taken.since + timedelta(seconds=5), lambda: first)

    assert seen(twilio, [taken, twin]) == {}


def test_two_records_that_look_the_same_show_nothing(api: StandIn, twilio: Twilio) -> None:
    lose_every_reply(api)
    doubtful = left(twilio, [make_text(1)])
    api.taken *= 2

    assert seen(twilio, doubtful) == {}


def test_a_message_that_cannot_be_rendered_again_is_not_looked_up(api: StandIn, twilio: Twilio) -> None:
    assert twilio.look_up([Doubtful(UUID(int=7), 1, datetime.now(UTC), lambda: None)]) == []
    assert api.records.asked == []


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_whoever_may_not_look_asks_no_more_for_a_while(
    api: StandIn, sendgrid: SendGrid, twilio: Twilio, status: int
) -> None:
    api.records.answers = lambda _target: Say(status, b'{"errors": []}', headers={"Retry-After": "60"})
    doubtful = [in_doubt(make_mail(number)) for number in range(6)]
    texts = [in_doubt(make_text(number)) for number in range(6)]

    for _ in range(3):
        assert sendgrid.look_up(doubtful) == []
        assert twilio.look_up(texts) == []

    mails, messages = ([t for t in api.records.asked if t.startswith(begin)] for begin in ("/v3/", "/2010"))
    assert len(mails) == 1
    assert len(messages) == 1


def test_each_is_asked_about_again_only_after_a_while_and_all_get_their_turn(api: StandIn, sendgrid: SendGrid) -> None:
    doubtful = [in_doubt(make_mail(number)) for number in range(5)]

    for _ in range(10):
        sendgrid.look_up(doubtful)

    assert len(api.records.asked) == 5
    assert len(set(api.records.asked)) == 5
