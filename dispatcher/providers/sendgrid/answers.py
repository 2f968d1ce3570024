"""What SendGrid's answers mean.  A request is taken whole or refused whole, with a path for what was wrong in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson

from dispatcher.providers.http import Answer, Exchange, NoAnswer, NotWritten, allowance_of, retry_wait
from dispatcher.providers.protocol import Accepted, NotSent, Receipt, Rejected, RetryAfter, Unknown, without_addresses

#: What is wrong with the account, its key or its sender stays wrong for every mail.
_ACCOUNT = frozenset({401, 402, 403, 404, 405})
_OFFENDER = re.compile(r"personalizations[.\[](\d+)\]?(?:\.(\w+))?")


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing of the request was taken, because of these people (by place), or, without any, because of somebody."""

    offenders: dict[int, Rejected]
    otherwise: Rejected  #: for a mail that is refused alone


def meaning(exchange: Exchange) -> Receipt | Refused:
    """Return the receipt of everybody in the request; Refused if that takes another look at who was in it."""
    if isinstance(exchange, NotWritten):
        return NotSent(exchange.detail, unreachable=exchange.unreachable)
    if isinstance(exchange, NoAnswer):
        return Unknown(exchange.detail, exchange.first_byte)
    status = exchange.status
    if 200 <= status < 300:
        return Accepted(
            exchange.headers.get("X-Message-Id"), exchange.first_byte, allowance=allowance_of(exchange.headers)
        )
    if not 400 <= status < 500 or not exchange.whole:
        return Unknown(f"SendGrid answered {status}", exchange.first_byte)
    if status == 429:
        return RetryAfter("SendGrid has had enough (429)", retry_wait(exchange.headers))
    if status == 408:
        return NotSent("SendGrid had not read all of it (408)", timedelta(seconds=5), answered=True)
    return _refusal(exchange)


def _refusal(answer: Answer) -> Receipt | Refused:
    errors = _errors(answer)
    words = without_addresses(next((error["message"] for error in errors if error["message"]), ""))
    field = next((error["field"] for error in errors if error["field"]), "")
    detail = f"SendGrid refused it: {' '.join(filter(None, (str(answer.status), field, words)))}"
    if answer.status in _ACCOUNT or field.split(".")[0] == "from":
        return Rejected(detail, answer.first_byte, scope="account")
    offenders = {}
    for error in errors:
        found = _OFFENDER.match(error["field"])
        if found:
            address = found[2] == "to"
            offenders[int(found[1])] = Rejected(
                f"SendGrid refused it: {answer.status} {found[2] or ''} {without_addresses(error['message'])}".rstrip(),
                answer.first_byte,
                suppress="invalid" if address else None,
                scope="address" if address else "message",
            )
    if field and not offenders:  # of what everybody in the request shares
        return Rejected(detail, answer.first_byte, scope="template")
    return Refused(offenders, Rejected(detail, answer.first_byte))


def _errors(answer: Answer) -> list[dict[str, str]]:
    """Return field and message of each error; [] for what is no answer of the API, like nginx's HTML."""
    try:
        body: Any = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return []
    errors = body.get("errors") if isinstance(body, dict) else None
    return [
        {"field": str(error.get("field") or ""), "message": str(error.get("message") or "")}
        for error in (errors if isinstance(errors, list) else [])
        if isinstance(error, dict)
    ]
