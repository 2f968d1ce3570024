"""What SendGrid and Twilio show of the messages they took, standing in."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from provider_specs import activity_faults, twilio_list_faults, twilio_message_faults
from standin_lists import Say

from dispatcher.providers.protocol import boot_seconds

_TWILIO = re.compile(r"/2010-04-01/Accounts/(AC[0-9a-f]{32})/Messages\.json")
_ASKED_FOR = re.compile(r"unique_args\['dispatcher_message_id'\]=\"([0-9a-f-]{36})\"")


@dataclass
class RecordsStandIn:
    """Change `answers` to have it say something else than the truth, `change` to have a record look otherwise."""

    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    answers: Callable[[str], Say | None] = lambda _target: None
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda record: record

    def receive(self, target: str, headers: Mapping[str, str], taken: Sequence[Any]) -> Say:
        self.asked.append(target)
        parts = urlsplit(target)
        twilio = _TWILIO.fullmatch(parts.path)
        if twilio:
            wrong = twilio_list_faults(twilio[1], headers, parts.query)
        elif parts.path.startswith("/v3/messages"):
            wrong = activity_faults(target, headers)
        else:
            wrong = [f"no such path: {parts.path}"]
        if wrong:
            self.complaints += wrong
            return _say(400, {"errors": [{"message": one} for one in wrong]})
        told = self.answers(target)
        if told is not None:
            return told
        query = dict(parse_qsl(parts.query))
        if twilio:
            return self._texts(twilio[1], query, taken)
        if parts.path == "/v3/messages":
            return self._list(query["query"], taken)
        return self._mail(unquote(parts.path.removeprefix("/v3/messages/")), taken)

    def _texts(self, account: str, query: Mapping[str, str], taken: Sequence[Any]) -> Say:
        records = []
        for one in reversed(taken):
            if one.to != query["To"]:
                continue
            record = self.change(
                {
                    "account_sid": account, "sid": f"SM{one.message_id.replace('-', '')}", "to": one.to,
                    "body": one.said["Body"], "messaging_service_sid": one.said["MessagingServiceSid"],
                    "direction": "outbound-api", "status": "sent", "date_created": format_datetime(_when(one.at)),
                }
            )  # fmt: skip
            self.complaints += twilio_message_faults(record)
            records.append(record)
        return _say(200, {"messages": records[: int(query.get("PageSize", 50))], "next_page_uri": None})

    def _list(self, query: str, taken: Sequence[Any]) -> Say:
        found = _ASKED_FOR.fullmatch(query)
        assert found is not None
        shown = [
            {"from_email": "hello@small.example", "msg_id": f"{one.message_id}.filter.0", "subject": "For you",
             "to_email": one.to, "status": "delivered", "opens_count": 0, "clicks_count": 0,
             "last_event_time": _when(one.at).isoformat()}
            for one in taken if one.message_id == found[1]
        ]  # fmt: skip
        return _say(200, {"messages": shown[:1]})

    def _mail(self, number: str, taken: Sequence[Any]) -> Say:
        for one in taken:
            if number == f"{one.message_id}.filter.0":
                record = {"msg_id": number, "to_email": one.to, "unique_args": json.dumps(one.said["custom_args"]),
                          "events": [{"event_name": "processed", "processed": _when(one.at).isoformat()}]}  # fmt: skip
                return _say(200, self.change(record))
        return _say(404, {"errors": [{"message": "not found"}]})


def _when(boot: float) -> datetime:
    return (datetime.fromtimestamp(time.time(), UTC) - timedelta(seconds=boot_seconds() - boot)).replace(microsecond=0)


def _say(status: int, body: Any) -> Say:
    return Say(status, json.dumps(body).encode(), {"Content-Type": "application/json"})
