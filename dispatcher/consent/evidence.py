"""The evidence itself: append-only, each piece linked to the one before by its hash."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from sqlalchemy import Connection, Row, text

from dispatcher.consent.rules import CONSENT, Basis, Evidence
from dispatcher.db import copy_rows
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_consent_chain

UNDATED = " (no time given)"  # ends the source of evidence whose time is only that of its arrival
_GENESIS = bytes(32)
_MOST_FINDINGS = 100

Action = Literal["requested", "granted", "withdrawn"]
Actor = Literal["person", "import", "shop", "operator"]


@dataclass(frozen=True, slots=True)
class ConsentChange:
    """A claim that a person asked for, granted or withdrew consent."""

    contact_id: int
    channel: str
    topic: str
    action: Action
    actor: Actor
    source: str  #: form, page, file hash and line ...: how we know
    occurred_at: datetime | None = None  #: None: not known, the arrival counts (once)
    address_id: int | None = None  #: the address it was given for
    wording: Mapping[str, str] | None = None  #: {"id", "hash", "language"} of the text the person read
    opt_in_level: str | None = None
    basis: Basis = CONSENT  #: of a grant
    confirmation: Mapping[str, Any] | None = None  #: the message whose link was used, see `opt_in.confirm`
    sealed: Mapping[str, str] | None = None  #: personal parts (IP, user agent); stored under the contact's key only

    @property
    def key(self) -> Key:
        return self.contact_id, self.channel, self.topic

    @property
    def kept_basis(self) -> Basis | None:
        """What is stored: only a grant rests on something."""
        return self.basis if self.action == "granted" else None


Key = tuple[int, str, str]  # contact, channel, topic
Contacts = dict[int, tuple[bytes | None, dict[str, int | None]]]  # data key, present address by channel


def read_contacts(connection: Connection, ids: set[int]) -> Contacts:
    rows = connection.execute(
        text("SELECT id, data_key, email_address_id, sms_address_id FROM contact WHERE id = ANY(:ids)"),
        {"ids": sorted(ids)},
    )
    return {row.id: (row.data_key, {"email": row.email_address_id, "sms": row.sms_address_id}) for row in rows}


# What was evidenced for a contact that was merged away is the survivor's.
_EVIDENCE = text("""
    WITH person AS (
        SELECT id, id AS survivor FROM contact WHERE id = ANY(:ids)
        UNION ALL SELECT id, merged_into FROM contact WHERE merged_into = ANY(:ids)
    )
    SELECT person.survivor, e.channel, e.topic, e.id, e.action, e.actor, e.occurred_at, e.received_at, e.address_id,
           e.opt_in_level, e.source, e.basis
    FROM consent_event e JOIN person ON person.id = e.contact_id
