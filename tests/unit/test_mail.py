"""Headers and bytes of a mail as they go over the wire, and the parts of an SMS."""

from __future__ import annotations

import email
import email.policy
import re
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.message import EmailMessage
from functools import cache
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.content import Content, one_line, sms_segments
from dispatcher.definitions import ShopIdentity
from dispatcher.errors import Refused
from dispatcher.mail import headers_for, to_mime

MESSAGE_ID = UUID("01930000-0000-7000-8000-000000000001")
SHOP = ShopIdentity(name="The Gift Shop", from_email="hello@giftshop.example", postal_address="12 Cloth Fair")
URL = "https://shop.example/u/" + "a" * 400
CONTENT = Content("Hello", "", "<p>Grüße</p>", "Grüße\n.\nFrom here\n", "de")
AT = datetime(2026, 12, 1, 10, tzinfo=UTC)


def make_headers(**changes: Any) -> list[tuple[str, str]]:
    wanted: dict[str, Any] = {
        "message_id": MESSAGE_ID, "shop": SHOP, "class_": "marketing", "campaign": "christmas", "topic": "offers",
        "topic_title": "Offers", "unsubscribe_url": URL,
    }  # fmt: skip
    return headers_for(**wanted | changes)


def make_mail(**changes: Any) -> bytes:
    wanted: dict[str, Any] = {
        "content": CONTENT, "headers": make_headers(), "from_name": "Shop", "from_email": "hello@giftshop.example",
        "to": "zoe@mail.example", "to_name": "Zoë", "at": AT,
    }  # fmt: skip
    return to_mime(**wanted | changes)


def parse(mail: bytes) -> EmailMessage:
    return cast(EmailMessage, email.message_from_bytes(mail, policy=email.policy.default))


def test_marketing_mail_says_how_to_leave_what_it_is_and_which_one() -> None:
    assert make_headers() == [
        ("Message-ID", f"<{MESSAGE_ID}@giftshop.example>"),
        ("X-Dispatcher-Message-Id", str(MESSAGE_ID)),
        ("List-Unsubscribe", f"<{URL}>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ("List-Id", '"Offers" <offers.giftshop.example>'),
        ("Feedback-ID", "christmas:offers:marketing:giftshop-example"),
    ]


def test_transactional_mail_has_no_list_headers() -> None:
    headers = make_headers(class_="transactional", topic=None, topic_title=None, unsubscribe_url=None, campaign="order")

    assert [name for name, _ in headers] == ["Message-ID", "X-Dispatcher-Message-Id", "Feedback-ID"]
    assert headers[-1][1] == "order:none:transactional:giftshop-example"


@given(title=st.text(), campaign=st.text(), topic=st.text(min_size=1, max_size=300), sender=st.text())
def test_headers_are_ascii_on_one_line_whatever_the_names(title: str, campaign: str, topic: str, sender: str) -> None:
    shop = SHOP.model_copy(update={"from_email": sender})
    headers = dict(make_headers(topic=topic, topic_title=title, campaign=campaign, shop=shop))

    for name, value in headers.items():
        assert value.isascii()
        assert value.isprintable()
        assert len(f"{name}: {value}") <= 998
    assert re.fullmatch(r'("[^"\\]*" )?<[A-Za-z0-9_-]+(\.[A-Za-z0-9-]+)*>', headers["List-Id"])
    assert len(headers["List-Id"].rpartition("<")[2]) <= 256
    assert re.fullmatch(r"[\w-]+(:[\w-]+){3}", headers["Feedback-ID"])


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example/x y",
        "https://a.example/\r\nBcc: x",
        "https://a.example/>",
        "ftp://a.example/",
        "https://ä.example/",
        "https://a.example/" + "a" * 1000,
    ],
)
def test_a_link_that_would_break_the_header_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        make_headers(unsubscribe_url=url)


def test_a_long_unsubscribe_link_is_neither_folded_nor_encoded_on_the_wire() -> None:
    head = make_mail().split(b"\r\n\r\n")[0].split(b"\r\n")

    assert head.count(f"List-Unsubscribe: <{URL}>".encode()) == 1
    assert head.count(b"List-Unsubscribe-Post: List-Unsubscribe=One-Click") == 1
    assert sum(line.lower().startswith(b"list-unsubscribe") for line in head) == 2


def test_the_mail_reads_back_as_it_was_meant() -> None:
    content = Content("Zoë, " + "viel Glück " * 20, "", "<p>" + "Grüße " * 500 + "</p>", "Grüße\n.\nFrom here\n", "de")
    message = parse(make_mail(content=content, from_name='Gift "&" Shop, Ltd', to_name="Zoë Șerban"))

    assert message["Subject"] == content.subject.strip()
    assert message["From"].addresses[0].display_name == 'Gift "&" Shop, Ltd'
    assert message["To"].addresses[0].display_name == "Zoë Șerban"
    assert message["To"].addresses[0].addr_spec == "zoe@mail.example"
    assert message["Date"].datetime == AT
    assert message.get_content_type() == "multipart/alternative"
    text, html = cast(list[EmailMessage], list(message.iter_parts()))
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert text.get_content().replace("\r\n", "\n") == content.text
    assert html.get_content().strip() == content.html


