"""Bounces and complaints as JSON, from files: what SendGrid and Amazon SES write.

Sources: SendGrid's event webhook and its list of bounces; the contents of SES notifications, bare or inside SNS.
An operator brought the file, so an address alone is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from dispatcher.addresses import BadAddress, normal_email
from dispatcher.feedback import sendgrid
from dispatcher.feedback.codes import enhanced_code, speaks_of_the_address
from dispatcher.feedback.report import Kind, Report
from dispatcher.mail import MESSAGE_ID_HEADER

_OURS = re.compile(r"<?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:@|$)")


def read_json(text: str | bytes) -> list[Report] | None:
    """Return what is reported; None if it is no JSON of a kind we know."""
    if isinstance(text, str):
        text = text.strip().partition("\n\n--")[0].replace("\n", " ").encode("utf-8", "replace")
    try:
        loaded = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    items = loaded if isinstance(loaded, list) else [loaded]
    reports = [report for item in items if isinstance(item, dict) for report in _read(item)]
    return reports or None


def _read(item: Mapping[str, Any]) -> Iterator[Report]:
    if item.get("Type") == "Notification" and isinstance(item.get("Message"), str):
        try:
            inner = orjson.loads(item["Message"])
        except orjson.JSONDecodeError:
            return
        if isinstance(inner, dict):
            yield from _read_ses(inner)
    elif "notificationType" in item or "eventType" in item:
        yield from _read_ses(item)
    elif "event" in item:
        yield sendgrid.read_event(item)
    elif "email" in item and "reason" in item:
        yield _read_listed(item)


def _read_listed(item: Mapping[str, Any]) -> Report:
    """Return an entry of SendGrid's own list of bounces."""
    words = f"{item.get('status') or ''} {item.get('reason') or ''}"
    code = enhanced_code(words)
    hard = speaks_of_the_address(code, words)
    identity = f"{item.get('email')}\0{item.get('created')}\0{words}"
    return Report(
        "sendgrid.list", "email", identity, item, Kind.BOUNCED, occurred_at=_instant(item.get("created")),
        address=_email(item.get("email")), code=code, hard=hard, suppress="hard_bounce" if hard else None,
    )  # fmt: skip


def _read_ses(item: Mapping[str, Any]) -> Iterator[Report]:
    kind = str(item.get("notificationType") or item.get("eventType"))
    mail = item.get("mail") if isinstance(item.get("mail"), dict) else {}
    assert isinstance(mail, dict)
    match kind:
        case "Bounce":
            part = item.get("bounce", {})
            for one in part.get("bouncedRecipients", ()):
                yield _ses_bounce(item, mail, part, one)
        case "Complaint":
            part = item.get("complaint", {})
            for one in part.get("complainedRecipients", ()):
                yield _ses(item, mail, Kind.COMPLAINED, part, one.get("emailAddress"), suppress="complaint")
        case "Delivery":
            part = item.get("delivery", {})
            for address in part.get("recipients", ()):
                yield _ses(item, mail, Kind.DELIVERED, part, address)


def _ses_bounce(
    item: Mapping[str, Any], mail: Mapping[str, Any], bounce: Mapping[str, Any], one: Mapping[str, Any]
) -> Report:
    words = f"{one.get('status') or ''} {one.get('diagnosticCode') or ''}"
    code = enhanced_code(words)
    permanent = bounce.get("bounceType") == "Permanent"
    named = permanent and bounce.get("bounceSubType") in ("NoEmail", "Suppressed", "OnAccountSuppressionList")
    hard = named or (permanent and speaks_of_the_address(code, words))
    return _ses(item, mail, Kind.BOUNCED, bounce, one.get("emailAddress"), code=code, hard=hard,
                suppress="hard_bounce" if hard else None)  # fmt: skip


def _ses(
    item: Mapping[str, Any], mail: Mapping[str, Any], kind: Kind, part: Mapping[str, Any], address: Any, **more: Any
) -> Report:
    ref = mail.get("messageId") if isinstance(mail.get("messageId"), str) else None
    identity = f"{ref}\0{address}\0{kind}\0{part.get('feedbackId') or part.get('timestamp')}"
    return Report(
        "ses", "email", identity, item, kind, occurred_at=_instant(part.get("timestamp")), message_id=_our_id(mail),
        provider_ref=ref, address=_email(address), **more,
    )  # fmt: skip


def _our_id(mail: Mapping[str, Any]) -> UUID | None:
    for header in mail.get("headers") or ():
        if isinstance(header, dict) and str(header.get("name")).lower() in (MESSAGE_ID_HEADER.lower(), "message-id"):
            found = _OURS.match(str(header.get("value")))
            if found:
                return UUID(found[1])
    return None


def _email(value: Any) -> str | None:
    try:
        return normal_email(value.strip()) if isinstance(value, str) else None
    except BadAddress:
        return None


def _instant(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None
