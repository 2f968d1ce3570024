"""import bounces: files, mbox, maildir and JSON notices; what proves nothing changes nothing."""

from __future__ import annotations

import csv
import mailbox
from pathlib import Path
from uuid import UUID

import pytest
from feedback_rows import EMAIL, add_left, state_of, suppressions
from sqlalchemy import Engine, text

from dispatcher.errors import Refused
from dispatcher.imports.bounces import NO_ID, import_bounces
from dispatcher.keys import KeyRing


def bounce(message_id: object, *, status: str = "5.1.1", number: int = 1) -> str:
    return f"""\
Return-Path: <>
From: MAILER-DAEMON@mx.example
To: bounces@shop.example
Subject: Undelivered Mail Returned to Sender
Message-ID: <{number}@mx.example>
Date: Mon, 05 Jan 2026 12:00:00 +0000
Content-Type: multipart/report; report-type=delivery-status; boundary="B"

--B
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example

Final-Recipient: rfc822; {EMAIL}
Action: failed
Status: {status}

--B
Content-Type: text/rfc822-headers

Message-ID: <{message_id}@shop.example>
Subject: hello

--B--
"""


@pytest.fixture
def message_id(database: Engine, key_ring: KeyRing) -> UUID:
    with database.begin() as connection:
        return add_left(connection, key_ring, status="unknown")


def test_a_maildir_an_mbox_and_a_folder_tell_the_same(
    database: Engine, key_ring: KeyRing, message_id: UUID, tmp_path: Path
) -> None:
    maildir = mailbox.Maildir(tmp_path / "maildir")
    mbox = mailbox.mbox(tmp_path / "box")
    (tmp_path / "folder").mkdir()
    for number in (1, 2):
        maildir.add(bounce(message_id, number=number))
        mbox.add(bounce(message_id, number=number))
        (tmp_path / "folder" / f"{number}.eml").write_text(bounce(message_id, number=number))
    mbox.close()

    seen = []
    for path in ("maildir", "box", "folder"):
        report = import_bounces(database, key_ring, tmp_path / path, progress=lambda *done: seen.append(done))
        assert (report.read, report.rejected, report.unmatched) == (2, 0, 0)
        assert report.reports == {"bounced (hard)": 2}

    assert (report.recorded, report.known) == (0, 2)
    assert state_of(database, message_id) == ("bounced", None)
    assert suppressions(database) == [("hard_bounce", "all")]
    assert seen[-1][0] == seen[-1][1] > 0


def test_a_soft_bounce_moves_the_message_and_suppresses_nobody(
    database: Engine, key_ring: KeyRing, message_id: UUID, tmp_path: Path
) -> None:
    (tmp_path / "one.eml").write_text(bounce(message_id, status="5.2.2"))

    report = import_bounces(database, key_ring, tmp_path / "one.eml")
    assert (report.reports, report.moved, report.suppressed) == ({"bounced (soft)": 1}, 1, 0)
    assert state_of(database, message_id) == ("bounced", None)


def test_a_bounce_that_anybody_could_have_written_is_set_aside(
    database: Engine, key_ring: KeyRing, message_id: UUID, tmp_path: Path
) -> None:
    (tmp_path / "mails").mkdir()
    (tmp_path / "mails" / "forged.eml").write_text(bounce("no-id-of-ours"))
    (tmp_path / "mails" / "empty.eml").write_text("")
    (tmp_path / "mails" / "guessed.eml").write_text(bounce("0192f0c1-2b1e-7c3a-8f00-0123456789ab", number=3))
    (tmp_path / "mails" / "other.json").write_text('{"a": 1}')

    report = import_bounces(database, key_ring, tmp_path / "mails", rejects=tmp_path / "rejected.csv")

    assert (report.rejected, report.unmatched, report.suppressed) == (3, 1, 0)
    with (tmp_path / "rejected.csv").open() as file:
        reasons = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons["forged.eml"] == NO_ID
    assert sorted(reasons) == ["empty.eml", "forged.eml", "other.json"]
    assert state_of(database, message_id) == ("unknown", None)
    assert suppressions(database) == []


def test_a_notice_of_the_provider_needs_only_the_address(
    database: Engine, key_ring: KeyRing, message_id: UUID, tmp_path: Path
) -> None:
    notice = f'[{{"status": "550", "created": "2026-01-05", "reason": "550 5.1.1 User unknown", "email": "{EMAIL}"}}]'
    (tmp_path / "bounces.json").write_text(notice)

    report = import_bounces(database, key_ring, tmp_path / "bounces.json")
    assert (report.recorded, report.suppressed, report.rejected) == (1, 1, 0)
    assert suppressions(database) == [("hard_bounce", "all")]
    assert state_of(database, message_id) == ("unknown", None)


def test_the_whole_corpus_comes_in_and_moves_nobody(
    database: Engine, key_ring: KeyRing, shared: Path, message_id: UUID, tmp_path: Path
) -> None:
    """Its mails are about other people's messages."""
    report = import_bounces(database, key_ring, shared / "data/bounces/eml", rejects=tmp_path / "rejected.csv")

    assert report.read == len(list((shared / "data/bounces/eml").iterdir())) >= 70
    assert report.ignored == {"auto-reply": 3, "not a bounce": 2, "another report": 1}
    assert (report.moved, report.suppressed) == (0, 0)
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM suppression")) == 0


@pytest.mark.parametrize("path", ["nothing", "empty"])
def test_a_path_without_mail_is_refused(database: Engine, key_ring: KeyRing, tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(Refused):
        import_bounces(database, key_ring, tmp_path / path)
