"""Bounce and complaint mail, into our words: RFC 3464 reports, RFC 5965 (ARF) complaints, and the plain letters of mail
servers that know neither.

Such mail proves nothing by its sender, who can be anybody.  What proves it is our message id, which only the addressee
and the servers on the way have seen: in the returned headers, or in the address the mail was returned to (VERP).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, message_from_string
from email.message import Message
from email.utils import getaddresses, parsedate_to_datetime
from hashlib import sha256
from uuid import UUID

from dispatcher.addresses import BadAddress, normal_email
from dispatcher.feedback import notices
from dispatcher.feedback.codes import enhanced_code, speaks_of_the_address
from dispatcher.feedback.report import Kind, Report
from dispatcher.mail import MESSAGE_ID_HEADER
from dispatcher.suppression import Reason as SuppressionReason

SOURCE = "mail"
_MOST_PARTS = 50
_LONGEST_LETTER = 20_000

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# Small letters only: other programs write UUIDs there, too, and most of them in capitals.
_OUR_HEADER = re.compile(rf"^[>\s]*(?i:{MESSAGE_ID_HEADER}):\s*({_UUID})", re.MULTILINE)
_OUR_MESSAGE_ID = re.compile(rf"^[>\s]*(?i:Message-ID):\s*<({_UUID})@", re.MULTILINE)
_VERP = re.compile(rf"[+=-]({_UUID}|[0-9a-f]{{32}})@", re.IGNORECASE)
_RETURNED_TO = ("To", "Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To")

_AUTO_REPLY = re.compile(
    r"^\s*(?:auto(?:matic|mated)?[ -]?(?:reply|response)|out of (?:the )?office|away (?:until|from)|on vacation|"
    r"abwesenheit|automatische antwort|r[eé]ponse automatique|respuesta autom|resposta autom)",
    re.IGNORECASE,
)
_DAEMON = re.compile(r"mailer-?daemon|postmaster|mail delivery (?:sub)?system|mail-daemon", re.IGNORECASE)
_FAILURE = re.compile(
    r"undeliver|returned mail|mail delivery failed|delivery status notification|delivery (?:has )?failed|"
    r"failure notice|delivery report|delivery failure|delayed mail|mail delivery (?:delayed|status)|nondeliver",
    re.IGNORECASE,
)
_STILL_TRYING = re.compile(r"delay|still being retried|will (?:be )?retr|not yet been delivered", re.IGNORECASE)
_ADDRESS = re.compile(r"<?\b([A-Za-z0-9._%+'-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,})>?")
_QUOTED_ORIGINAL = re.compile(
    r"^(?:-+ ?(?:original message|this is a copy|below this line|returned|included is|original mail)|received: )",
    re.IGNORECASE | re.MULTILINE,
)

_ACTIONS = {
    "failed": Kind.BOUNCED,
    "delayed": Kind.DELAYED,
    "delivered": Kind.DELIVERED,
    "relayed": Kind.ACCEPTED,
    "expanded": Kind.ACCEPTED,
}
_COMPLAINTS = {"abuse": Kind.COMPLAINED, "fraud": Kind.COMPLAINED, "opt-out": Kind.UNSUBSCRIBED,
               "opt-out-list": Kind.UNSUBSCRIBED, "miscategorized": Kind.COMPLAINED}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ignored:
    """A mail that reports nothing, and what it is."""

    what: str  #: "auto-reply", "not a bounce", "another report"


def read_mail(raw: bytes) -> list[Report] | Ignored:
    """Return what a mail reports, one report for each recipient it speaks of."""
    mail = message_from_bytes(raw)
    parts = [part for part, _ in zip(mail.walk(), range(_MOST_PARTS), strict=False)]
    letter = _Letter(mail, parts, sha256(raw).hexdigest())
    for part in parts:
        match part.get_content_type():
            case "message/feedback-report":
                return _complaint(letter, part)
            case "message/delivery-status" | "message/global-delivery-status":
                return _delivery_status(letter, part)
    if _is_by_a_server(mail):
        return _written_as_text(letter) or _plain_letter(letter)
    if _is_auto_reply(mail):
        return Ignored("auto-reply")
    return notices.read_json(letter.text()) or Ignored("not a bounce")


@dataclass(frozen=True, slots=True)
class _Letter:
    """A mail, taken apart once."""

    mail: Message
    parts: list[Message]
    digest: str

    @property
    def at(self) -> datetime | None:
        return _instant(self.mail.get("Date"))

    def our_id(self) -> UUID | None:
        """Return the id of our message that came back; the mail's own Message-ID is not ours."""
        inner = [part for part in self.parts if part is not self.mail]
        headers = "\n".join(
            f"{MESSAGE_ID_HEADER}: {p[MESSAGE_ID_HEADER]}\nMessage-ID: {p['Message-ID']}" for p in inner
        )
        for text in (headers, self.text()):
            for pattern in (_OUR_HEADER, _OUR_MESSAGE_ID):
                if found := pattern.search(text):
                    return UUID(found[1])
        for name in _RETURNED_TO:
            for value in self.mail.get_all(name, []):
                if found := _VERP.search(str(value)):
                    return UUID(found[1])
        return None

    def text(self) -> str:
        """Return the text parts, one after the other; a body whose parts cannot be told apart is text, too."""
        return "\n".join(_text_of(part) for part in self.parts if part.get_content_maintype() in ("text", "multipart"))

    def report(self, kind: Kind, recipient: str | None, *, code: str | None, words: str, at: datetime | None) -> Report:
        hard = speaks_of_the_address(code, words) if kind is Kind.BOUNCED else None
        message_id = self.our_id()
        suppress: SuppressionReason | None = "hard_bounce" if hard else None
        if kind in (Kind.COMPLAINED, Kind.UNSUBSCRIBED):
            suppress = "complaint" if kind is Kind.COMPLAINED else "unsubscribe"
        return Report(
            SOURCE, "email", f"{self.mail.get('Message-ID') or self.digest}\0{recipient}\0{kind}\0{code}",
            {"headers": [[k, str(v)[:500]] for k, v in self.mail.items()][:50], "recipient": recipient,
             "words": words[:2_000]},
            kind, occurred_at=at or self.at, message_id=message_id,
            address=None if message_id else recipient,  # our id says more than a forwarded address
            code=code, hard=hard, suppress=suppress,
        )  # fmt: skip


