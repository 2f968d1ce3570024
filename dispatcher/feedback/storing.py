"""The row of an event: its key, what it was found to be about, and the event itself, sealed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from dispatcher.feedback.matching import Match
from dispatcher.feedback.report import Kind, Report
from dispatcher.keys import DataKey, KeyRing

#: Where a message can be that feedback is about in the usual course of things.
ON_THEIR_WAY = ("sending", "unknown", "sent", "delivered", "bounced")


@dataclass(frozen=True, slots=True)
class Event:
    """A report with its key, and what it was found to be about."""

    report: Report
    key: bytes
    match: Match

    @property
    def concerns_the_address(self) -> bool:
        if self.report.suppress is not None and self.report.address is not None and self.match.message_id is None:
            return True
        return self.match.message_id is not None and (
            self.report.suppress is not None
            or self.report.kind is Kind.BOUNCED
            or self.match.status not in ON_THEIR_WAY
        )


def key_of(key_ring: KeyRing, report: Report) -> bytes:
    identity = report.identity.encode("utf-8", "replace").decode()
    return key_ring.address_hash("feedback", f"{report.source}\0{identity}")


@dataclass(slots=True)
class Sealer:
    """Seals events, each under the key of the person it is about, else under one of its own."""

    key_ring: KeyRing
    opened: dict[bytes, DataKey] = field(default_factory=dict)

    def seal(self, event: Event) -> tuple[bytes | None, bytes | None]:
        """Return (wrapped key, sealed event); neither for a person who was erased, nor for nothing."""
        if event.match.erased or event.report.raw is None:
            return None, None
        if event.match.contact_id is None:
            data_key, wrapped = self.key_ring.new_data_key()
            return wrapped, _seal(data_key, event.report.raw)
        if event.match.data_key is None:
            return None, None
        theirs = self.opened.get(event.match.data_key)
        if theirs is None:
            theirs = self.opened[event.match.data_key] = self.key_ring.open_data_key(event.match.data_key)
        return None, _seal(theirs, event.report.raw)


def _seal(data_key: DataKey, raw: Any) -> bytes:
    try:
        return data_key.seal({"event": raw})
    except TypeError:  # a lone surrogate, a key that is no string: kept as text
        return data_key.seal({"event": json.dumps(raw, default=repr)})


_INSERT = text("""
INSERT INTO feedback (source, event_key, provider_event_id, kind, hard, code, message_id, contact_id, address_id,
                      occurred_at, received_at, flaw, link, bot, data_key, sealed)
SELECT * FROM unnest(
    CAST(:source AS text[]), CAST(:event_key AS bytea[]), CAST(:provider_event_id AS text[]), CAST(:kind AS text[]),
    CAST(:hard AS boolean[]), CAST(:code AS text[]), CAST(:message_id AS uuid[]), CAST(:contact_id AS bigint[]),
    CAST(:address_id AS bigint[]), CAST(:occurred_at AS timestamptz[]), CAST(:received_at AS timestamptz[]),
    CAST(:flaw AS text[]), CAST(:link AS smallint[]), CAST(:bot AS text[]), CAST(:data_key AS bytea[]),
    CAST(:sealed AS bytea[]))
ON CONFLICT DO NOTHING RETURNING event_key
""")
_COLUMNS = (
    "source", "event_key", "provider_event_id", "kind", "hard", "code", "message_id", "contact_id", "address_id",
    "occurred_at", "received_at", "flaw", "link", "bot", "data_key", "sealed",
)  # fmt: skip


def insert(
    connection: Connection,
    sealer: Sealer,
    events: Sequence[tuple[Event, str | None]],
    received_at: datetime,
    now: datetime,
) -> set[bytes]:
    """Write the events that were not told before; return their keys."""
    if not events:
        return set()
    rows = []
    for event, flaw in events:
        report, found = event.report, event.match
        occurred_at = min(report.occurred_at or received_at, now)
        rows.append(
            (report.source, event.key, plain(report.event_id), report.kind, report.hard, plain(report.code),
             found.message_id, found.contact_id, found.address_id, occurred_at, received_at, flaw,
             report.link, report.bot, *sealer.seal(event))
        )  # fmt: skip
    columns = dict(zip(_COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    return {bytes(key) for key in connection.scalars(_INSERT, columns)}


def plain(value: str | None) -> str | None:
    """Return the text as PostgreSQL takes it."""
    if value is None:
        return None
    return value.replace("\0", "").encode("utf-8", "replace").decode()[:200] or None
