"""Twilio's list of messages, asked about a text of unknown outcome.

No record carries our id: the StatusCallback is not in it.  So one is ours only if number, Messaging Service, the whole
text and the time agree, if it is the only such record, and if no other message of ours is in doubt that would look the
same.  A text that Twilio or an account setting has changed (smart encoding, redaction) proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

import orjson

from dispatcher.doubt import Doubtful, Sighting
from dispatcher.providers.askings import Askings
from dispatcher.providers.http import Answer, Http, Request
from dispatcher.providers.protocol import Envelope, boot_seconds

_AT_ONCE = 8
_SECONDS_TO_BEGIN = 10.0
_PAGE = 100
_MOST_BYTES = 4_000_000
#: Twilio's clock against ours, in whole seconds; and how long after our last byte it may have taken a request.
_BEFORE, _AFTER = timedelta(seconds=5), timedelta(minutes=2)


class Records:
    def __init__(self, http: Http, *, url: str, authorization: str, service: str) -> None:
        self._http = http
        self._url = url
        self._headers = {"Authorization": authorization}
        self._service = service
        self._askings = Askings(_AT_ONCE)

    def look_up(self, doubtful: Sequence[Doubtful], text_of: Callable[[Envelope], str]) -> list[Sighting]:
        seen = []
        for one in self._askings.next(doubtful):
            if self._askings.is_at_rest():
                break
            envelope = one.envelope()
            if envelope is None:
                continue
            text = text_of(envelope)
            if self._has_a_double(one, text, doubtful, text_of):
                continue
            found = [record for record in self._list(envelope.to) if self._fits(record, one, text)]
            if len(found) == 1:
                seen.append(Sighting(one.message_id, str(found[0]["sid"]), _instant(found[0].get("date_created"))))
        return seen

    def _has_a_double(
        self, one: Doubtful, text: str, doubtful: Sequence[Doubtful], text_of: Callable[[Envelope], str]
    ) -> bool:
        """Whether another message in doubt, of about the same time, would look the same over there."""
        for other in doubtful:
            near = abs(other.since - one.since) <= _AFTER + _BEFORE
            if other.message_id == one.message_id or other.address_id != one.address_id or not near:
                continue
            its = other.envelope()
            if its is None or text_of(its) == text:
                return True
        return False

    def _list(self, to: str) -> list[dict[str, Any]]:
        """Return the newest records of messages to a number."""
        query = urlencode({"To": to, "PageSize": _PAGE})
        request = Request(f"{self._url}?{query}", b"", self._headers, "GET", _MOST_BYTES)
        [exchange] = self._http.post([request], boot_seconds() + _SECONDS_TO_BEGIN)
        answer = self._askings.heed(exchange)
        return [] if answer is None else _records(answer)

    def _fits(self, record: dict[str, Any], one: Doubtful, text: str) -> bool:
        made = _instant(record.get("date_created"))
        return (
            isinstance(record.get("sid"), str)
            and record.get("direction") == "outbound-api"
            and record.get("messaging_service_sid") == self._service
            and record.get("body") == text
            and made is not None
            and one.since - _BEFORE <= made <= one.since + _AFTER
        )


def _records(answer: Answer) -> list[dict[str, Any]]:
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return []
    messages = body.get("messages") if isinstance(body, dict) else None
    return [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []


def _instant(value: Any) -> datetime | None:
    try:
        return parsedate_to_datetime(value).astimezone(UTC) if isinstance(value, str) else None
    except (TypeError, ValueError):
        return None