""")


def read_evidence(connection: Connection, contact_ids: list[int]) -> defaultdict[Key, list[Evidence]]:
    found: defaultdict[Key, list[Evidence]] = defaultdict(list)
    for survivor, channel, topic, *rest in connection.execute(_EVIDENCE, {"ids": contact_ids}):
        found[survivor, channel, topic].append(Evidence(*rest))
    return found


class Known:
    """Which claims are evidenced already."""

    def __init__(self, evidence: Mapping[Key, list[Evidence]]) -> None:
        self._dated: set[tuple[object, ...]] = set()
        self._undated: set[tuple[object, ...]] = set()
        for key, pieces in evidence.items():
            for piece in pieces:
                claim = (*key, piece.action, piece.actor, piece.basis)
                self._dated.add((*claim, piece.occurred_at))
                if piece.source.endswith(UNDATED):
                    self._undated.add(claim)

    def is_new(self, change: ConsentChange) -> bool:
        """Whether this claim is not there yet; from now on it is."""
        claim = (*change.key, change.action, change.actor, change.kept_basis)
        seen, mark = (
            (self._undated, claim) if change.occurred_at is None else (self._dated, (*claim, change.occurred_at))
        )
        if mark in seen:
            return False
        seen.add(mark)
        return True


_COLUMNS = (
    "id", "contact_id", "channel", "address_id", "address_hash", "topic", "action", "actor", "occurred_at",
    "received_at", "source", "wording", "opt_in_level", "basis", "confirmation", "sealed", "order_seq",
)  # fmt: skip


def append(
    connection: Connection, key_ring: KeyRing, contacts: Contacts, changes: list[ConsentChange], now: datetime
) -> list[dict[str, Any]]:
    """Append the changes to the chain; return the rows as they were written."""
    if not changes:
        return []
    hashes = _address_hashes(connection, {change.address_id for change in changes if change.address_id is not None})
    lock_consent_chain(connection)
    last = connection.execute(text("SELECT id, hash FROM consent_event ORDER BY id DESC LIMIT 1")).one_or_none()
    first_id, previous = (last.id + 1, bytes(last.hash)) if last else (1, _GENESIS)
    order = connection.scalars(
        text("SELECT nextval('order_seq') FROM generate_series(1, :number)"), {"number": len(changes)}
    )
    rows = []
    for event_id, (change, order_seq) in enumerate(zip(changes, order, strict=True), first_id):
        data_key = contacts[change.contact_id][0]
        sealed = key_ring.open_data_key(data_key).seal(dict(change.sealed)) if change.sealed and data_key else None
        row = dict(
            zip(
                _COLUMNS,
                (
                    event_id, change.contact_id, change.channel, change.address_id,
                    None if change.address_id is None else hashes[change.address_id],
                    change.topic, change.action, change.actor, change.occurred_at or now, now,
                    change.source + ("" if change.occurred_at else UNDATED),
                    dict(change.wording) if change.wording else None, change.opt_in_level,
                    change.kept_basis,
                    dict(change.confirmation) if change.confirmation else None, sealed, order_seq,
                ),
                strict=True,
            )
        )  # fmt: skip
        row["previous_hash"], row["hash"] = previous, link(previous, row)
        previous = row["hash"]
        rows.append(row)
    copy_rows(connection, "consent_event", [*_COLUMNS, "previous_hash", "hash"], map(_stored, rows))
    connection.execute(
        text("UPDATE consent_head SET event_id = :id, hash = :hash"), {"id": rows[-1]["id"], "hash": previous}
    )
    return rows


def _stored(row: Mapping[str, Any]) -> list[Any]:
    return [orjson.dumps(v).decode() if isinstance(v, dict) else v for v in row.values()]


def _address_hashes(connection: Connection, ids: set[int]) -> dict[int, bytes]:
    rows = connection.execute(text("SELECT id, hash FROM address WHERE id = ANY(:ids)"), {"ids": sorted(ids)})
    return {row.id: bytes(row.hash) for row in rows}


def link(previous: bytes, row: Mapping[str, Any]) -> bytes:
    """Return the hash of a piece of evidence: over the one before it and every stored column of its own."""
    return hashlib.sha256(
        previous + orjson.dumps([_canonical(row[name]) for name in _COLUMNS], option=orjson.OPT_SORT_KEYS)
    ).digest()


def _canonical(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return value.hex() if isinstance(value, bytes | memoryview) else value


# Both ends in one statement: what is appended meanwhile is in neither.
_ENDS = text("""
    SELECT h.event_id AS noted_id, h.hash AS noted_hash, COALESCE(e.id, 0) AS last_id, e.hash AS last_hash
    FROM (SELECT) nothing LEFT JOIN consent_head h ON true
    LEFT JOIN (SELECT id, hash FROM consent_event ORDER BY id DESC LIMIT 1) e ON true
""")


def verify_chain(connection: Connection) -> list[str]:
    """Return what is wrong with the chain of evidence; [] if it is whole.  Streams, whatever its length."""
    findings: list[str] = []
    expected_id, previous = 1, _GENESIS
    ends = connection.execute(_ENDS).one()
    rows = connection.execute(
        text("SELECT * FROM consent_event WHERE id <= :last ORDER BY id"),
        {"last": ends.last_id},
        execution_options={"yield_per": 5_000},
    )
    for row in rows.mappings():
        if row["id"] != expected_id:
            findings.append(f"consent evidence {expected_id} to {row['id'] - 1} is missing")
        elif bytes(row["previous_hash"]) != previous:
            findings.append(f"consent evidence {row['id']} does not follow the one before it")
        if link(bytes(row["previous_hash"]), dict(row)) != bytes(row["hash"]):
            findings.append(f"consent evidence {row['id']} was changed after it was written")
        if len(findings) >= _MOST_FINDINGS:
            findings.append("and so on: only the first findings are listed")
            return findings
        expected_id, previous = row["id"] + 1, bytes(row["hash"])
    return findings + _wrong_at_the_end(ends)


def _wrong_at_the_end(ends: Row[Any]) -> list[str]:
    """A chain that was cut off is whole in itself; only what was noted beside it knows better."""
    if ends.noted_id is None:
        return ["the note of the newest consent evidence is missing"]
    if ends.noted_id > ends.last_id:
        return [f"consent evidence {ends.last_id + 1} to {ends.noted_id} is missing at the end"]
    if ends.noted_id < ends.last_id:
        return [f"consent evidence {ends.noted_id + 1} to {ends.last_id} was added by something else than this program"]
    same = bytes(ends.noted_hash) == (bytes(ends.last_hash) if ends.last_id else _GENESIS)
    return [] if same else [f"consent evidence {ends.last_id} is another than was written"]
