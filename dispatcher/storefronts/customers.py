"""How new what we know of a storefront's customers is, so that an older body overwrites nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

Customer = tuple[str, str]  # the storefront, and its own number of the customer; "": it has none
Record = tuple[Customer, datetime | None]  # whose, and when it was changed last; None: mentioned in passing

_KNOWN = text("""
    SELECT k.source, k.customer_id, k.changed_at FROM storefront_customer k
    JOIN unnest(CAST(:sources AS text[]), CAST(:ids AS text[])) AS x (source, customer_id) USING (source, customer_id)
""")
_REMEMBER = text("""
    INSERT INTO storefront_customer (source, customer_id, changed_at)
    SELECT * FROM unnest(CAST(:sources AS text[]), CAST(:ids AS text[]), CAST(:instants AS timestamptz[]))
    ON CONFLICT (source, customer_id) DO UPDATE SET changed_at = excluded.changed_at
""")


def newest_of(connection: Connection, records: Sequence[Record]) -> list[bool]:
    """Return of each whether it is as new as any before it; nobody else can say so meanwhile (`lock_identity`)."""
    asked = sorted({customer for customer, changed_at in records if customer[1] and changed_at is not None})
    if not asked:
        return [False] * len(records)
    sources, ids = zip(*asked, strict=True)
    rows = connection.execute(_KNOWN, {"sources": list(sources), "ids": list(ids)})
    known: dict[Customer, datetime] = {(row.source, row.customer_id): row.changed_at for row in rows}
    newest = []
    for customer, changed_at in records:
        new = changed_at is not None and bool(customer[1]) and changed_at >= known.get(customer, changed_at)
        if new and changed_at is not None:
            known[customer] = changed_at
        newest.append(new)
    return newest


def remember(connection: Connection, records: Sequence[Record]) -> None:
    """Note how new these are; of one customer's the last one counts."""
    if not records:
        return
    latest = dict(records)
    sources, ids = zip(*latest, strict=True)
    connection.execute(_REMEMBER, {"sources": list(sources), "ids": list(ids), "instants": list(latest.values())})


def known_as(connection: Connection, external_id: str) -> str | None:
    """Return the id if anybody is known by it."""
    found: str | None = connection.scalar(
        text("SELECT external_id FROM contact_alias WHERE external_id = :id"), {"id": external_id}
    )
    return found
