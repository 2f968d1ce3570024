"""What we send is what the providers' own OpenAPI files describe; and what they would not take is caught."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import orjson
import pytest
from envelopes import ACCOUNT_SID, SERVICE_SID, make_mail, make_text
from provider_specs import sendgrid_faults, sendgrid_schema, suppression_faults, twilio_faults, twilio_schema

from dispatcher.providers.http import Answer, Exchange, Http, Request
from dispatcher.providers.protocol import Moment, boot_seconds
from dispatcher.providers.sendgrid import SendGrid
from dispatcher.providers.twilio import Twilio


class Kept(Http):
    """Keeps what would have been posted."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []

    def post(self, requests: Any, deadline: float) -> list[Exchange]:
        self.requests += requests
        return [Answer(202, {}, b"", True, boot_seconds()) for _ in requests]


NOW = datetime(2026, 12, 1, 10, tzinfo=UTC)


@pytest.fixture
def mail() -> Request:
    http = Kept()
    people = [make_mail(number, text=f"Hello {number}") for number in range(3)]
    SendGrid(http, api_key="SG.secret").hand_over(people, Moment(NOW, boot_seconds()), boot_seconds() + 20)
    [request] = http.requests
    return request


@pytest.fixture
def sms() -> Request:
    http = Kept()
    twilio = Twilio(
        http, account_sid=ACCOUNT_SID, auth_token="secret", messaging_service_sid=SERVICE_SID,
        public_url="https://shop.example",
    )  # fmt: skip
    text = make_text(1, closes_at=NOW + timedelta(hours=2))
    twilio.hand_over([text], Moment(NOW, boot_seconds()), boot_seconds() + 20)
    [request] = http.requests
    return request


def test_a_request_to_sendgrid_is_what_its_description_says(mail: Request) -> None:
    assert mail.url == "https://api.sendgrid.com/v3/mail/send"
    assert sendgrid_faults(mail.headers, mail.body) == []


def test_a_request_to_twilio_is_what_its_description_says(sms: Request) -> None:
    assert sms.url == f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json"
    assert twilio_faults(ACCOUNT_SID, sms.headers, sms.body) == []
    form = dict(parse_qsl(sms.body.decode()))
    assert form["StatusCallback"] == (
        f"https://shop.example/hooks/twilio/status?dispatcher_message_id={make_text(1).message_id}"
    )
    assert 7_100 < int(form["ValidityPeriod"]) <= 7_180


def _person(request: Any) -> Any:
    return request["personalizations"][1]


WRONG_MAILS = {
    "a misspelt field": lambda r: r.update(personalisations=r.pop("personalizations")),
    "a misspelt field of a person": lambda r: _person(r).update(substitution={"-a-": "b"}),
    "nobody": lambda r: r.update(personalizations=[]),
    "over a thousand people": lambda r: r.update(personalizations=[_person(r)] * 1_001),
    "over a thousand recipients of one": lambda r: _person(r).update(to=_person(r)["to"] * 1_001),
    "a person without address": lambda r: _person(r).update(to=[]),
    "an address without @": lambda r: _person(r).update(to=[{"email": "nobody"}]),
    "no sender": lambda r: r.pop("from"),
    "no content": lambda r: r.pop("content"),
    "empty content": lambda r: r.update(content=[{"type": "text/plain", "value": ""}]),
    "no subject": lambda r: _person(r).pop("subject"),
    "an empty subject": lambda r: _person(r).update(subject=""),
    "html before text": lambda r: r["content"].reverse(),
    "a number as substitution": lambda r: _person(r).update(substitutions={"-a-": 1}),
    "substitutions too large": lambda r: _person(r).update(substitutions={"-a-": "é" * 5_000}),
    "a number as custom argument": lambda r: _person(r).update(custom_args={"dispatcher_message_id": 1}),
    "an empty object of custom arguments": lambda r: _person(r).update(custom_args={}),
    "a number as header": lambda r: _person(r)["headers"].update({"X-A": 1}),
    "a header that is theirs": lambda r: _person(r)["headers"].update({"reply-to": "a@b.example"}),
    "a header that is theirs, for all": lambda r: r["headers"].update({"DKIM-Signature": "x"}),
    "eleven categories": lambda r: r.update(categories=[str(n) for n in range(11)]),
    "a category twice": lambda r: r.update(categories=["a", "a"]),
    "a switch as text": lambda r: r["tracking_settings"]["open_tracking"].update(enable="false"),
}


