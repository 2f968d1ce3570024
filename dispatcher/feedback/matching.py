"""Which message and which address is a report about?  By our own id, else by the provider's and the address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from dispatcher.feedback.report import Report
from dispatcher.keys import KeyRing


@dataclass(frozen=True, slots=True)
class Match:
    """What a report is about, as far as we know; `data_key` is the contact's, None once erased."""

    message_id: UUID | None = None
    status: str | None = None
    contact_id: int | None = None
    data_key: bytes | None = None
    address_id: int | None = None
    erased: bool = False  #: whoever had the address was erased: nothing readable of them is kept
    flaw: str | None = None


OTHER_ADDRESS = "it went to another address"

_COLUMNS = "m.id, m.status, m.contact_id, m.address_id, a.hash, c.data_key, c.erased_at IS NOT NULL AS erased"
_BY_ID = text(f"""
SELECT {_COLUMNS} FROM message m JOIN contact c ON c.id = m.contact_id LEFT JOIN address a ON a.id = m.address_id
WHERE m.id = ANY(:ids)
""")  # noqa: S608 - constants
_BY_REF = text(f"""
SELECT DISTINCT ON (x.number) x.number, {_COLUMNS}
FROM unnest(CAST(:numbers AS int[]), CAST(:channels AS text[]), CAST(:hashes AS bytea[]), CAST(:refs AS text[]))
    AS x(number, channel, hash, ref)
JOIN address a ON a.channel = x.channel AND a.hash = x.hash
JOIN message m ON m.address_id = a.id AND m.authorised_at IS NOT NULL AND m.provider_ref = x.ref
JOIN contact c ON c.id = m.contact_id ORDER BY x.number, m.id
""")  # noqa: S608 - constants
_ADDRESSES = text("""
SELECT x.number, a.id,
       EXISTS (SELECT FROM suppression s WHERE s.address_id = a.id AND s.reason = 'erasure') AS erased
FROM unnest(CAST(:numbers AS int[]), CAST(:channels AS text[]), CAST(:hashes AS bytea[]))
    AS x(number, channel, hash)
JOIN address a ON a.channel = x.channel AND a.hash = x.hash
""")


def match(connection: Connection, key_ring: KeyRing, reports: Sequence[Report]) -> list[Match]:
    """Return what each report is about, in order; three queries at most, whatever their number."""
    hashes = [key_ring.address_hash(r.channel, r.address) if r.address else None for r in reports]
    ids = [r.message_id for r in reports if r.message_id is not None]
    by_id = {row.id: row for row in connection.execute(_BY_ID, {"ids": ids})} if ids else {}
    found: list[Match | None] = [None] * len(reports)
    strange: set[int] = set()
    for number, (report, hash_) in enumerate(zip(reports, hashes, strict=True)):
        row = by_id.get(report.message_id)
        if row is None:
            continue
        if hash_ is None or row.hash is None or bytes(row.hash) == hash_:
            found[number] = _match(row)
        else:
            strange.add(number)
    _by_ref(connection, reports, hashes, found)
    _by_address(connection, reports, hashes, found)
    return [_told(one or Match(), number in strange) for number, one in enumerate(found)]


def _told(found: Match, strange: bool) -> Match:
    return replace(found, flaw=OTHER_ADDRESS) if strange and found.message_id is None else found


def _match(row: Row[Any]) -> Match:
    data_key = None if row.data_key is None else bytes(row.data_key)
    return Match(row.id, row.status, row.contact_id, data_key, row.address_id, row.erased)


def _by_ref(
    connection: Connection, reports: Sequence[Report], hashes: Sequence[bytes | None], found: list[Match | None]
) -> None:
    wanted = [
        (number, report.channel, hash_, report.provider_ref)
        for number, (report, hash_) in enumerate(zip(reports, hashes, strict=True))
        if found[number] is None and hash_ is not None and report.provider_ref and "\0" not in report.provider_ref
    ]
    if wanted:
        numbers, channels, some, refs = (list(column) for column in zip(*wanted, strict=True))
        rows = connection.execute(_BY_REF, {"numbers": numbers, "channels": channels, "hashes": some, "refs": refs})
        for row in rows:
            found[row.number] = _match(row)


def _by_address(
    connection: Connection, reports: Sequence[Report], hashes: Sequence[bytes | None], found: list[Match | None]
) -> None:
    wanted = [
        (number, reports[number].channel, hash_)
        for number, hash_ in enumerate(hashes)
        if found[number] is None and hash_ is not None
    ]
    if wanted:
        numbers, channels, some = (list(column) for column in zip(*wanted, strict=True))
        for row in connection.execute(_ADDRESSES, {"numbers": numbers, "channels": channels, "hashes": some}):
            found[row.number] = Match(address_id=row.id, erased=row.erased)
