"""Twilio's status callbacks, into our words.  Source: Twilio's message resource and error dictionary.

The callback's URL carries our message id; the order of arrival means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import orjson

from dispatcher.addresses import BadAddress, normal_phone
from dispatcher.feedback.codes import sms_error
from dispatcher.feedback.report import Kind, Report, malformed
from dispatcher.feedback.sendgrid import MESSAGE_ID
from dispatcher.feedback.signatures import form_fields

SOURCE = "twilio"

_KINDS = {
    "accepted": Kind.ACCEPTED,
    "scheduled": Kind.ACCEPTED,
    "queued": Kind.ACCEPTED,
    "sending": Kind.ACCEPTED,
    "sent": Kind.ACCEPTED,  # by Twilio to the carrier: still on its way
    "partially_delivered": Kind.ACCEPTED,
    "delivered": Kind.DELIVERED,
    "read": Kind.DELIVERED,
    "canceled": Kind.DROPPED,
}
_FAILED = frozenset({"undelivered", "failed"})


def read_fields(content_type: str, body: bytes) -> dict[str, str]:
    """Return the fields of a form or of a JSON object; {} if the body is neither."""
    if content_type.partition(";")[0].strip().lower() == "application/json":
        try:
            loaded = orjson.loads(body)
        except orjson.JSONDecodeError:
            return {}
        return {k: str(v) for k, v in loaded.items() if v is not None} if isinstance(loaded, dict) else {}
    return {name: value.encode("utf-8", "replace").decode() for name, value in form_fields(body)}


def read_status(fields: Mapping[str, str], query: str) -> Report:
    """Return the report of one status callback, which was posted to a URL with this query."""
    sid, status = fields.get("MessageSid") or fields.get("SmsSid"), fields.get("MessageStatus", "").lower()
    code = fields.get("ErrorCode") or None
    raw: dict[str, Any] = {**fields, "query": query}
    identity = "\0".join((sid or "", status, code or "", query if not sid else ""))
    if not sid or not status:
        return malformed(SOURCE, "sms", identity + repr(sorted(fields.items())), raw, "no MessageSid or MessageStatus")
    kind = _KINDS.get(status)
    hard, suppress = None, None
    if status in _FAILED:
        error = sms_error(code)
        kind, suppress = error.kind, error.suppress
        hard = error.hard if kind is Kind.BOUNCED else None
    return Report(
        SOURCE, "sms", identity, raw, kind,
        message_id=_message_id(query), provider_ref=sid, address=phone_of(fields.get("To")),
        code=code, hard=hard, suppress=suppress,
    )  # fmt: skip


def phone_of(value: str | None) -> str | None:
    """Return a number in normal form; None for a short code, a name, or nothing."""
    try:
        return normal_phone(value.strip(), None) if value else None
    except BadAddress:
        return None


def _message_id(query: str) -> UUID | None:
    try:
        return UUID(parse_qs(query).get(MESSAGE_ID, [""])[0])
    except ValueError:
        return None
