"""The provider's own log, put beside the ledger in temporary tables so that one query can compare all of it.

`verify_line` has a row per accepted message, `verify_token` one per link to somebody's page in it, `verify_click` one
per link whose clicks are counted, `verify_mention` one per foreign e-mail address in it, by its keyed hash.  The log is
streamed: its size does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from dispatcher.addresses import BadAddress, normal_email, normal_phone
from dispatcher.db import copy_rows
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.tables import CHANNELS
from dispatcher.tokens import (
    BadToken,
    ClickTokens,
    DataTokens,
    PreferenceTokens,
    UnsubscribeTokens,
    WayHome,
    WayToData,
)

_PAGE = 5_000
_TELL_EVERY = 20_000
_MOST_NAMED = 20

_TABLES = """
DROP TABLE IF EXISTS pg_temp.verify_line, pg_temp.verify_token, pg_temp.verify_click, pg_temp.verify_mention;
CREATE TEMPORARY TABLE verify_line (
    line bigint PRIMARY KEY, message_id uuid NOT NULL, run_id uuid NOT NULL, contact text NOT NULL,
    channel text NOT NULL, to_hash bytea, at timestamptz NOT NULL, ways_out smallint NOT NULL,
    one_click boolean NOT NULL
) ON COMMIT DROP;
CREATE TEMPORARY TABLE verify_token (
    line bigint NOT NULL, place text NOT NULL, contact_id bigint, channel text, topic text, address_id bigint
) ON COMMIT DROP;
CREATE TEMPORARY TABLE verify_click (line bigint NOT NULL, tracked_id bigint NOT NULL) ON COMMIT DROP;
CREATE TEMPORARY TABLE verify_mention (line bigint NOT NULL, hash bytea NOT NULL) ON COMMIT DROP;
"""
_INDEXES = """
CREATE INDEX ON verify_line (message_id);
CREATE INDEX ON verify_mention (hash);
ANALYZE verify_line; ANALYZE verify_token; ANALYZE verify_click; ANALYZE verify_mention;
"""
_LINE = ("line", "message_id", "run_id", "contact", "channel", "to_hash", "at", "ways_out", "one_click")
_TOKEN = ("line", "place", "contact_id", "channel", "topic", "address_id")
_CLICK = ("line", "tracked_id")
_MENTION = ("line", "hash")


@dataclass(slots=True)
class ProviderLog:
    """What was read of a log."""

    lines: int = 0  #: acceptances
    torn: list[int] = field(default_factory=list)  #: lines that a killed writer did not finish: the first ones
    torn_total: int = 0
    strange: list[int] = field(default_factory=list)  #: whole lines that are no acceptance: the first ones
    strange_total: int = 0
    newer: int = 0  #: of messages that were still under way when this look at the ledger began

    def as_json(self) -> dict[str, Any]:
        return {"lines": self.lines, "torn": self.torn_total, "torn_lines": self.torn, "newer": self.newer}


def read_log(
    connection: Connection, key_ring: KeyRing, path: Path, *, moment: datetime, progress: Callable[[str], None]
) -> ProviderLog:
    """Read the log into the temporary tables; Refused if it is none."""
    _run(connection, _TABLES)
    log = ProviderLog()
    reader = _Reader(key_ring, log)
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                reader.take(number, raw)
                if number % _PAGE == 0:
                    reader.write(connection)
                if number % _TELL_EVERY == 0:
                    progress(f"reading the provider's log: {number:,} lines")
    except OSError as error:
        raise Refused(f"the provider log {path} cannot be read: {error.strerror}") from error
    if not log.lines and log.torn_total > 1:  # one torn line is a killed writer's
        raise Refused(f"{path} is no provider log: none of its lines is what a provider accepted")
    reader.write(connection)
    _run(connection, _INDEXES)
    log.newer = _leave_out_what_is_under_way(connection, moment)
    log.lines -= log.newer
    return log


def _run(connection: Connection, statements: str) -> None:
    for statement in filter(None, (s.strip() for s in statements.split(";"))):
        connection.execute(text(statement))


def _leave_out_what_is_under_way(connection: Connection, moment: datetime) -> int:
    """Forget lines that live workers wrote after this look at the ledger began; return how many."""
    return int(
        connection.execute(
            text("""
                DELETE FROM verify_line l WHERE l.at > :moment
                AND EXISTS (SELECT FROM worker WHERE ended_at IS NULL AND heartbeat_at > now() - interval '1 minute')
                AND NOT EXISTS (
                    SELECT FROM message m WHERE m.id = l.message_id AND m.status NOT IN ('pending', 'sending'))
            """),
            {"moment": moment},
        ).rowcount
    )


class _Reader:
    """Takes the log line by line, and writes the tables by the page."""

    def __init__(self, key_ring: KeyRing, log: ProviderLog) -> None:
        self._key_ring = key_ring
        self._tokens = UnsubscribeTokens(key_ring)
        self._clicks = ClickTokens(key_ring)
        self._own_pages: dict[str, PreferenceTokens | DataTokens] = {
            "p": PreferenceTokens(key_ring),
            "m": DataTokens(key_ring),
        }
        self._log = log
        self._lines: list[tuple[Any, ...]] = []
        self._links: list[tuple[Any, ...]] = []
        self._clickable: list[tuple[Any, ...]] = []
        self._mentions: list[tuple[Any, ...]] = []
        self._email_hash = lru_cache(maxsize=4096)(self._hash_of_email)
        self._opened = lru_cache(maxsize=16)(self._open)  # the same link stands in a mail three times
        self._own_page = lru_cache(maxsize=16)(self._open_page)

    def take(self, number: int, raw: bytes) -> None:
        if not raw.strip():
            return
        try:
            entry = orjson.loads(raw)
            if isinstance(entry, dict) and entry.get("run", "") is None:
                return  # a test message: it belongs to no run
        except orjson.JSONDecodeError:
            self._log.torn_total += 1
            self._log.torn += [number] if len(self._log.torn) < _MOST_NAMED else []
            return
        try:
            self._read(number, entry)
        except (KeyError, TypeError, ValueError, AttributeError):
            self._log.strange_total += 1
            self._log.strange += [number] if len(self._log.strange) < _MOST_NAMED else []

    def write(self, connection: Connection) -> None:
        copy_rows(connection, "verify_line", _LINE, self._lines)
        copy_rows(connection, "verify_token", _TOKEN, self._links)
        copy_rows(connection, "verify_click", _CLICK, self._clickable)
        copy_rows(connection, "verify_mention", _MENTION, self._mentions)
        for rows in (self._lines, self._links, self._clickable, self._mentions):
            rows.clear()

    def _read(self, number: int, entry: dict[str, Any]) -> None:
        headers = [(str(name).lower(), str(value)) for name, value in entry["headers"]]
        words = [str(entry.get(part) or "") for part in ("subject", "text", "html")]
        to_hash = self._hash(entry["channel"], str(entry["to"]))
        at = datetime.fromisoformat(entry["at"])
        contact, message_id = str(entry["contact"]), UUID(entry["message_id"])
        ways_out = [value for name, value in headers if name == "list-unsubscribe"]
        one_click = [value for name, value in headers if name == "list-unsubscribe-post"]
        if at.tzinfo is None or "\0" in contact or entry["channel"] not in CHANNELS:
            raise ValueError
        line = (
            number, message_id, UUID(entry["run"]), contact, entry["channel"], to_hash, at,
            min(len(ways_out), 99), one_click == ["List-Unsubscribe=One-Click"],
        )  # fmt: skip
        self._lines.append(line)
        self._log.lines += 1
        for value in ways_out:
            self._links.append((number, "List-Unsubscribe", *self._opened(token_in(value))))
        for token in {found[1] for part in words for found in _LINK.finditer(part)}:
            self._links.append((number, "body", *self._opened(token)))
        for tracked_id in {self._opened_click(found[1]) for part in words for found in _CLICK_LINK.finditer(part)}:
            if tracked_id is not None:
                self._clickable.append((number, tracked_id))
        for link in {found.groups() for part in words for found in _PAGE_LINK.finditer(part)}:
            if (page := self._own_page(*link)) is not None:
                self._links.append((number, "page", page.contact_id, page.channel, None, page.address_id))
        words += [value for name, value in headers if name != "message-id"]
        for digest in {self._email_hash(address) for part in words for address in addresses_in(part)}:
            if digest is not None and digest != to_hash:
                self._mentions.append((number, digest))

    def _open(self, token: str) -> tuple[Any, ...]:
        try:
            way_out = self._tokens.read(token)
        except BadToken:
            return None, None, None, None
        return way_out.contact_id, way_out.channel, way_out.topic, way_out.address_id

    def _opened_click(self, token: str) -> int | None:
        """Return the message's number; None for a page of the shop whose address looks like a link of ours."""
        try:
            return self._clicks.read(token).tracked_id
        except BadToken:
            return None

    def _open_page(self, kind: str, token: str) -> WayHome | WayToData | None:
        """Return whose page it is; None if it is no link of ours: a shop's own address may look like one."""
        try:
            return self._own_pages[kind].read(token)
        except BadToken:
            return None

    def _hash(self, channel: str, to: str) -> bytes | None:
        try:
            normal = normal_email(to) if channel == "email" else normal_phone(to, None)
        except BadAddress:
            return None
        return self._key_ring.address_hash(channel, normal)

    def _hash_of_email(self, address: str) -> bytes | None:
        return self._hash("email", address)


