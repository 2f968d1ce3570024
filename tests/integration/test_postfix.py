"""Mail through postfix and its smtp-sink, where they are installed: nobody twice, nobody lost, every line as it was."""

from __future__ import annotations

import email
import email.policy
import re
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from envelopes import SHOP, make_mail
from feedback_rows import add_left, state_of, suppressions
from house import ROOMY_CAPS, eventually, free_port, live_shop, own_servers, write_people
from mail_server import mail_server
from postfix import postfix, smtp_sink
from sqlalchemy import Engine, text
from sqlalchemy.engine import URL

from dispatcher.imports.bounces import import_bounces
from dispatcher.keys import KeyRing
from dispatcher.mail import MESSAGE_ID_HEADER, headers_for
from dispatcher.providers.protocol import Accepted, Envelope, Moment, boot_seconds
from dispatcher.providers.smtp import Smtp
from dispatcher.providers.smtp.connection import server_at

pytestmark = pytest.mark.thorough

_OUR_ID = re.compile(rf"^{MESSAGE_ID_HEADER}: (\S+)\r?$".encode(), re.MULTILINE)
AWKWARD = "A line.\n.\n..two dots\n.\n\nFrom the start\n" + "long " * 150 + "\nTschüß, ană, 👋\n"


def hand_over(port: int, people: list[Envelope]) -> None:
    provider = Smtp(server_at(f"smtp://127.0.0.1:{port}"))
    moment = Moment(datetime.now(UTC), boot_seconds())
    try:
        receipts = provider.hand_over(people, moment, moment.boot + 20)
    finally:
        provider.close()
    assert {type(receipt) for receipt in receipts} == {Accepted}


def check_as_written(raw: bytes, envelope: Envelope) -> None:
    """Check that the other side has what was meant, and the headers that must not be folded on one line."""
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    texts = {part.get_content_type(): part.get_content() for part in mail.walk() if not part.is_multipart()}
    assert texts["text/plain"].replace("\r\n", "\n").rstrip("\n") == envelope.content.text.rstrip("\n")
    assert texts["text/html"].replace("\r\n", "\n").rstrip("\n") == (envelope.content.html or "").rstrip("\n")
    assert mail["Subject"] == envelope.content.subject
    for name, value in envelope.headers:
        if name.startswith("List-"):
            assert raw.replace(b"\r\n", b"\n").count(f"\n{name}: {value}\n".encode()) == 1


def test_smtp_sink_takes_every_mail_once_and_as_it_was_meant() -> None:
    people = [make_mail(number, text=f"{number}\n{AWKWARD}") for number in range(200)]
    with smtp_sink(free_port()) as sink:
        hand_over(sink.port, people)
        eventually(lambda: len(sink.taken()) == 200)
        by_id = {_OUR_ID.findall(raw)[0].decode(): raw for raw in sink.taken()}

    assert len(by_id) == 200
    for person in people:
        raw = by_id[str(person.message_id)]
        assert f"X-Rcpt-Args: <{person.to}>".encode() in raw
        check_as_written(raw, person)


@pytest.mark.parametrize("arguments", [(), ("-e",)], ids=["as it is", "without ESMTP"])
def test_a_run_through_smtp_sink_reaches_everybody_once(
    servers: tuple[str, str], template_database: URL, tmp_path: Path, arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    people = write_people(tmp_path / "people.csv", 1_000)
    with smtp_sink(free_port(), *arguments) as sink, own_servers(servers, template_database) as own:
        providers = {"email_provider": "smtp", "smtp_url": f"smtp://127.0.0.1:{sink.port}",
                     "public_url": "https://shop.example"}  # fmt: skip
        with live_shop(
            tmp_path / "home", servers=own, workspace=ROOMY_CAPS, people=people, providers=providers
        ) as live:
            began = time.monotonic()
            run_id = live.start("hello")
            live.finish(run_id)
            seconds = time.monotonic() - began
            eventually(lambda: len(sink.taken()) == live.agreed())
            taken = Counter(_OUR_ID.findall(raw)[0].decode() for raw in sink.taken())
            sent = live.rows("SELECT id FROM message WHERE run_id = :run AND status = 'sent'", run=run_id)
    assert taken == Counter(str(row.id) for row in sent)
    with capsys.disabled():
        print(f"\nsmtp-sink {arguments}: {len(taken)} mails in {seconds:.1f} s")


def test_postfix_delivers_what_was_meant_and_its_own_bounce_ends_the_address(
    database: Engine, key_ring: KeyRing, tmp_path: Path
) -> None:
    there = make_mail(1, text=AWKWARD)
    with database.begin() as connection:
        message_id = add_left(connection, key_ring, status="sent", email="rcpt-550-5.1.1@far.example")
        connection.execute(text("UPDATE message SET provider = 'smtp'"))
    headers = headers_for(message_id=message_id, shop=SHOP, class_="marketing", campaign="hello", topic="offers",
                          topic_title="Offers", unsubscribe_url="https://shop.example/u/1")  # fmt: skip
    gone = replace(make_mail(2), message_id=message_id, to="rcpt-550-5.1.1@far.example", headers=tuple(headers))
    with mail_server(tmp_path) as far, postfix(free_port(), far.port) as server:
        hand_over(server.port, [there, gone])
        eventually(lambda: mails_in(server.people) and mails_in(server.bounces), saying="delivery, and a bounce")
        [delivered] = mails_in(server.people)
        report = import_bounces(database, key_ring, server.bounces)

    check_as_written(delivered, there)
    assert report.reports == {"bounced (hard)": 1}
    assert state_of(database, message_id) == ("bounced", None)
    assert suppressions(database) == [("hard_bounce", "all")]


def mails_in(maildir: Path) -> list[bytes]:
    new = maildir / "new"
    return [file.read_bytes() for file in new.iterdir()] if new.is_dir() else []
