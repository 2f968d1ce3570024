"""The outside of a message: the headers of a mail, its bytes on the wire; for SMS see `content.sms`.

RFC 8058 needs `List-Unsubscribe` neither folded nor encoded, which the standard library does to any long value; so the
headers are written here.
"""

from __future__ import annotations

import re
import unicodedata
from binascii import b2a_qp
from collections.abc import Sequence
from datetime import datetime
from email.header import Header
from email.headerregistry import Address
from email.utils import format_datetime, quote
from uuid import UUID

from dispatcher.content import Content, one_line
from dispatcher.definitions import ShopIdentity
from dispatcher.errors import Refused

MESSAGE_ID_HEADER = "X-Dispatcher-Message-Id"

_LONGEST_LINE = 998  # RFC 5322, without CRLF
_LONGEST_LIST_ID = 255  # RFC 2919
_URL = re.compile(r"https?://[!-;=?-~]+")  # printable ASCII without < and >
_HOST = re.compile(r"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")
_NOT_ATOM = re.compile(r"[^A-Za-z0-9_-]+")


def headers_for(
    *,
    message_id: UUID,
    shop: ShopIdentity,
    class_: str,
    campaign: str,
    topic: str | None = None,
    topic_title: str | None = None,
    unsubscribe_url: str | None = None,
) -> list[tuple[str, str]]:
    """Return the headers of a mail beside From, To, Subject and Date; all printable ASCII.

    Marketing mail has an `unsubscribe_url` and gets the one-click headers; other mail has none.
    """
    host = mail_host(shop.from_email)
    headers = [("Message-ID", f"<{message_id}@{host}>"), (MESSAGE_ID_HEADER, str(message_id))]
    if unsubscribe_url is not None:
        if not _URL.fullmatch(unsubscribe_url) or len(unsubscribe_url) > _LONGEST_LINE - 50:
            raise Refused("the unsubscribe link cannot stand in a header; check DISPATCHER_PUBLIC_URL")
        headers += [
            ("List-Unsubscribe", f"<{unsubscribe_url}>"),
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ]
    if topic is not None:
        headers.append(("List-Id", _list_id(topic, topic_title, host)))
    parts = (campaign, topic or "none", class_, host.replace(".", "-"))
    headers.append(("Feedback-ID", ":".join(_atom(part, limit=64) for part in parts)))
    return headers


def mail_host(address: str) -> str:
    """Return the domain of an address in ASCII, `localhost` if it has none that can stand in a header."""
    try:
        host = address.rpartition("@")[2].strip().encode("idna").decode("ascii").lower()
    except UnicodeError:
        return "localhost"
    return host if _HOST.fullmatch(host) else "localhost"


def ascii_address(address: str) -> str:
    """Return the address as SMTP writes it; Refused if it needs SMTPUTF8, which not every server has."""
    local, _, domain = address.rpartition("@")
    host = mail_host(address)
    if not (local.isascii() and local.isprintable() and local) or (host == "localhost" and domain != "localhost"):
        raise Refused("the address cannot be written in ASCII")
    return Address(username=local, domain=host).addr_spec


def _atom(text: str, *, limit: int) -> str:
    return _NOT_ATOM.sub("-", text).strip("-")[:limit] or "none"


def _list_id(topic: str, title: str | None, host: str) -> str:
    """Return `"Title" <topic.host>`: the topic's own stable name, its title as far as ASCII can say it."""
    name = f"{_atom(topic, limit=63)}.{host}"
    if len(name) > _LONGEST_LIST_ID - 2:
        name = f"{_atom(topic, limit=63)}.localhost"
    plain = unicodedata.normalize("NFKD", one_line(title)).encode("ascii", "ignore").decode("ascii")
    phrase = " ".join(re.sub(r"[^A-Za-z0-9 &'.,!+-]+", " ", plain).split())[:100].strip()
    return f'"{phrase}" <{name}>' if phrase else f"<{name}>"


# No boundary has to be looked for: in quoted-printable an equals sign is never followed by an underscore.
_BOUNDARY = "=_dispatcher"


def to_mime(
    *,
    content: Content,
    headers: Sequence[tuple[str, str]],
    from_name: str,
    from_email: str,
    to: str,
    to_name: str = "",
    at: datetime,
) -> bytes:
    """Return the mail as it goes over the wire: text and HTML, CRLF, nothing but ASCII.

    `headers` are those of `headers_for`; Refused if one could break out of its line.
    """
    lines = [
        f"From: {_mailbox('From', from_name, from_email)}",
        f"To: {_mailbox('To', to_name, to)}",
        f"Subject: {_words('Subject', one_line(content.subject))}",
        f"Date: {format_datetime(at)}",
    ]
    for name, value in headers:
        line = f"{name}: {value}"
        if not (line.isascii() and line.isprintable()) or len(line) > _LONGEST_LINE:
            raise Refused(f"header {name} cannot be written on one line of ASCII")
        lines.append(line)
    lines.append("MIME-Version: 1.0")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii") + _body(content)


def _body(content: Content) -> bytes:
    """Return content headers and content.  The standard library's own messages take 16 times as long for the same."""
    text = _part("plain", content.text)
    if content.html is None:
        return text
    between = f"\r\n--{_BOUNDARY}".encode("ascii")
    return b"".join(
        (f'Content-Type: multipart/alternative; boundary="{_BOUNDARY}"\r\n'.encode("ascii"),
         between, b"\r\n", text, between, b"\r\n", _part("html", content.html), between, b"--\r\n")
    )  # fmt: skip


def _part(subtype: str, text: str) -> bytes:
    """Return headers and quoted-printable content of one part; its lines end with CRLF, and no CR stands alone."""
    content = text.replace("\r\n", "\n").replace("\r", "\n").encode()
    return (
        f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n'
    ).encode("ascii") + b2a_qp(content).replace(b"\n", b"\r\n")


def _words(header: str, text: str) -> str:
    """Return the text as a header's value: as it is if it is ASCII and short, else in encoded words (RFC 2047)."""
    if text.isascii() and text.isprintable() and len(text) < _LONGEST_LINE - 100 and "=?" not in text:
        return text
    return Header(text, "utf-8", maxlinelen=76, header_name=header).encode(linesep="\r\n")


def _mailbox(header: str, name: str, address: str) -> str:
    """Return `Name <address>`; Refused if it needs SMTPUTF8."""
    spec = ascii_address(address)
    name = one_line(name)[:200]
    if not name:
        return spec
    words = _words(header, name)
    return f'"{quote(name)}" <{spec}>' if words == name else f"{words}\r\n <{spec}>"
