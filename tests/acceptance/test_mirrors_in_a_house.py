"""A whole house keeps SendGrid's lists and its own in step, and reads its mailbox, by itself."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from house import ROOMY_CAPS, eventually, live_shop, own_servers, write_people
from imap_server import PASSWORD, USER, imap_server
from sqlalchemy import text
from sqlalchemy.engine import URL
from standin_lists import GROUP, Say
from standins import stand_in

from dispatcher import suppression

BOUNCE = """\
Return-Path: <>
From: MAILER-DAEMON@mx.example
Subject: Undelivered Mail Returned to Sender
Content-Type: multipart/report; report-type=delivery-status; boundary="B"

--B
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example

Final-Recipient: rfc822; somebody@people.example
Action: failed
Status: 5.1.1

--B
Content-Type: text/rfc822-headers

Message-ID: <{message_id}@shop.example>

--B--
"""

pytestmark = pytest.mark.thorough


def test_an_opt_out_is_on_their_list_within_a_minute_and_theirs_is_here(
    servers: tuple[str, str], template_database: URL, tmp_path: Path
) -> None:
    dice = random.Random(4)
    with stand_in() as api, own_servers(servers, template_database) as own:
        api.lists.answers = lambda _method, _target: Say(0, lose=True, accept=True) if dice.random() < 0.3 else None
        api.lists.put("spam_reports", "stranger@nowhere.example")
        providers = {"email_provider": "sendgrid", "sendgrid_api_key": "SG.secret", "sendgrid_url": api.url,
                     "sendgrid_unsubscribe_group": GROUP, "public_url": "https://shop.example"}  # fmt: skip
        people = write_people(tmp_path / "people.csv", 20)
        with live_shop(
            tmp_path / "home", servers=own, workspace=ROOMY_CAPS, people=people, providers=providers
        ) as live:
            complaint = "SELECT count(*) AS n FROM suppression WHERE reason = 'complaint'"
            eventually(lambda: live.rows(complaint)[0].n == 1, saying="their spam report is here")

            with live.runtime.database.begin() as connection:
                address = connection.execute(
                    text("SELECT email_address_id FROM contact WHERE email_address_id IS NOT NULL ORDER BY id LIMIT 1")
                ).scalar_one()
                suppression.add(connection, address, "unsubscribe", source="test")
            taken = eventually(lambda: len(api.lists.on(f"group-{GROUP}")) == 1, saying="our opt-out is there")
            assert taken < 60
        assert api.lists.complaints == []


def test_a_bounce_in_the_mailbox_ends_the_address_without_anybody_doing_anything(
    servers: tuple[str, str], template_database: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with imap_server(tmp_path) as box, own_servers(servers, template_database) as own:
        monkeypatch.setenv("SSL_CERT_FILE", box.certificate)
        url = f"imaps://{quote(USER, safe='')}:{quote(PASSWORD)}@localhost:{box.tls_port}/INBOX"
        monkeypatch.setenv("DISPATCHER_BOUNCE_MAILBOX_URL", url)
        people = write_people(tmp_path / "people.csv", 20)
        with live_shop(tmp_path / "home", servers=own, workspace=ROOMY_CAPS, people=people) as live:
            live.finish(live.start("hello"))
            [sent] = live.rows("SELECT id FROM message WHERE status = 'sent' ORDER BY id LIMIT 1")
            box.put(BOUNCE.format(message_id=sent.id))
            ticket = "import sys; from workers.broker import connect; connect(sys.argv[1]); from workers import actors"
            subprocess.run(  # the clock comes by every two minutes only
                [sys.executable, "-c", f"{ticket}; actors.read_mailbox.send()", live.runtime.broker_url], check=True
            )
            eventually(lambda: live.rows("SELECT 1 FROM message WHERE id = :id AND status = 'bounced'", id=sent.id))
            assert live.rows("SELECT reason FROM suppression")[0].reason == "hard_bounce"
        assert box.flags() == [{"\\Seen"}]