@pytest.mark.parametrize("what", WRONG_MAILS)
def test_what_sendgrid_would_not_take_is_caught(mail: Request, what: str) -> None:
    request = orjson.loads(mail.body)
    WRONG_MAILS[what](request)

    assert sendgrid_faults(mail.headers, orjson.dumps(request)) != []


def test_the_description_alone_would_let_a_misspelt_field_pass(mail: Request) -> None:
    request = orjson.loads(mail.body)
    WRONG_MAILS["a misspelt field of a person"](request)

    assert [*sendgrid_schema(tightened=False).iter_errors(request)] == []
    assert [*twilio_schema(tightened=False).iter_errors({"To": "hello", "Text": "x"})] == []


def test_a_request_to_sendgrid_without_its_key_is_caught(mail: Request) -> None:
    assert sendgrid_faults({"Content-Type": "application/json"}, mail.body) == ["authorization: no bearer"]


WRONG_TEXTS: dict[str, dict[str, str | None]] = {
    "nobody": {"To": None},
    "a misspelt field": {"to": "+447700900001"},
    "a misspelt text": {"Text": "hello"},
    "no number": {"To": "hello"},
    "no sender": {"MessagingServiceSid": None},
    "no service's name": {"MessagingServiceSid": "MG1"},
    "no text": {"Body": None},
    "an empty text": {"Body": ""},
    "a text too long": {"Body": "x" * 1_601},
    "a validity of nothing": {"ValidityPeriod": "0"},
    "a validity too long": {"ValidityPeriod": "36001"},
    "a validity that is no number": {"ValidityPeriod": "soon"},
    "a callback that Twilio does not call": {"StatusCallback": "https://my_shop.example/x"},
}


@pytest.mark.parametrize("what", WRONG_TEXTS)
def test_what_twilio_would_not_take_is_caught(sms: Request, what: str) -> None:
    form: dict[str, str | None] = dict(parse_qsl(sms.body.decode()))
    form = copy.copy(form) | WRONG_TEXTS[what]
    body = urlencode({name: value for name, value in form.items() if value is not None}).encode()

    assert twilio_faults(ACCOUNT_SID, sms.headers, body) != []


def test_every_message_has_an_id_of_its_own(mail: Request) -> None:
    people = orjson.loads(mail.body)["personalizations"]

    assert len({UUID(person["custom_args"]["dispatcher_message_id"]) for person in people}) == 3


KEY = {"Authorization": "Bearer SG.secret"}


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/v3/suppression/bounces?limit=501", b""),
        ("GET", "/v3/suppression/bounces?page=2", b""),
        ("GET", "/v3/suppression/unsubscribe", b""),
        ("POST", "/v3/suppression/bounces", b"{}"),
        ("POST", "/v3/asm/suppressions/global", b'{"emails": ["ana@people.example"]}'),
        ("POST", "/v3/asm/suppressions/global", b'{"recipient_emails": "ana@people.example"}'),
        ("POST", "/v3/asm/suppressions/global", b'{"recipient_emails": ["ana"]}'),
        ("DELETE", "/v3/suppression/bounces/ana@people.example", b""),
    ],
)
def test_what_sendgrids_lists_would_not_take_is_caught(method: str, target: str, body: bytes) -> None:
    assert suppression_faults(method, target, KEY, body)
    assert suppression_faults("GET", "/v3/suppression/bounces?limit=500&offset=500", KEY, b"") == []
    assert suppression_faults("GET", "/v3/suppression/bounces", {}, b"") == ["authorization: no bearer"]
