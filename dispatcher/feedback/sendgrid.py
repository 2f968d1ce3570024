"""SendGrid's event webhook, into our words.

Source: SendGrid's event webhook reference.  Custom arguments come back as top-level keys; `bounce` with type `blocked`
is not on their suppression list, and the other kind is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from dispatcher.addresses import BadAddress, normal_email
from dispatcher.feedback.codes import enhanced_code, is_vague, speaks_of_the_address
from dispatcher.feedback.report import Kind, Report, malformed
from dispatcher.suppression import Reason as SuppressionReason

SOURCE = "sendgrid"
MESSAGE_ID = "dispatcher_message_id"

_KINDS = {
    "processed": Kind.ACCEPTED,
    "deferred": Kind.DELAYED,
    "delivered": Kind.DELIVERED,
    "dropped": Kind.DROPPED,
    "bounce": Kind.BOUNCED,
    "open": Kind.OPENED,
    "click": Kind.CLICKED,
    "spamreport": Kind.COMPLAINED,
    "unsubscribe": Kind.UNSUBSCRIBED,
    "group_unsubscribe": Kind.UNSUBSCRIBED,
}
#: Why SendGrid lets a mail fall, where that says something about the address: it is on a list of theirs.
_DROPPED_FOR: dict[str, SuppressionReason] = {
    "bounced address": "hard_bounce",
    "invalid": "invalid",
    "unsubscribed address": "unsubscribe",
    "spam reporting address": "complaint",
}


def read_events(body: bytes) -> list[Report]:
    """Return one report for each item of the array; whatever is wrong with one concerns that one alone."""
    try:
        items = _load(body)
    except ValueError:
        text = body.decode("utf-8", "replace")
        return [malformed(SOURCE, "email", text, {"body": text}, "not JSON")]
    if not isinstance(items, list):
        items = [items]
    return [read_event(item) for item in items]


def _load(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body.decode("utf-8", "replace"))  # a lone surrogate, or a byte that is no UTF-8


def read_event(item: Any) -> Report:
    """Return the report of one event."""
    if not isinstance(item, Mapping):
        return malformed(SOURCE, "email", repr(item), {"item": item}, "not an object")
    event = item.get("event")
    identity = json.dumps(
        [item.get(name) for name in ("sg_message_id", "smtp-id", "email", "event", "timestamp", "url", "attempt",
                                     "reason", "response", "type", MESSAGE_ID)], sort_keys=True, default=str
    )  # fmt: skip
    kind = _KINDS.get(event) if isinstance(event, str) else None
    if not isinstance(event, str):
        return malformed(SOURCE, "email", identity, item, "no event")
    email, code, words = _email(item), None, _words(item)
    hard: bool | None = None
    suppress: SuppressionReason | None = None
    if kind is Kind.BOUNCED:
        code = enhanced_code(f"{item.get('status') or ''} {words}")
        hard = _is_hard(item, code, words)
        suppress = "hard_bounce" if hard else None
    elif kind is Kind.DROPPED:
        suppress = _DROPPED_FOR.get(words.strip().lower())
    elif kind is Kind.COMPLAINED:
        suppress = "complaint"
    elif kind is Kind.UNSUBSCRIBED:
        suppress = "unsubscribe"
    return Report(
        SOURCE, "email", identity, item, kind,
        event_id=_text(item.get("sg_event_id")),
        occurred_at=_instant(item.get("timestamp")),
        message_id=_uuid(item.get(MESSAGE_ID)),
        provider_ref=_ref(item.get("sg_message_id")),
        address=email, code=code, hard=hard, suppress=suppress,
    )  # fmt: skip


def _is_hard(item: Mapping[str, Any], code: str | None, words: str) -> bool:
    """Whether it is the address that cannot work; SendGrid's own judgement counts where the code says nothing."""
    if item.get("type") == "blocked":
        return False
    if item.get("bounce_classification") == "Invalid Address" or (item.get("type") == "bounce" and is_vague(code)):
        return True
    return speaks_of_the_address(code, words)


def _words(item: Mapping[str, Any]) -> str:
    value = item.get("reason") or item.get("response") or ""
    return value if isinstance(value, str) else ""


def _email(item: Mapping[str, Any]) -> str | None:
    value = item.get("email")
    try:
        return normal_email(value.strip()) if isinstance(value, str) else None
    except BadAddress:
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 200 else None


def _ref(value: Any) -> str | None:
    """Return the part of `sg_message_id` that the answer to our request had, too."""
    text = _text(value)
    return text.split(".")[0] if text else None


def _instant(value: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(value), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _uuid(value: Any) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
