"""What people text to us: STOP stops every SMS but its answer, START takes it back, free words are reviewed."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import pytest
from feedback_rows import PHONE, add_left, state_of, suppressions
from ledger import RULES, make_noon
from people import add_person, say
from small_workspace import write_workspace
from sqlalchemy import Engine, text

from dispatcher import consent, messages, release
from dispatcher.apply import apply
from dispatcher.errors import NotFound, Refused
from dispatcher.feedback.inbox import Mail
from dispatcher.keys import KeyRing
from dispatcher.providers.sandbox import Sandbox
from dispatcher.registration import register
from dispatcher.rendering import Sender
from dispatcher.replies import Reading, reviews, take
from dispatcher.sending import Hands, send_batch
from dispatcher.verify import verify
from dispatcher.workspace import read_workspace

NOTICE = {
    "dispatcher.toml": RULES,
    "templates/sms/notice/meta.yaml": "class: transactional\nurgent: true\n",
    "templates/sms/notice/body.txt": "{{ shop.name }}: your parcel is here.\n",
}


@pytest.fixture
def shop(database: Engine, tmp_path: Path) -> Engine:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", NOTICE)), by="test")
        make_noon(connection)
    return database


def add_texter(shop: Engine, key_ring: KeyRing, external_id: str = "c1", **more: Any) -> int:
    with shop.begin() as connection:
        return add_person(
            connection, key_ring, external_id, **{"phone": PHONE, "granted": (("sms", "offers"),), **more}
        )


def text_us(
    shop: Engine, key_ring: KeyRing, body: str, *, sid: str | None = None, says: str | None = None, phone: str = PHONE
) -> Reading | None:
    fields = {"MessageSid": sid or f"SM{uuid4().hex}", "From": phone, "Body": body}
    if says:
        fields["OptOutType"] = says
    return take(shop, key_ring, Mail("twilio.inbound", urlencode(fields).encode(), "", "", datetime.now(UTC)))


def deliver(shop: Engine, key_ring: KeyRing, home: Path) -> list[dict[str, Any]]:
    """Send everything that is due and return all the sandbox has accepted."""
    registration = register(shop, home, kind="transactional", queues=["sms.transactional"], slots=1)
    folder = home / "sandbox"
    hands = Hands(shop, Sender(key_ring, "https://shop.example"), {"sms": Sandbox(folder, "sms")},
                  registration.worker_id, threading.Event())  # fmt: skip
    release.release(shop)
    with shop.connect() as connection:
        batches = connection.scalars(text("SELECT id FROM batch WHERE state = 'ready' ORDER BY id")).all()
    for batch_id in batches:
        send_batch(hands, batch_id)
    outbox = folder / "outbox.jsonl"
    return [json.loads(line) for line in outbox.read_text().splitlines()] if outbox.exists() else []


def order_notice(shop: Engine, key_ring: KeyRing) -> UUID:
    with shop.begin() as connection:
        wish = messages.Wish("notice", "sms", "c1", {})
        return messages.submit(connection, key_ring, wish, client="shop", idempotency_key=uuid4().hex)


def topics(shop: Engine, contact_id: int) -> dict[str, str]:
    with shop.connect() as connection:
        return {held.topic: held.state for held in consent.state_of(connection, contact_id) if held.channel == "sms"}


def test_stop_stops_every_sms_but_its_one_answer(shop: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    contact_id = add_texter(shop, key_ring)
    before = order_notice(shop, key_ring)

    assert text_us(shop, key_ring, "STOP") is Reading.STOP
    assert text_us(shop, key_ring, "stop!!") is Reading.STOP
    after = order_notice(shop, key_ring)
    sent = deliver(shop, key_ring, tmp_path)

    assert [(mail["to"], mail["text"].strip()) for mail in sent] == [
        (PHONE, "Small Shop: you get no more texts from us. To get them again, text START.")
    ]
    assert state_of(shop, before) == ("skipped", "SUPPRESSED")
    assert state_of(shop, after) == ("skipped", "SUPPRESSED")
    assert topics(shop, contact_id) == {"offers": "withdrawn"}
    assert suppressions(shop) == [("stop", "all")]
    with shop.connect() as connection:
        report = verify(connection, key_ring, tmp_path / "sandbox" / "outbox.jsonl")
    assert [(r.name, r.findings) for r in report.results if r.status == "broken"] == []


def test_where_the_provider_answers_we_do_not(shop: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    add_texter(shop, key_ring)

    for body in ("STOP", "HELP", "START"):
        text_us(shop, key_ring, body, says=body)
    assert deliver(shop, key_ring, tmp_path) == []


def test_help_answers_always_and_in_the_readers_language(shop: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    add_texter(shop, key_ring, locale="fr-FR")
    text_us(shop, key_ring, "STOP", says="STOP")

    assert text_us(shop, key_ring, "aide") is Reading.HELP
    assert text_us(shop, key_ring, "AIDE?") is Reading.HELP
    sent = deliver(shop, key_ring, tmp_path)
    assert [mail["text"].startswith("Small Shop : pour toute aide") for mail in sent] == [True, True]


def test_an_answer_that_comes_too_late_is_not_sent(shop: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    add_texter(shop, key_ring)
    text_us(shop, key_ring, "STOP")
    with shop.begin() as connection:
        connection.execute(text("UPDATE engine SET clock_offset = clock_offset + interval '6 min'"))

    assert deliver(shop, key_ring, tmp_path) == []


def test_the_same_text_told_twice_is_heard_once(shop: Engine, key_ring: KeyRing) -> None:
    add_texter(shop, key_ring)

    assert text_us(shop, key_ring, "HELP", sid="SM1") is Reading.HELP
    assert text_us(shop, key_ring, "HELP", sid="SM1") is None
    with shop.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message")) == 1


def test_start_takes_back_what_stop_took_and_nothing_else(shop: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    contact_id = add_texter(shop, key_ring)
    text_us(shop, key_ring, "STOP")

    assert text_us(shop, key_ring, "Start") is Reading.START
    assert topics(shop, contact_id) == {"offers": "granted"}
    assert suppressions(shop) == []
    assert "you get our texts again" in deliver(shop, key_ring, tmp_path)[-1]["text"]


def test_start_grants_nothing_that_was_never_granted(shop: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    contact_id = add_texter(shop, key_ring, granted=())
    with shop.begin() as connection:
        say(connection, key_ring, contact_id, [("sms", "offers", "withdrawn")])

    text_us(shop, key_ring, "START")
    assert topics(shop, contact_id) == {"offers": "withdrawn"}
    assert deliver(shop, key_ring, tmp_path) == []


def test_everybody_at_a_shared_number_is_stopped(shop: Engine, key_ring: KeyRing) -> None:
    both = [add_texter(shop, key_ring, name) for name in ("c1", "c2")]

    text_us(shop, key_ring, "BAJA")
    assert [topics(shop, one) for one in both] == [{"offers": "withdrawn"}] * 2


def test_an_unknown_number_is_suppressed_before_it_is_ever_imported(
    shop: Engine, key_ring: KeyRing, tmp_path: Path
) -> None:
    assert text_us(shop, key_ring, "STOP", phone="+447700900999") is Reading.STOP

    add_texter(shop, key_ring, phone="+447700900999")
    assert suppressions(shop) == [("stop", "all")]
    notice = order_notice(shop, key_ring)
    deliver(shop, key_ring, tmp_path)
    assert state_of(shop, notice) == ("skipped", "SUPPRESSED")


def test_a_text_from_no_number_is_heard_by_nobody(shop: Engine, key_ring: KeyRing) -> None:
    assert text_us(shop, key_ring, "STOP", phone="SHOP") is None
    assert suppressions(shop) == []


def test_no_after_an_advertisement_asks_to_stop(shop: Engine, key_ring: KeyRing) -> None:
    contact_id = add_texter(shop, key_ring)
    assert text_us(shop, key_ring, "No") is Reading.OTHER
    with shop.begin() as connection:
        add_left(connection, key_ring, contact_id=contact_id, channel="sms", phone=PHONE)

    assert text_us(shop, key_ring, "No") is Reading.ASKS_TO_STOP


def test_free_words_stop_at_once_and_wait_for_a_human(shop: Engine, key_ring: KeyRing) -> None:
    contact_id = add_texter(shop, key_ring)

    assert text_us(shop, key_ring, "please stop texting me") is Reading.ASKS_TO_STOP
    assert suppressions(shop) == [("stop", "all")]
    assert topics(shop, contact_id) == {"offers": "granted"}
    with shop.begin() as connection:
        [waiting] = reviews.list_open(connection, key_ring)
        assert (waiting.contact, waiting.text) == ("c1", "please stop texting me")
        reviews.settle(connection, key_ring, waiting.id, "stop", by="ana")
        assert reviews.list_open(connection, key_ring) == []

    assert topics(shop, contact_id) == {"offers": "withdrawn"}
    assert suppressions(shop) == [("stop", "all")]
    with shop.connect() as connection, pytest.raises(Refused, match="reviewed already"):
        reviews.settle(connection, key_ring, waiting.id, "not_stop", by="ana")
    with shop.connect() as connection, pytest.raises(NotFound, match="review list"):
        reviews.settle(connection, key_ring, 99, "stop", by="ana")


def test_a_wrong_reading_is_corrected_unless_the_person_said_stop_as_well(shop: Engine, key_ring: KeyRing) -> None:
    add_texter(shop, key_ring)
    text_us(shop, key_ring, "I am not interested in the red one, is there a blue one?")
    with shop.begin() as connection:
        [waiting] = reviews.list_open(connection, key_ring)
        reviews.settle(connection, key_ring, waiting.id, "not_stop", by="ana")
    assert suppressions(shop) == []

    text_us(shop, key_ring, "STOP")
    text_us(shop, key_ring, "not interested")
    with shop.begin() as connection:
        [waiting] = reviews.list_open(connection, key_ring)
        reviews.settle(connection, key_ring, waiting.id, "not_stop", by="ana")
    assert suppressions(shop) == [("stop", "all")]


def test_no_request_of_the_shop_reaches_the_run_of_answers(shop: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    """Its template has the name of the answer, and is still another run: STOP stops it."""
    own = {**NOTICE, "templates/sms/answer-stop/meta.yaml": "class: transactional\nurgent: true\n",
           "templates/sms/answer-stop/body.txt": "{{ shop.name }}: bye.\n"}  # fmt: skip
    with shop.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "second", own)), by="test")
    add_texter(shop, key_ring)
    text_us(shop, key_ring, "STOP")
    with shop.begin() as connection:
        wish = messages.Wish("answer-stop", "sms", "c1", {})
        asked = messages.submit(connection, key_ring, wish, client="shop", idempotency_key="k")

    sent = deliver(shop, key_ring, tmp_path)
    assert [mail["text"].strip() for mail in sent] == ["Small Shop: bye."]
    assert state_of(shop, asked) == ("skipped", "SUPPRESSED")
