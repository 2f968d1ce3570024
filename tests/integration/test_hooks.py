"""The endpoints for providers: signed over raw bytes, stored before they are answered, and uniform to strangers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from feedback_rows import EMAIL, PHONE, add_left, state_of, suppressions
from sqlalchemy import Engine, text
from web_server import Answer, Web, serving

from dispatcher import mailroom
from dispatcher.errors import Refused
from dispatcher.feedback import inbox
from dispatcher.keys import KeyRing
from dispatcher.web.guard import BODY_LIMIT

PUBLIC = "https://shop.example/mail"  # behind a proxy that takes the prefix away
TOKEN = "a-token"
PRIVATE = generate_private_key(SECP256R1())
KEY = base64.b64encode(
    PRIVATE.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
).decode()  # fmt: skip
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def web(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    settings = {"public_url": PUBLIC, "sendgrid_webhook_key": KEY, "twilio_auth_token": TOKEN}
    with serving(database, key_ring, tmp_path / "home", **settings) as served:
        yield served


def tell_sendgrid(web: Web, events: Any, *, at: str = "1700000000", spoil: bytes = b"") -> Answer:
    body = events if isinstance(events, bytes) else json.dumps(events).encode() + b"\r\n"
    signature = base64.b64encode(PRIVATE.sign(at.encode() + body, ECDSA(SHA256()))).decode()
    headers = {
        "X-Twilio-Email-Event-Webhook-Signature": signature,
        "X-Twilio-Email-Event-Webhook-Timestamp": at,
        "Content-Type": "application/json",
    }
    return web.ask("POST", "/hooks/sendgrid", body + spoil, headers)


def tell_twilio(
    web: Web, path: str, fields: dict[str, str], *, host: str = PUBLIC, token: str = TOKEN, **headers: str
) -> Answer:
    text_ = "".join(name + value for name, value in sorted(fields.items()))
    signature = base64.b64encode(hmac.digest(token.encode(), f"{host}{path}{text_}".encode(), "sha1")).decode()
    return web.ask("POST", path, urlencode(fields), {"X-Twilio-Signature": signature, "Content-Type": FORM} | headers)


def sort(database: Engine, key_ring: KeyRing) -> Any:
    return inbox.sort_all(database, key_ring, mailroom.take)


def count(database: Engine, table: str) -> int:
    with database.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def delivered(message_id: UUID, **more: Any) -> dict[str, Any]:
    return {"event": "delivered", "email": EMAIL, "timestamp": 1_700_000_000, "sg_event_id": str(uuid4()),
            "sg_message_id": "ref.1", "dispatcher_message_id": str(message_id)} | more  # fmt: skip


def test_events_are_stored_sealed_then_sorted(database: Engine, key_ring: KeyRing, web: Web) -> None:
    with database.begin() as connection:
        message_id = add_left(connection, key_ring)

    assert tell_sendgrid(web, [delivered(message_id)]).status == 200
    with database.connect() as connection:
        [sealed] = connection.scalars(text("SELECT sealed FROM feedback_inbox")).all()
    assert EMAIL.encode() not in bytes(sealed)
    assert state_of(database, message_id) == ("sent", None)

    assert sort(database, key_ring).moved == 1
    assert state_of(database, message_id) == ("delivered", None)
    assert (count(database, "feedback_inbox"), count(database, "feedback")) == (0, 1)


def test_a_replay_is_taken_and_changes_nothing(database: Engine, key_ring: KeyRing, web: Web) -> None:
    with database.begin() as connection:
        message_id = add_left(connection, key_ring)
    event = delivered(message_id)

    for _ in range(3):
        assert tell_sendgrid(web, [event]).status == 200
    assert sort(database, key_ring).recorded == 1
    assert count(database, "feedback") == 1


def test_a_signed_body_that_is_no_json_is_kept_and_not_asked_for_again(
    database: Engine, key_ring: KeyRing, web: Web
) -> None:
    for body in (b"{ not json", b"", b"\xff\xfe", b'"text"', b"[[]]"):
        assert tell_sendgrid(web, body).status == 200

    tally = sort(database, key_ring)
    assert (tally.recorded, tally.flawed, count(database, "feedback_inbox")) == (5, 5, 0)


def strangers(web: Web) -> list[Answer]:
    status = "/hooks/twilio/status"
    fields = {"MessageSid": "SM1", "MessageStatus": "delivered"}
    return [
        web.ask("POST", "/hooks/sendgrid", b"[]"),
        web.ask("POST", "/hooks/sendgrid", b"[]", {"X-Twilio-Email-Event-Webhook-Signature": "!"}),
        tell_sendgrid(web, [], spoil=b" "),
        web.ask("POST", status, urlencode(fields), {"Content-Type": FORM}),
        tell_twilio(web, status, fields, token="another"),
        tell_twilio(web, status, fields, host="http://127.0.0.1"),
        tell_twilio(web, "/hooks/twilio/inbound", fields, host="https://evil.example",
                    **{"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Host": "evil.example"}),
        web.ask("POST", status + "?bodySHA256=" + hashlib.sha256(b"{}").hexdigest(), b"{}",
                {"Content-Type": "application/json", "X-Twilio-Signature": "AAAA"}),
    ]  # fmt: skip


def test_every_stranger_gets_one_answer_and_nothing_is_stored(database: Engine, web: Web) -> None:
    answers = strangers(web)

    assert {(answer.status, answer.body) for answer in answers} == {(403, answers[0].body)}
    assert count(database, "feedback_inbox") == 0
    assert web.ask("GET", "/hooks/sendgrid").status == 405


def test_without_a_key_nothing_is_taken(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    with serving(database, key_ring, tmp_path / "home", public_url=PUBLIC) as web:
        assert {answer.status for answer in [*strangers(web), tell_sendgrid(web, [])]} == {403}
    assert count(database, "feedback_inbox") == 0


def test_a_key_that_is_none_keeps_the_room_from_starting(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    refused = pytest.raises(Refused, match="DISPATCHER_SENDGRID_WEBHOOK_KEY")
    with refused, serving(database, key_ring, tmp_path / "home", sendgrid_webhook_key="bm8ga2V5"):
        pass


def test_a_large_array_is_taken_and_a_huge_one_is_not(database: Engine, key_ring: KeyRing, web: Web) -> None:
    many = [delivered(uuid4(), padding="x" * 600) for _ in range(1_000)]
    assert len(json.dumps(many)) > 768 * 1024 > BODY_LIMIT

    assert tell_sendgrid(web, many).status == 200
    assert tell_sendgrid(web, b"[" + b" " * 4_200_000 + b"]").status == 413
    assert tell_twilio(web, "/hooks/twilio/status", {"Body": "x" * BODY_LIMIT}).status == 413
    assert sort(database, key_ring).unmatched == 1_000


def test_a_status_callback_is_found_by_our_id_in_its_url(database: Engine, key_ring: KeyRing, web: Web) -> None:
    with database.begin() as connection:
        message_id = add_left(connection, key_ring, channel="sms", phone=PHONE, status="unknown")
    path = f"/hooks/twilio/status?dispatcher_message_id={message_id}"
    fields = {"MessageSid": "SM1", "MessageStatus": "delivered", "To": PHONE, "AccountSid": "AC1"}

    assert tell_twilio(web, path, fields).status == 204
    assert tell_twilio(web, path, fields | {"MessageStatus": "sent"}).status == 204
    assert sort(database, key_ring).recorded == 2
    assert state_of(database, message_id) == ("delivered", None)


def test_a_status_callback_in_json_is_signed_by_its_hash(database: Engine, key_ring: KeyRing, web: Web) -> None:
    with database.begin() as connection:
        message_id = add_left(connection, key_ring, channel="sms", phone=PHONE)
    body = json.dumps({"MessageSid": "SM1", "MessageStatus": "undelivered", "ErrorCode": 30005, "To": PHONE}).encode()
    path = f"/hooks/twilio/status?dispatcher_message_id={message_id}&bodySHA256={hashlib.sha256(body).hexdigest()}"
    signature = base64.b64encode(hmac.digest(TOKEN.encode(), f"{PUBLIC}{path}".encode(), "sha1")).decode()
    headers = {"Content-Type": "application/json", "X-Twilio-Signature": signature}

    assert web.ask("POST", path, body.replace(b"30005", b"30006"), headers).status == 403
    assert web.ask("POST", path, body, headers).status == 204
    sort(database, key_ring)
    assert state_of(database, message_id) == ("bounced", None)
    assert suppressions(database) == [("invalid", "all")]


def test_stop_is_heard_before_the_answer(database: Engine, key_ring: KeyRing, web: Web) -> None:
    answer = tell_twilio(web, "/hooks/twilio/inbound", {"MessageSid": "SM9", "From": PHONE, "Body": "Stop!"})

    assert (answer.status, answer.header("content-type")) == (200, "text/xml; charset=utf-8")
    assert answer.body.endswith(b"<Response/>")
    assert suppressions(database) == [("stop", "all")]
    assert count(database, "feedback_inbox") == 0


def test_what_cannot_be_sorted_waits_and_its_neighbours_are_sorted(
    database: Engine, key_ring: KeyRing, web: Web
) -> None:
    with database.begin() as connection:
        message_id = add_left(connection, key_ring)
        inbox.store(connection, key_ring, "twilio.inbound", b"MessageSid=SM1&From=%2B447700900123&Body=STOP")

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    tell_sendgrid(web, [delivered(message_id)])
    inbox.sort_all(database, key_ring, broken)
    assert state_of(database, message_id) == ("delivered", None)
    with database.begin() as connection:
        assert inbox.waiting(connection) == (1, 1)
        connection.execute(text("UPDATE feedback_inbox SET retry_at = clock_timestamp()"))

    sort(database, key_ring)
    assert suppressions(database) == [("stop", "all")]