def _delivery_status(letter: _Letter, part: Message) -> list[Report] | Ignored:
    fields = list(_groups(part))
    whole = next((group for group in fields if "Final-Recipient" not in group), Message())
    reports = []
    for group in fields:
        action = str(group.get("Action", "")).split("(")[0].strip().lower()
        if "Final-Recipient" not in group and "Original-Recipient" not in group:
            continue
        kind = _ACTIONS.get(action)
        if kind is None:
            continue
        diagnostic = " ".join(str(group.get("Diagnostic-Code", "")).split())
        code = _code(str(group.get("Status", "")), diagnostic)
        recipient = _recipient(group.get("Original-Recipient")) or _recipient(group.get("Final-Recipient"))
        words = diagnostic or _readable(letter)
        at = _instant(group.get("Last-Attempt-Date")) or _instant(whole.get("Arrival-Date"))
        reports.append(letter.report(kind, recipient, code=code, words=words, at=at))
    return reports or Ignored("another report")


def _code(status: str, diagnostic: str) -> str | None:
    """Return the code: the one of the status field, unless the diagnosis has a more telling one."""
    said, found = enhanced_code(status), enhanced_code(diagnostic)
    vague = said is None or said.endswith(".0.0")
    return found if vague and found is not None and "." in found else said or found


def _groups(part: Message) -> Iterator[Message]:
    """Yield the groups of fields, parsed by the library or, if the server wrote them as text, by us."""
    payload = part.get_payload()
    if isinstance(payload, list) and payload:
        for group in payload:
            if isinstance(group, Message):
                yield group
        return
    for block in re.split(r"\r?\n[ \t]*\r?\n", _text_of(part)):
        if block.strip():
            yield message_from_string(block.lstrip("\r\n"))


