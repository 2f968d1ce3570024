"""What Twilio's answers mean, how long an SMS stays valid, and the words that end it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest
from envelopes import ACCOUNT_SID, SERVICE_SID, make_text

from dispatcher.content.sms import _WAY_OUT, sms_segments, with_way_out
from dispatcher.providers.http import Answer, Exchange, Http, Request
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
from dispatcher.providers.twilio import Twilio, receipt_of

NOW = datetime(2026, 12, 1, 10, tzinfo=UTC)


class Told(Http):
    """Keeps what is posted, and gives the answers it was told."""

    def __init__(self, answers: Iterator[Exchange] | None = None) -> None:
        super().__init__()
        self.forms: list[dict[str, str]] = []
        self._answers = answers

    def post(self, requests: Any, deadline: float) -> list[Exchange]:
        self.forms += [dict(parse_qsl(request.body.decode(), keep_blank_values=True)) for request in requests]
        return [next(self._answers) if self._answers else answer(201, {"sid": "SM1"}) for _ in requests]


def answer(status: int, body: Any, **headers: str) -> Answer:
    return Answer(status, headers, orjson.dumps(body), True, 5.0)


def twilio(http: Http) -> Twilio:
    return Twilio(
        http, account_sid=ACCOUNT_SID, auth_token="secret", messaging_service_sid=SERVICE_SID,
        public_url="https://shop.example",
    )  # fmt: skip


def sent(*envelopes: Envelope) -> tuple[list[Receipt], list[dict[str, str]]]:
    http = Told()
    return twilio(http).hand_over(envelopes, Moment(NOW, boot_seconds()), boot_seconds() + 20), http.forms


@pytest.mark.parametrize(
    ("code", "status", "scope", "suppress"),
    [
        (21610, 400, "address", "stop"),
        (21211, 400, "address", "invalid"),
        (21614, 400, "address", "invalid"),
        (21635, 400, "address", "invalid"),
        (21408, 403, "address", None),
        (21612, 400, "address", None),
        (21617, 400, "template", None),
        (20003, 401, "account", None),
        (21608, 400, "account", None),
        (21703, 400, "account", None),
        (572005, 400, "account", None),
        (29999, 400, "message", None),
    ],
)
def test_a_refusal_concerns_what_its_code_says(code: int, status: int, scope: str, suppress: str | None) -> None:
    refused = {"code": code, "message": "The To number +447700900001 is wrong", "status": status}
    receipt = receipt_of(answer(status, refused), make_text(1))

    assert receipt == Rejected(f"Twilio refused it: {code}", 5.0, suppress=suppress, scope=scope)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "status", "wait"),
    [
        (20429, 429, timedelta(seconds=5)),
        (21611, 400, timedelta(minutes=10)),
        (63038, 429, timedelta(hours=1)),
        (63017, 429, timedelta(seconds=5)),
        (12345, 429, timedelta(seconds=5)),
    ],
)
def test_too_much_for_now_is_a_rest(code: int, status: int, wait: timedelta) -> None:
    receipt = receipt_of(answer(status, {"code": code}), make_text(1))

    assert receipt == RetryAfter(f"Twilio refused it: {code}", wait)


@pytest.mark.parametrize("code", [20500, 20503, 30500])
def test_whatever_comes_with_a_5xx_is_doubt(code: int) -> None:
    assert isinstance(receipt_of(answer(code // 10 % 1000 or 500, {"code": code}), make_text(1)), Unknown)


def test_an_acceptance_says_what_it_counts_as() -> None:
    text = make_text(1, text="ș" * 71 + " stop")

    assert receipt_of(answer(201, {"sid": "SM7"}), text) == Accepted("SM7", 5.0, units=2)


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"sid": null}', b"\xff"])
def test_an_acceptance_without_a_name_is_one(body: bytes) -> None:
    assert receipt_of(Answer(201, {}, body, True, 5.0), make_text(1)) == Accepted(None, 5.0)


@pytest.mark.parametrize(
    ("closes_in", "least", "most"),
    [
        (None, 36_000, 36_000),
        (timedelta(days=2), 36_000, 36_000),
        (timedelta(minutes=20), 1_170, 1_180),  # as if it took as long as it may to get there
        (timedelta(seconds=24.9), 3, 4),
    ],
)
def test_an_sms_is_never_valid_beyond_the_next_silence(closes_in: timedelta | None, least: int, most: int) -> None:
    [receipt], [form] = sent(make_text(1, closes_at=None if closes_in is None else NOW + closes_in))

    assert isinstance(receipt, Accepted)
    assert least <= int(form["ValidityPeriod"]) <= most


def test_an_sms_whose_time_is_over_is_not_sent() -> None:
    receipts, forms = sent(make_text(1, closes_at=NOW), make_text(2, closes_at=NOW + timedelta(seconds=20.5)))

    assert [type(receipt) for receipt in receipts] == [NotSent, NotSent]
    assert forms == []


def test_receipts_keep_their_order_whatever_is_not_called() -> None:
    receipts, forms = sent(make_text(0), make_text(1, closes_at=NOW), make_text(2), make_text(3, text="x" * 1_601))

    assert [type(receipt) for receipt in receipts] == [Accepted, NotSent, Accepted, Rejected]
    assert [form["To"] for form in forms] == ["+447700900000", "+447700900002"]


def test_half_a_character_is_no_text() -> None:
    assert isinstance(sent(make_text(1, text="stop \ud800"))[0][0], Rejected)


def test_what_would_be_said_to_everybody_is_not_asked_for_everybody() -> None:
    refusals = (answer(429, {"code": 20429}) for _ in range(100))
    http = Told(refusals)
    receipts = twilio(http).hand_over(
        [make_text(n) for n in range(40)], Moment(NOW, boot_seconds()), boot_seconds() + 20
    )

    assert len(http.forms) == 8
    assert all(isinstance(receipt, RetryAfter) for receipt in receipts)
    assert len(receipts) == 40


# --- the words that end it


@pytest.mark.parametrize(
    "text",
    ["Sale! Stop: https://s.example/u/1", "Sale. Reply STOP to end", "Sair: x", "To opt-out, answer", "ARRÊT: x"],
)
def test_a_text_that_says_how_to_end_it_stays_as_it_is(text: str) -> None:
    assert with_way_out(text, "en") == text


@pytest.mark.parametrize(
    ("language", "ending"),
    [("en-GB", "Reply STOP to opt out"), ("de", "Abmelden: STOP antworten"), ("ja", "Reply STOP to opt out")],
)
def test_a_text_that_does_not_say_how_to_end_it_says_so_in_its_language(language: str, ending: str) -> None:
    assert with_way_out("Unstoppable sale https://s.example/u/1", language) == (
        f"Unstoppable sale https://s.example/u/1\n{ending}"
    )


@pytest.mark.parametrize("words", _WAY_OUT.values())
def test_the_words_cost_no_text_twice_its_parts(words: str) -> None:
    assert sms_segments(words) == ("GSM-7", 1)
    assert with_way_out(words, "en") == words


def test_only_marketing_gets_the_words() -> None:
    _, [marketing, order] = sent(make_text(1, text="Sale"), make_text(2, text="Order 7", marketing=False))

    assert marketing["Body"] == "Sale\nReply STOP to opt out"
    assert order["Body"] == "Order 7"


def test_a_request_names_no_secret_in_its_representation() -> None:
    assert "secret" not in repr(Request("u", b"b", {"Authorization": "secret"}))
