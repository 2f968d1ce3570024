"""The chain over the audit: what was changed, deleted or cut off afterwards is found.

Each link carries the hash of the one before it and of one entry.  It is forged a few seconds behind, by housekeeping:
an entry is recorded in the transaction that did what it tells of, and a chain made there would let all of these wait
for each other.  So the links stand in the order in which entries were seen, which need not be that of their numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, text

_LOCK = 0x61756474  # "audt": one at a time makes links
_GENESIS = bytes(32)
_PAGE = 1_000
#: An entry may become visible when so many later ones are linked already, and is linked all the same.
_LATE = 20_000
_MOST_FINDINGS = 100

_FIELDS = ("id", "at", "actor", "action", "subject", "details")


@dataclass(frozen=True, slots=True)
class Chain:
    """What a look along the chain has found."""

    links: int
    newest: str  #: the hash of the last link, hex: noted elsewhere, it proves that nothing before it was touched
    not_linked: int  #: entries so new that they are not in it yet
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.findings


def link_new(database: Engine) -> int:
    """Link what was recorded since the last time; return how many entries.  Of two at once, one does nothing."""
    linked = 0
    while (some := _link_page(database)) > 0:
        linked += some
    return linked


_NEW = text("""
    SELECT a.* FROM audit a
    WHERE a.id > COALESCE((SELECT max(audit_id) FROM audit_link), 0) - :late
      AND NOT EXISTS (SELECT FROM audit_link l WHERE l.audit_id = a.id)
    ORDER BY a.id LIMIT :page
""")
_INSERT = text("""
    INSERT INTO audit_link (number, audit_id, hash)
    SELECT * FROM unnest(CAST(:numbers AS bigint[]), CAST(:ids AS bigint[]), CAST(:hashes AS bytea[]))
""")


def _link_page(database: Engine) -> int:
    with database.begin() as connection:
        if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}):
            return 0
        entries = connection.execute(_NEW, {"late": _LATE, "page": _PAGE}).mappings().all()
        if not entries:
            return 0
        head = connection.execute(text("SELECT number, hash FROM audit_head")).one()
        number, previous = head.number, bytes(head.hash)
        hashes = [previous := _hash(previous, dict(entry)) for entry in entries]
        numbers = range(number + 1, number + 1 + len(entries))
        rows = {"numbers": list(numbers), "ids": [entry["id"] for entry in entries], "hashes": hashes}
        connection.execute(_INSERT, rows)
        connection.execute(
            text("UPDATE audit_head SET number = :number, hash = :hash"), {"number": numbers[-1], "hash": previous}
        )
        return len(entries)


def _hash(previous: bytes, entry: Mapping[str, Any]) -> bytes:
    values = [_canonical(entry[name]) for name in _FIELDS]
    return hashlib.sha256(previous + orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).digest()


def _canonical(value: Any) -> Any:
    return value.astimezone(UTC).isoformat(timespec="microseconds") if isinstance(value, datetime) else value


_CHAIN = text(f"""
    SELECT l.number, l.audit_id, l.hash, {", ".join(f"a.{name}" for name in _FIELDS)}
    FROM audit_link l LEFT JOIN audit a ON a.id = l.audit_id ORDER BY l.number
""")  # noqa: S608 - names of columns
_NOT_LINKED = text("""
    SELECT count(*) AS every, min(a.id) AS first, (SELECT max(audit_id) FROM audit_link) AS newest FROM audit a
    WHERE NOT EXISTS (SELECT FROM audit_link l WHERE l.audit_id = a.id)
""")


def verify_chain(connection: Connection) -> Chain:
    """Return what is wrong with the audit and its chain.  Streams; best in a snapshot (REPEATABLE READ)."""
    findings: list[str] = []
    expected, previous = 1, _GENESIS
    for row in connection.execute(_CHAIN, execution_options={"yield_per": 5_000}).mappings():
        if row["number"] != expected:
            findings.append(f"links {expected} to {row['number'] - 1} of the audit are missing")
        elif row["id"] is None:
            findings.append(f"audit entry {row['audit_id']} was deleted")
        elif _hash(previous, dict(row)) != bytes(row["hash"]):
            findings.append(f"audit entry {row['audit_id']} was changed after it was linked")
        expected, previous = row["number"] + 1, bytes(row["hash"])
        if len(findings) >= _MOST_FINDINGS:
            findings.append("and so on: only the first findings are listed")
            break
    else:
        findings += _wrong_at_the_end(connection, expected - 1, previous)
    fresh = connection.execute(_NOT_LINKED).one()
    if fresh.newest is not None and fresh.every and fresh.first <= fresh.newest - _LATE:
        findings.append(f"audit entry {fresh.first} was added behind the chain")
    return Chain(expected - 1, previous.hex(), fresh.every, tuple(findings))


def _wrong_at_the_end(connection: Connection, number: int, last: bytes) -> list[str]:
    """A chain that was cut off is whole in itself; only what was noted beside it knows better."""
    head = connection.execute(text("SELECT number, hash FROM audit_head")).one_or_none()
    if head is None:
        return ["the note of the newest link of the audit is missing"]
    if head.number > number:
        return [f"links {number + 1} to {head.number} of the audit are missing at the end"]
    if head.number < number:
        return [f"links {head.number + 1} to {number} of the audit were added by something else than this program"]
    return [] if bytes(head.hash) == last else [f"link {number} of the audit is another than was written"]
