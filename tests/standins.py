"""SendGrid and Twilio, standing in on this machine: they look hard at requests, count, and lose replies when told to.

What they accept is on their record, whatever they then answer: that is what a receipt is held against.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from provider_specs import read_both, sendgrid_faults, twilio_faults
from standin_lists import ListsStandIn, Say
from standin_records import RecordsStandIn

from dispatcher.providers.protocol import boot_seconds

_TWILIO = re.compile(r"/2010-04-01/Accounts/(AC[0-9a-f]{32})/Messages\.json")
_LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Taken:
    """A message that was accepted."""

    message_id: str
    to: str
    at: float  #: boot time
    said: Mapping[str, Any]  #: SendGrid's personalization, or Twilio's form


@dataclass(frozen=True)
class Call:
    """A request that could be read."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    people: tuple[Taken, ...]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class StandIn:
    """Its record.  Change `answers` to have it say something else than that it accepts; None: accept."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)  #: about requests that no provider would understand
    answers: Callable[[Call], Say | None] = lambda _: None
    lists: ListsStandIn = field(default_factory=ListsStandIn)  #: SendGrid's own suppression lists
    records: RecordsStandIn = field(default_factory=RecordsStandIn)  #: what both show of what they took
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ids(self) -> list[str]:
        return [one.message_id for one in self.taken]

    def receive(self, path: str, headers: Mapping[str, str], body: bytes, method: str = "POST") -> Say:
        if path.startswith(("/v3/asm/", "/v3/suppression/")):
            return self.lists.receive(method, path, headers, body)
        if method == "GET":
            return self.records.receive(path, headers, self.taken)
        found = _TWILIO.fullmatch(path)
        if found:
            wrong = twilio_faults(found[1], headers, body)
        elif path == "/v3/mail/send":
            wrong = sendgrid_faults(headers, body)
        else:
            wrong = [f"no such path: {path}"]
        if wrong:
            with self._lock:
                self.complaints += wrong
            return Say(400, json.dumps({"errors": [{"message": one, "field": None} for one in wrong]}).encode())
        call = Call(path, headers, body, tuple(_texts(body) if found else _mails(body)))
        say = self.answers(call) or _accept(call, twilio=bool(found))
        with self._lock:
            self.calls.append(call)
            if say.accept:
                self.taken += call.people
        return say


def _mails(body: bytes) -> Iterator[Taken]:
    for person in json.loads(body)["personalizations"]:
        message_id = person["custom_args"]["dispatcher_message_id"]
        yield Taken(message_id, person["to"][0]["email"], boot_seconds(), person)


def mails_in(body: bytes, *, backwards: bool = False) -> Iterator[tuple[str, str, dict[str, str], dict[str, str]]]:
    """Yield address, subject, content and headers of each mail that a request to SendGrid makes, as its documents say.

    Substitutions are plain find-and-replace in subject and content; of subject and headers the person's own win.
    """
    request = json.loads(body)
    for person in request["personalizations"]:
        texts = {"subject": person.get("subject", request.get("subject"))}
        texts |= {part["type"]: part["value"] for part in request["content"]}
        tags = list(person.get("substitutions", {}).items())
        for tag, value in reversed(tags) if backwards else tags:
            texts = {place: text.replace(tag, value) for place, text in texts.items()}
        headers = request.get("headers", {}) | person.get("headers", {})
        yield person["to"][0]["email"], texts.pop("subject"), texts, headers


def _texts(body: bytes) -> Iterator[Taken]:
    form = dict(parse_qsl(body.decode()))
    message_id = dict(parse_qsl(urlsplit(form["StatusCallback"]).query))["dispatcher_message_id"]
    yield Taken(message_id, form["To"], boot_seconds(), form)


def _accept(call: Call, *, twilio: bool) -> Say:
    if twilio:
        sid = f"SM{call.people[0].message_id.replace('-', '')}"
        return Say(201, json.dumps({"sid": sid, "status": "accepted"}).encode(), accept=True)
    return Say(202, headers={"X-Message-Id": f"request-{call.people[0].message_id}"}, accept=True)


def twilio_error(code: int, status: int = 400, **headers: str) -> Say:
    body = {"code": code, "message": "To number +447700900001 is not good", "more_info": "", "status": status}
    return Say(status, json.dumps(body).encode(), headers={"Content-Type": "application/json", **headers})


def sendgrid_error(status: int, *errors: tuple[str | None, str], **headers: str) -> Say:
    body = {"errors": [{"field": path, "message": message, "help": None} for path, message in errors]}
    return Say(status, json.dumps(body).encode(), headers={"Content-Type": "application/json", **headers})


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Yield a stand-in for both APIs, listening at its `url`."""
    record = StandIn()
    read_both()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            say = record.receive(self.path, dict(self.headers), body, self.command)
            if say.lose:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                self.close_connection = True
                self.connection.close()
                return
            self.send_response(say.status)
            for name, value in {**say.headers, "Content-Length": str(len(say.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(say.body)

        do_GET = do_DELETE = do_POST  # noqa: N815 - the library's names

        def handle(self) -> None:
            try:
                super().handle()
            except (OSError, ValueError):  # the other side left, or we closed it on them
                self.close_connection = True

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    record.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    try:
        yield record
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