def _complaint(letter: _Letter, part: Message) -> list[Report] | Ignored:
    fields = Message()
    for group in _groups(part):
        for name, value in group.items():
            fields[name] = value
    kind = _COMPLAINTS.get(str(fields.get("Feedback-Type", "")).split(";")[0].strip().lower())
    if kind is None:  # not-spam, auth-failure, virus: not a reader who complains
        return Ignored("another report")
    recipient = _recipient(fields.get("Original-Rcpt-To")) or _original_to(letter)
    at = _instant(fields.get("Received-Date")) or _instant(fields.get("Arrival-Date"))
    return [letter.report(kind, recipient, code=None, words="", at=at)]


def _original_to(letter: _Letter) -> str | None:
    for part in letter.parts:
        if part.get_content_type() == "message/rfc822" and isinstance(part.get_payload(), list):
            inner = part.get_payload()[0]  # type: ignore[index]
            return _recipient(inner.get("To")) if isinstance(inner, Message) else None
        if part.get_content_type() == "text/rfc822-headers":
            return _recipient(message_from_string(_text_of(part)).get("To"))
    return None


def _is_auto_reply(mail: Message) -> bool:
    if str(mail.get("Auto-Submitted", "no")).split(";")[0].strip().lower() in ("auto-replied", "auto-notified"):
        return True
    if any(name in mail for name in ("X-Autoreply", "X-Autorespond", "X-Autoresponder")):
        return True
    return _AUTO_REPLY.match(str(mail.get("Subject", ""))) is not None


def _is_by_a_server(mail: Message) -> bool:
    """Whether a mail server says that it could not deliver something."""
    if mail.get("X-Failed-Recipients"):
        return True
    by_nobody = str(mail.get("Return-Path", "")).strip() == "<>"
    by_a_daemon = _DAEMON.search(str(mail.get("From", ""))) is not None
    return (by_nobody or by_a_daemon) and _FAILURE.search(str(mail.get("Subject", ""))) is not None


def _written_as_text(letter: _Letter) -> list[Report] | None:
    """Read a delivery status whose parts were lost on the way; None if there is none in the text."""
    text = letter.text()
    if "Final-Recipient:" not in text or "Action:" not in text:
        return None
    part = Message()
    part.set_payload(text)
    found = _delivery_status(letter, part)
    return found if isinstance(found, list) else None


def _plain_letter(letter: _Letter) -> list[Report] | Ignored:
    """Read what a mail server wrote in plain words: for qmail, Exim, Gmail, Yahoo and others that is all there is."""
    words = _readable(letter)
    named = _ADDRESS.search(words)
    recipient = _recipient(letter.mail.get("X-Failed-Recipients")) or (_recipient(named[1]) if named else None)
    kind = Kind.DELAYED if _STILL_TRYING.search(str(letter.mail.get("Subject", ""))) else Kind.BOUNCED
    return [letter.report(kind, recipient, code=enhanced_code(words), words=words, at=None)]


def _readable(letter: _Letter) -> str:
    """Return what the server itself says: its text up to the returned original."""
    text = letter.text()[:_LONGEST_LETTER]
    quoted = _QUOTED_ORIGINAL.search(text)
    return " ".join((text[: quoted.start()] if quoted and quoted.start() else text).split())


def _text_of(part: Message) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return str(part.get_payload()) if isinstance(part.get_payload(), str) else ""
    try:
        return payload.decode(part.get_content_charset() or "utf-8", "replace")
    except LookupError:  # a charset nobody knows
        return payload.decode("utf-8", "replace")


def _recipient(value: object) -> str | None:
    """Return the address of a field like `rfc822; <ana@shop.example>` in normal form."""
    if value is None:
        return None
    text = str(value).rpartition(";")[2].strip()
    addresses = [address for _, address in getaddresses([text]) if "@" in address]
    try:
        return normal_email(addresses[0].strip("<>")) if addresses else None
    except BadAddress:
        return None


def _instant(value: object) -> datetime | None:
    try:
        found = parsedate_to_datetime(str(value)) if value else None
    except (TypeError, ValueError, IndexError):
        return None
    if found is None:
        return None
    try:
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        return None
