"""SendGrid's own suppression lists, read and changed over its API (v3, "Suppressions").

What each stops there: global unsubscribes, bounces, invalid addresses and spam reports stop every mail of the account
that does not ask to pass them; an unsubscribe group only mails that name the group.  "Blocks" are no suppression: they
say that one mail was refused, and SendGrid tries the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote, urlencode

import orjson

from dispatcher.providers.http import Answer, Http, Request, retry_wait
from dispatcher.providers.protocol import Entry, ListsUnavailable, TheirList, boot_seconds

UNSUBSCRIBES = TheirList("unsubscribes", "unsubscribe", stops="all")
GROUP = TheirList("group", "unsubscribe", stops="marketing")
SPAM_REPORTS = TheirList("spam_reports", "complaint")
BOUNCES = TheirList("bounces", "hard_bounce")
INVALID = TheirList("invalid_emails", "invalid")

PAGE = 500  #: the most that a page of a list may have; API reference
#: Unsubscribes of groups come in one piece, whatever their number.
_MOST_BYTES = 64_000_000
#: How many addresses go on a list in one request; no limit is documented.
_AT_ONCE = 200
_TRIES = 5
_LONGEST_PAUSE = timedelta(seconds=60)
_SECONDS_TO_BEGIN = 20.0


class Lists:
    """The lists of one account; each request is safe to repeat, and is repeated a few times."""

    def __init__(
        self,
        http: Http,
        *,
        api_key: str,
        url: str,
        group: int | None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._http = http
        self._url = url
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        self._group = group
        self._pause = pause

    def all(self) -> tuple[TheirList, ...]:
        lists = (UNSUBSCRIBES, SPAM_REPORTS, BOUNCES, INVALID)
        return (*lists, GROUP) if self._group is not None else lists

    def entries(self, list_: TheirList, until: datetime) -> Iterator[list[Entry]]:
        if list_ == GROUP:  # this way they come with their times
            answer = self._call("GET", "/v3/asm/suppressions", most_bytes=_MOST_BYTES)
            items = [item for item in _items(answer) if item.get("group_id") == self._group]
            yield [_entry(item, "created_at") for item in items]
            return
        offset = 0
        while True:
            query = urlencode({"end_time": int(until.timestamp()), "limit": PAGE, "offset": offset})
            items = _items(self._call("GET", f"/v3/suppression/{list_.name}?{query}"))
            yield [_entry(item, "created") for item in items]
            if len(items) < PAGE:
                return
            offset += PAGE

    def since(self, list_: TheirList, address: str) -> datetime | None:
        if list_ == GROUP:  # only all of them together come with their times
            return None
        query = urlencode({"email": address, "limit": PAGE})  # whose addresses begin so
        found = [_entry(item, "created") for item in _items(self._call("GET", f"/v3/suppression/{list_.name}?{query}"))]
        return next((entry.at for entry in found if entry.address.lower() == address), None)

    def put_on(self, list_: TheirList, addresses: Sequence[str]) -> list[str]:
        return [
            refused
            for start in range(0, len(addresses), _AT_ONCE)
            for refused in self._put_some(list_, addresses[start : start + _AT_ONCE])
        ]

    def _put_some(self, list_: TheirList, addresses: Sequence[str]) -> list[str]:
        """Put these on the list in one request; of one that is refused, each half by itself."""
        body = orjson.dumps({"recipient_emails": list(addresses)})
        answer = self._call("POST", self._path(list_), body)
        if answer.status < 300:
            return []
        if len(addresses) == 1:
            return list(addresses)
        middle = len(addresses) // 2
        return self._put_some(list_, addresses[:middle]) + self._put_some(list_, addresses[middle:])

    def take_off(self, list_: TheirList, address: str) -> None:
        path = self._path(list_) if list_.stops else f"/v3/suppression/{list_.name}"
        self._call("DELETE", f"{path}/{quote(address, safe='')}")  # 404: it is not there

    def _path(self, list_: TheirList) -> str:
        return "/v3/asm/suppressions/global" if list_ == UNSUBSCRIBES else f"/v3/asm/groups/{self._group}/suppressions"

    def _call(
        self, method: Literal["POST", "GET", "DELETE"], path: str, body: bytes = b"", *, most_bytes: int = 1_000_000
    ) -> Answer:
        """Return a complete answer that is no 5xx; ListsUnavailable if there is none after a few tries."""
        request = Request(self._url + path, body, self._headers, method, most_bytes)
        said = ""
        for attempt in range(_TRIES):
            [exchange] = self._http.post([request], boot_seconds() + _SECONDS_TO_BEGIN)
            wait = timedelta(seconds=2**attempt)
            if not isinstance(exchange, Answer):
                said = exchange.detail
            elif exchange.status in (401, 403):
                words = f"SendGrid answered {exchange.status}: the API key needs the permission Suppressions"
                raise ListsUnavailable(words, timedelta(hours=1))
            elif exchange.status == 429:
                said, wait = "SendGrid has had enough (429)", retry_wait(exchange.headers)
                if wait > _LONGEST_PAUSE:
                    raise ListsUnavailable(said, wait)
            elif exchange.status >= 500 or not exchange.whole:
                said = f"SendGrid answered {exchange.status}"
            elif method == "GET" and exchange.status != 200:
                raise ListsUnavailable(f"SendGrid answered {exchange.status} to {path.partition('?')[0]}", _LATER)
            else:
                return exchange
            if attempt + 1 < _TRIES:
                self._pause(wait.total_seconds())
        raise ListsUnavailable(said, _LATER)


_LATER = timedelta(minutes=5)


def _items(answer: Answer) -> list[dict[str, Any]]:
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, list) or not all(isinstance(item, dict) for item in body):
        raise ListsUnavailable("SendGrid answered something that is no list", _LATER)
    return body


def _entry(item: dict[str, Any], stamp: str) -> Entry:
    at = item.get(stamp)
    words = " ".join(str(item[name]) for name in ("status", "reason") if item.get(name))
    return Entry(
        str(item.get("email") or ""),
        datetime.fromtimestamp(at, UTC) if isinstance(at, int) and 0 < at < 1 << 40 else None,
        words[:500],
    )