def test_a_mail_without_html_is_plain_text() -> None:
    assert parse(make_mail(content=Content("a", "", None, "b\n", "en"))).get_content_type() == "text/plain"


@given(subject=st.text(max_size=400), name=st.text(max_size=200), text=st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_nothing_a_person_is_called_breaks_a_mail(subject: str, name: str, text: str) -> None:
    content = Content(one_line(subject), "", f"<p>{text}", text, "en")
    mail = make_mail(content=content, to_name=name, from_name=name)
    head, _, _ = mail.partition(b"\r\n\r\n")

    mail.decode("ascii")
    assert b"\n" not in mail.replace(b"\r\n", b"")
    assert b"\r" not in mail.replace(b"\r\n", b"")
    assert all(len(line) <= 998 for line in mail.split(b"\r\n"))
    names = [line.split(b":")[0] for line in head.split(b"\r\n") if not line.startswith(b" ")]
    assert names == [*_NAMES, b"Content-Type"]
    message = parse(mail)
    assert message["To"].addresses[0].addr_spec == "zoe@mail.example"
    assert " ".join(str(message["Subject"]).split()) == " ".join(one_line(subject).split())
    words, _, _ = str(email.message_from_bytes(mail)["To"]).rpartition("<")
    if "=?" in words:  # the standard library's parser keeps the space between encoded words in a name; others do not
        assert str(make_header(decode_header(words.strip()))).split() == one_line(name)[:200].split()


_NAMES = [
    b"From", b"To", b"Subject", b"Date", b"Message-ID", b"X-Dispatcher-Message-Id", b"List-Unsubscribe",
    b"List-Unsubscribe-Post", b"List-Id", b"Feedback-ID", b"MIME-Version",
]  # fmt: skip


@pytest.mark.parametrize(
    "to", ["zoë@mail.example", "a\r\nBcc: b@mail.example", "nobody", "@mail.example", "a@b\r\nc.example"]
)
def test_an_address_that_would_break_the_mail_is_refused(to: str) -> None:
    with pytest.raises(Refused):
        make_mail(to=to)


def test_a_header_that_would_break_out_of_its_line_is_refused() -> None:
    for value in ("a\r\nBcc: b@mail.example", "a\nb", "ä", "x" * 1000):
        with pytest.raises(Refused):
            make_mail(headers=[("X-Test", value)])


def test_a_domain_beyond_ascii_is_written_as_the_dns_knows_it() -> None:
    assert parse(make_mail(to="zoe@bücher.example"))["To"].addresses[0].domain == "xn--bcher-kva.example"


# --- SMS


@pytest.mark.parametrize(
    ("text", "encoding", "parts"),
    [
        ("", "GSM-7", 0),
        ("a" * 160, "GSM-7", 1),
        ("a" * 161, "GSM-7", 2),
        ("a" * 306, "GSM-7", 2),
        ("a" * 307, "GSM-7", 3),
        ("a" * 158 + "€", "GSM-7", 1),
        ("a" * 159 + "€", "GSM-7", 2),
        ("a" * 152 + "€" + "a" * 152, "GSM-7", 3),  # 306 units, but the pair is not split
        ("äöüßÄÖÜ àèéìòù", "GSM-7", 1),
        ("ș" * 70, "UCS-2", 1),
        ("ș" * 71, "UCS-2", 2),
        ("ș" * 66 + "😀" + "ș" * 66, "UCS-2", 3),  # 134 units, but the pair is not split
        ("😀" * 35, "UCS-2", 1),
        ("😀" * 36, "UCS-2", 2),
        ("ç", "UCS-2", 1),
        ("`", "UCS-2", 1),
    ],
)
def test_a_text_message_is_counted_as_the_network_counts_it(text: str, encoding: str, parts: int) -> None:
    assert sms_segments(text) == (encoding, parts)


@given(st.text(alphabet="ab€{ș😀", max_size=400))
def test_no_way_of_cutting_needs_fewer_parts(text: str) -> None:
    encoding, parts = sms_segments(text)
    pairs, single, each = ("€{", 160, 153) if encoding == "GSM-7" else ("😀", 70, 67)
    widths = [2 if character in pairs else 1 for character in text]

    @cache
    def fewest(count: int) -> int:
        """The fewest parts for the first `count` characters: the last part reaches back as far as it can."""
        if not count:
            return 0
        start, room = count, each
        while start and widths[start - 1] <= room:
            room -= widths[start - 1]
            start -= 1
        return min(fewest(earlier) for earlier in {start, min(start + 1, count - 1)}) + 1

    assert encoding == ("UCS-2" if "ș" in text or "😀" in text else "GSM-7")
    assert parts == (min(1, len(text)) if sum(widths) <= single else fewest(len(text)))
