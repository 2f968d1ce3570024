"""A whole house that is told what became of its mails, late, twice and out of order, while it goes on sending."""

from __future__ import annotations

import base64
import hmac
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from house import ROOMY_CAPS, Live, eventually, live_shop, own_servers, write_people
from sqlalchemy.engine import URL

pytestmark = pytest.mark.thorough

PEOPLE = 400
TOKEN = "a-token"
PRIVATE = generate_private_key(SECP256R1())
PUBLIC = base64.b64encode(PRIVATE.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
NOTICE = {
    "templates/sms/notice/meta.yaml": "class: transactional\nurgent: true\n",
    "templates/sms/notice/body.txt": "{{ shop.name }}: your parcel is here.\n",
}


@pytest.fixture
def live(servers: tuple[str, str], template_database: URL, tmp_path: Path) -> Iterator[Live]:
    people = write_people(tmp_path / "people.csv", PEOPLE)
    with (
        own_servers(servers, template_database) as own,
        live_shop(tmp_path / "home", servers=own, workspace={**ROOMY_CAPS, **NOTICE}, people=people,
                  providers={"sendgrid_webhook_key": PUBLIC, "twilio_auth_token": TOKEN}) as live,
    ):  # fmt: skip
        yield live


def tell_sendgrid(live: Live, events: list[dict[str, Any]]) -> int:
    body, at = json.dumps(events).encode(), "1700000000"
    signature = base64.b64encode(PRIVATE.sign(at.encode() + body, ECDSA(SHA256()))).decode()
    headers = {"X-Twilio-Email-Event-Webhook-Signature": signature, "X-Twilio-Email-Event-Webhook-Timestamp": at,
               "Content-Type": "application/json"}  # fmt: skip
    return live.http(f"{live.url}/hooks/sendgrid", body, headers)[0]


def text_us(live: Live, phone: str, body: str) -> int:
    url, fields = f"{live.url}/hooks/twilio/inbound", {"MessageSid": f"SM{body}", "From": phone, "Body": body}
    signed = url + "".join(name + value for name, value in sorted(fields.items()))
    signature = base64.b64encode(hmac.digest(TOKEN.encode(), signed.encode(), "sha1")).decode()
    headers = {"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded"}
    return live.http(url, urlencode(fields).encode(), headers)[0]


def events_of(mails: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a provider tells of these mails: every eightieth bounces hard, the others are delivered."""
    events = []
    for number, mail in enumerate(mails):
        told: list[dict[str, Any]] = [{"event": "processed"}, {"event": "open"}]
        told.append(
            {"event": "bounce", "type": "bounce", "status": "5.1.1"} if number % 80 == 3 else {"event": "delivered"}
        )
        for one in told:
            events.append(one | {"email": mail["to"], "dispatcher_message_id": mail["message_id"],
                                 "timestamp": 1_700_000_000, "sg_event_id": f"{one['event']}-{mail['message_id']}",
                                 "sg_message_id": "x.1"})  # fmt: skip
    return events


def test_a_house_that_is_told_everything_twice_and_out_of_order_ends_right(live: Live) -> None:
    first = live.start("hello")
    eventually(lambda: len(live.outbox(first)) >= 100)
    chance = random.Random(5)
    told = 0
    while True:  # feedback comes in while the run is under way
        mails = live.outbox(first)
        events = events_of(mails)
        chance.shuffle(events)
        for start in range(0, len(events), 150):
            assert tell_sendgrid(live, events[start : start + 150]) == 200
        told += 1
        if len(mails) == live.agreed() and told > 1:
            break
    live.finish(first)
    eventually(lambda: not live.one("SELECT count(*) FROM feedback_inbox"), saying="everything sorted")

    bounced = len(range(3, live.agreed(), 80))
    assert live.statuses(first)["bounced"] == bounced
    assert live.statuses(first)["delivered"] == live.agreed() - bounced
    assert live.one("SELECT count(*) FROM feedback") == 3 * live.agreed()
    assert live.one("SELECT count(*) FROM suppression WHERE reason = 'hard_bounce'") == bounced

    second = live.start("hello")
    live.finish(second)
    assert live.one("SELECT count(*) FROM message WHERE run_id = :run AND reason = 'SUPPRESSED'", run=second) == bounced
    live.check_invariants()


def test_stop_is_answered_once_by_the_hands(live: Live) -> None:
    phone = "+447700900000"
    assert text_us(live, phone, "STOP") == 200
    assert live.one("SELECT count(*) FROM suppression WHERE reason = 'stop'") == 1

    assert text_us(live, phone, "stop") == 200
    assert text_us(live, phone, "HELP") == 200
    eventually(lambda: len([mail for mail in live.outbox() if mail["to"] == phone]) == 2)
    texts = sorted(mail["text"] for mail in live.outbox() if mail["to"] == phone)
    assert "no more texts from us" in texts[1]
    assert "for help" in texts[0]
    live.check_invariants()