_LINK = re.compile(r"/u/([A-Za-z0-9_-]{4,130}\.[A-Za-z0-9_-]{22})(?![A-Za-z0-9_-])")
_CLICK_LINK = re.compile(r"/c/([A-Za-z0-9_-]{16,32})(?![A-Za-z0-9_-])")
_PAGE_LINK = re.compile(r"/([pm])/([A-Za-z0-9_-]{4,130}\.[A-Za-z0-9_-]{22})(?![A-Za-z0-9_-])")
# Both ways of reading what stands before the @: everything that may, and what usually does (?to=ana@...).
_BEFORE = (re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+"), re.compile(r"[A-Za-z0-9._+-]+"))
_AT = re.compile(r"@([\w-]+(?:\.[\w-]+)+)")  # from the @ on: looked for in one go, whatever is before it
_LONGEST_LOCAL = 64


def token_in(way_out: str) -> str:
    """Return the token of a List-Unsubscribe header; what is none of ours comes back as it is."""
    found = _LINK.search(way_out)
    return found[1] if found else way_out


def addresses_in(words: str) -> Iterator[str]:
    """Yield whatever in a text looks like an e-mail address, also where its @ is escaped for a link or for HTML."""
    for escaped in ("%40", "&#64;", "&commat;"):
        if escaped in words:
            words = words.replace(escaped, "@")
    for at in _AT.finditer(words):
        backwards = words[max(0, at.start() - _LONGEST_LOCAL) : at.start()][::-1]
        yield from {f"{found[0][::-1]}@{at[1]}" for form in _BEFORE if (found := form.match(backwards))}
