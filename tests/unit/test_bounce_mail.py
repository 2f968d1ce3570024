"""Bounce and complaint mail: what the corpus says, what is no bounce, and how our message is found in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.feedback.bounce_mail import Ignored, read_mail
from dispatcher.feedback.notices import read_json
from dispatcher.feedback.report import Kind

ID = "0192f0c1-2b1e-7c3a-8f00-0123456789ab"
HARD, SOFT, DELAYED = ("bounced", True), ("bounced", False), ("delayed", None)
SPAM, OPT_OUT, DELIVERED = ("complained", None), ("unsubscribed", None), ("delivered", None)

#: Every mail of the corpus, by what stands in it.
EXPECTED: dict[str, tuple[tuple[str, bool | None], ...] | str] = {
    **dict.fromkeys(("arf-01", "arf-02", "arf-14", "arf-16", "arf-17"), (SPAM,)),
    "arf-12": (OPT_OUT,),
    **dict.fromkeys(
        ("lhost-amazonses-01", "lhost-amazonses-02", "lhost-amazonses-05", "lhost-amazonses-06", "lhost-amazonses-09",
         "lhost-exim-02", "lhost-exim-05", "lhost-gmail-01", "lhost-gmx-02", "lhost-office365-01", "lhost-office365-02",
         "lhost-office365-13", "lhost-outlook-02", "lhost-postfix-01", "lhost-postfix-04", "lhost-postfix-07",
         "lhost-powermta-02", "lhost-qmail-01", "lhost-qmail-02", "lhost-sendgrid-01", "lhost-sendgrid-02",
         "lhost-sendmail-01", "lhost-yahoo-01", "rfc3464-01", "rfc3464-06", "rfc3464-10", "rhost-apple-01",
         "rhost-google-02"), (HARD,)),
    **dict.fromkeys(
        ("lhost-amazonses-08", "lhost-exim-01", "lhost-exim-04", "lhost-gmail-03", "lhost-gmail-05", "lhost-gmx-01",
         "lhost-outlook-01", "lhost-postfix-05", "lhost-postfix-08", "lhost-powermta-01", "lhost-sendmail-04",
         "lhost-sendmail-05", "lhost-yahoo-02", "lhost-yahoo-04", "lhost-yahoo-05", "rfc3464-03", "rhost-apple-02",
         "rhost-google-01", "rhost-gsuite-01", "rhost-gsuite-02", "rhost-gsuite-05", "rhost-microsoft-01",
         "rhost-microsoft-02"), (SOFT,)),
    "lhost-outlook-04": (HARD, SOFT),
    "lhost-postfix-02": (SOFT, HARD),
    "lhost-sendmail-02": (HARD, SOFT),
    **dict.fromkeys(("lhost-gmail-06", "lhost-outlook-06", "rfc3464-07", "rfc3464-09"), (DELAYED,)),
    "rfc3464-28": "another report",  # an address was verified, nothing was sent
    **dict.fromkeys(("rfc3834-01", "rfc3834-02", "rfc3834-04"), "auto-reply"),
    **dict.fromkeys(("not-a-bounce__is-not-bounce-01", "not-a-bounce__is-not-bounce-02"), "not a bounce"),
}  # fmt: skip


def test_every_mail_of_the_corpus_is_read_right(shared: Path) -> None:
    read: dict[str, object] = {}
    for file in sorted((shared / "data/bounces/eml").glob("*.eml")):
        found = read_mail(file.read_bytes())
        read[file.stem] = found.what if isinstance(found, Ignored) else tuple((r.kind, r.hard) for r in found)

    assert read == EXPECTED


def test_every_notice_of_the_corpus_is_read_right(shared: Path) -> None:
    read = {}
    for file in sorted((shared / "data/bounces/esp-json").glob("*.json")):
        found = read_json(file.read_bytes())
        assert found is not None
        read[file.stem] = tuple((r.kind, r.hard) for r in found)

    assert read == {
        "json-amazonses-01": (HARD,), "json-amazonses-02": (HARD,), "json-amazonses-04": (DELIVERED,),
        "json-amazonses-05": (DELIVERED,), "json-sendgrid-01": (HARD,), "json-sendgrid-02": (HARD, SOFT),
        "json-sendgrid-04": (HARD,), "json-sendgrid-05": (HARD,), "json-sendgrid-07": (SOFT,),
        "json-sendgrid-08": (HARD,),
        "json-sendgrid-10": (HARD,), "json-sendgrid-11": (HARD,) * 3, "json-sendgrid-13": (DELIVERED,),
        "json-sendgrid-14": (SOFT,), "json-sendgrid-16": (SPAM,), "json-sendgrid-17": (SPAM,),
    }  # fmt: skip


def bounce(original: str, *, to: str = "bounces@shop.example") -> bytes:
    return f"""\
Return-Path: <>
From: MAILER-DAEMON@mx.example (Mail Delivery System)
To: {to}
Subject: Undelivered Mail Returned to Sender
Message-ID: <outer@mx.example>
Content-Type: multipart/report; report-type=delivery-status; boundary="B"

--B
Content-Type: text/plain

I could not deliver it.
--B
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example

Final-Recipient: rfc822; forwarded@elsewhere.example
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 no such user

{original}
--B--
""".encode()


@pytest.mark.parametrize(
    "mail",
    [
        bounce(f"--B\nContent-Type: message/rfc822\n\nSubject: hello\nMessage-ID: <{ID}@shop.example>\n\nHello\n"),
        bounce(f"--B\nContent-Type: text/rfc822-headers\n\nX-Dispatcher-Message-Id: {ID}\nSubject: hello\n"),
        bounce("", to=f"bounce+{ID}@shop.example"),
        bounce("", to=f"bounce-{ID.replace('-', '')}@shop.example"),
    ],
    ids=["message id", "our header", "returned to", "returned to, short"],
)
def test_our_message_is_found_in_what_came_back(mail: bytes) -> None:
    [report] = read_mail(mail)  # type: ignore[misc]

    assert (str(report.message_id), report.kind, report.suppress) == (ID, Kind.BOUNCED, "hard_bounce")
    assert report.address is None  # it may have been forwarded; our id says where it went


def test_the_id_of_the_mail_itself_is_not_ours() -> None:
    [report] = read_mail(bounce("").replace(b"outer@mx.example", f"{ID}@mx.example".encode()))  # type: ignore[misc]

    assert report.message_id is None


@pytest.mark.parametrize(
    "headers",
    ["Auto-Submitted: auto-replied\nSubject: hello", "X-Autoreply: yes\nSubject: hello",
     "Subject: Out of office: back on Monday", "Subject: Abwesenheitsnotiz"],
)  # fmt: skip
def test_an_auto_reply_reports_nothing(headers: str) -> None:
    assert read_mail(f"From: ana@shop.example\n{headers}\n\nI am away, 550 5.1.1\n".encode()) == Ignored("auto-reply")


@given(st.binary(max_size=500), st.sampled_from([b"", b"From: MAILER-DAEMON\nSubject: Undelivered mail\n",
       b"Content-Type: multipart/report; boundary=B\n\n--B\nContent-Type: message/delivery-status\n\n"]))  # fmt: skip
def test_no_mail_breaks_the_reader(raw: bytes, begin: bytes) -> None:
    read_mail(begin + raw)
    read_json(raw)
