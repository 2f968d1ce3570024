"""SendGrid's Email Activity: a record of what it took, which knows our message id.

It has to be bought, and the API key needs the permission Email Activity.  A list is filtered by our custom argument;
then the message itself is read, and counts only if our id stands in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from dispatcher.doubt import Doubtful, Sighting
from dispatcher.providers.askings import Askings
from dispatcher.providers.http import Answer, Http, Request
from dispatcher.providers.protocol import boot_seconds
from dispatcher.providers.sendgrid.drafts import MESSAGE_ID_ARGUMENT

#: So few, as the limit of this API is low and not written down; it says 429 where that is too many.
_AT_ONCE = 2
_SECONDS_TO_BEGIN = 10.0


class Activity:
    def __init__(self, http: Http, *, api_key: str, url: str) -> None:
        self._http = http
        self._url = f"{url}/v3/messages"
        self._headers = {"Authorization": f"Bearer {api_key}", "Accept": "application/json"}
        self._askings = Askings(_AT_ONCE)

    def look_up(self, doubtful: Sequence[Doubtful]) -> list[Sighting]:
        seen = []
        for one in self._askings.next(doubtful):
            if not self._askings.is_at_rest() and (found := self._look_up(one)) is not None:
                seen.append(found)
        return seen

    def _look_up(self, one: Doubtful) -> Sighting | None:
        query = urlencode({"query": f"unique_args['{MESSAGE_ID_ARGUMENT}']=\"{one.message_id}\"", "limit": 1})
        listed = self._get(f"?{query}")
        messages = listed.get("messages")
        if not isinstance(messages, list) or not messages or not isinstance(messages[0], dict):
            return None
        number = messages[0].get("msg_id")
        if not isinstance(number, str) or not number:
            return None
        message = self._get(f"/{quote(number, safe='')}")
        if not _is_ours(message, str(one.message_id)):
            return None
        return Sighting(one.message_id, number.split(".")[0][:200], _first_event(message))

    def _get(self, rest: str) -> dict[str, Any]:
        """Return what it says; {} if that is nothing."""
        request = Request(self._url + rest, b"", self._headers, "GET")
        [exchange] = self._http.post([request], boot_seconds() + _SECONDS_TO_BEGIN)
        answer = self._askings.heed(exchange)
        return {} if answer is None else _object(answer)


def _object(answer: Answer) -> dict[str, Any]:
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _is_ours(message: dict[str, Any], message_id: str) -> bool:
    """Whether our id stands in the message's custom arguments, which come as an object or as JSON in a text."""
    arguments = message.get("unique_args")
    if isinstance(arguments, str):
        try:
            arguments = orjson.loads(arguments)
        except orjson.JSONDecodeError:
            return False
    return isinstance(arguments, dict) and arguments.get(MESSAGE_ID_ARGUMENT) == message_id


def _first_event(message: dict[str, Any]) -> datetime | None:
    events = message.get("events")
    moments = []
    for event in events if isinstance(events, list) else ():
        try:
            moments.append(datetime.fromisoformat(event["processed"]).astimezone(UTC))
        except (KeyError, TypeError, ValueError):
            continue
    return min(moments, default=None)
