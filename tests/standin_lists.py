"""SendGrid's suppression lists, standing in: kept in memory, in pages, each request held against the official file."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from provider_specs import suppression_faults

GROUP = 12345
_LISTS = ("unsubscribes", "bounces", "spam_reports", "invalid_emails", "blocks")


@dataclass(frozen=True)
class Say:
    """An answer; `accept` tells whether what was asked for was done, `lose` that it never arrives."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    accept: bool = False
    lose: bool = False


@dataclass
class ListsStandIn:
    """The lists by name (`group-12345` for a group), each address with since when, and what was asked.

    Change `answers` to have it say something else than the truth; `accept` in it: it is done all the same.
    """

    entries: dict[str, dict[str, int]] = field(default_factory=dict)
    words: dict[str, tuple[str, str]] = field(default_factory=dict)  #: address -> (status, reason) of its bounce
    asked: list[tuple[str, str]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    answers: Callable[[str, str], Say | None] = lambda _method, _target: None
    now: Callable[[], float] = time.time
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, list_: str, address: str, *, ago: float = 86_400.0) -> None:
        self.entries.setdefault(list_, {})[address] = int(self.now() - ago)

    def on(self, list_: str) -> set[str]:
        with self._lock:
            return set(self.entries.get(list_, ()))

    def receive(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Say:
        with self._lock:
            self.asked.append((method, target))
            wrong = suppression_faults(method, target, headers, body)
            if wrong:
                self.complaints += wrong
                return _say(400, {"errors": [{"message": one, "field": None} for one in wrong]})
            told = self.answers(method, target)
            truth = self._truth(method, target, body) if told is None or told.accept else None
            return told or truth or Say(500)

    def _truth(self, method: str, target: str, body: bytes) -> Say:
        parts = urlsplit(target)
        match method, parts.path.split("/")[2:]:
            case "GET", ["asm", "suppressions"]:
                groups = [(name, e) for name, e in self.entries.items() if name.startswith("group-")]
                return _say(200, [
                    {"email": email, "group_id": int(name[6:]), "group_name": "Offers", "created_at": at}
                    for name, entries in groups for email, at in entries.items()
                ])  # fmt: skip
            case "POST", ["asm", "suppressions", "global"]:
                return self._add("unsubscribes", body)
            case "POST", ["asm", "groups", group, "suppressions"]:
                return self._add(f"group-{group}", body)
            case "DELETE", ["asm", "suppressions", "global", email]:
                return self._remove("unsubscribes", email)
            case "DELETE", ["asm", "groups", group, "suppressions", email]:
                return self._remove(f"group-{group}", email)
            case "GET", ["suppression", name] if name in _LISTS:
                return self._page(name, dict(parse_qsl(parts.query)))
            case "DELETE", ["suppression", name, email] if name in _LISTS:
                return self._remove(name, email)
        return Say(404)

    def _add(self, list_: str, body: bytes) -> Say:
        addresses = json.loads(body)["recipient_emails"]
        for address in addresses:
            self.entries.setdefault(list_, {}).setdefault(address, int(self.now()))
        return _say(201, {"recipient_emails": addresses})

    def _remove(self, list_: str, email: str) -> Say:
        there = self.entries.get(list_, {}).pop(unquote(email), None)
        return Say(204) if there is not None else _say(404, {"errors": [{"message": "not found", "field": None}]})

    def _page(self, list_: str, query: Mapping[str, str]) -> Say:
        until = int(query.get("end_time", 1 << 40))
        rows = sorted(self.entries.get(list_, {}).items(), key=lambda row: (-row[1], row[0]))
        rows = [row for row in rows if row[1] <= until and row[0].startswith(query.get("email", ""))]
        begin = int(query.get("offset", 0))
        return _say(200, [self._row(list_, *row) for row in rows[begin : begin + int(query.get("limit", 500))]])

    def _row(self, list_: str, email: str, at: int) -> dict[str, Any]:
        row: dict[str, Any] = {"created": at, "email": email}
        if list_ == "bounces":
            row["status"], row["reason"] = self.words.get(email, ("5.1.1", f"550 5.1.1 <{email}>: User unknown"))
        elif list_ == "invalid_emails":
            row["reason"] = "Mail domain mentioned in email address is unknown"
        elif list_ == "spam_reports":
            row["ip"] = "10.63.202.100"
        return row


def _say(status: int, body: Any) -> Say:
    return Say(status, json.dumps(body).encode(), {"Content-Type": "application/json"})
