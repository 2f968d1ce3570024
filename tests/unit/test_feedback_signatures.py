"""Signatures: the published vectors, what must fail, and whatever a forger may try."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import Refused
from dispatcher.feedback.signatures import sendgrid_signed, twilio_signed

FORM = "application/x-www-form-urlencoded"
KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6w"
    "EA3F+g=="
)


def vectors(shared: Path, name: str) -> Any:
    return json.loads((shared / "data/webhooks/signature-vectors" / name).read_text(encoding="utf-8"))


def form(params: list[list[str]]) -> bytes:
    return urlencode([(name, value) for name, value in params]).encode()


def test_sendgrids_vector_holds_and_every_change_of_it_fails(shared: Path) -> None:
    vector = vectors(shared, "sendgrid_event_webhook.json")
    right = {
        "key": vector["public_key"],
        "signature": vector["headers"]["X-Twilio-Email-Event-Webhook-Signature"],
        "timestamp": vector["headers"]["X-Twilio-Email-Event-Webhook-Timestamp"],
        "body": vector["body"],
    }

    def holds(**changes: str) -> bool:
        values = right | changes
        return sendgrid_signed(values["key"], values["signature"], values["timestamp"], values["body"].encode())

    assert holds()
    assert len(vector["must_fail"]) == 4
    for case in vector["must_fail"]:
        changes = {("key" if name == "public_key" else name): value for name, value in case.items() if name != "why"}
        assert not holds(**changes), case["why"]
    assert not holds(body=vector["body"].rstrip())  # the last CRLF is signed, too


@given(st.text(max_size=40), st.text(max_size=20), st.binary(max_size=60))
def test_whatever_is_sent_as_a_signature_is_refused_and_never_breaks(signature: str, text: str, body: bytes) -> None:
    assert not sendgrid_signed(KEY, signature, text, body)
    assert not twilio_signed("token", signature, "https://shop.example/hooks/twilio/status", text, body)
    assert not twilio_signed("token", signature, "https://shop.example/hooks/twilio/status", FORM, body)


@pytest.mark.parametrize(
    "key", ["", "no base64 !", "QUJD", "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="]
)
def test_a_key_that_is_none_is_named_as_the_setting(key: str) -> None:
    with pytest.raises(Refused, match="DISPATCHER_SENDGRID_WEBHOOK_KEY"):
        sendgrid_signed(key, "AAAA", "1", b"[]")


def test_twilios_vectors_hold(shared: Path) -> None:
    vector = vectors(shared, "twilio_request.json")
    token = vector["auth_token"]

    assert len(vector["form_cases"]) == 9
    for case in vector["form_cases"]:
        signed = twilio_signed(token, case["signature"], case["url"], FORM, form(case["params"]))
        assert signed == case["valid"], case["case"]
    for case in vector["json_body_cases"]:
        signed = twilio_signed(token, case["signature"], case["url"], "application/json", case["body"].encode())
        assert signed == case["valid"], case["case"]


def test_a_json_body_cannot_be_swapped_under_a_replayed_url(shared: Path) -> None:
    case = vectors(shared, "twilio_request.json")["json_body_cases"][0]

    for content_type in ("application/json", "application/json; charset=utf-8", "Application/JSON"):
        assert twilio_signed("12345", case["signature"], case["url"], content_type, case["body"].encode())
        assert not twilio_signed("12345", case["signature"], case["url"], content_type, b'{"property": "forged"}')
        assert not twilio_signed("12345", case["signature"], case["url"], content_type, b"")


def test_a_composed_form_is_right_for_its_own_url_only(shared: Path) -> None:
    composed = json.loads((shared / "data/webhooks/twilio-forms-composed.json").read_text(encoding="utf-8"))
    token = composed["auth_token"]

    for case in composed["forms"]:
        url = composed[f"{case['kind']}_url"]
        body = form(case["params"])
        assert twilio_signed(token, case["signature"], url, FORM, body), case["case"]
        assert twilio_signed(token, case["signature"], url.replace(".example", ".example:443"), FORM, body)
        assert not twilio_signed(token, case["signature"], url.replace("shop", "evil"), FORM, body)
        assert not twilio_signed(token, case["signature"], url, FORM, body + b"&MessageStatus=read")
        assert not twilio_signed("54321", case["signature"], url, FORM, body)
