"""What there is, a page at a time, in an order that stays: each page begins behind the key of the last item before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from dispatcher.instants import show_instant
from dispatcher.reports import REASON


@dataclass(frozen=True, slots=True)
class Page:
    items: list[dict[str, Any]]
    last: list[Any] | None  #: the key of the last item, as JSON takes it; None if nothing follows


def _page(
    rows: Sequence[Row[Any]],
    limit: int,
    key: Callable[[Row[Any]], list[Any]],
    show: Callable[[Row[Any]], dict[str, Any]],
) -> Page:
    """Return the page; `rows` are one more than the limit if anything follows."""
    kept = rows[:limit]
    return Page([show(row) for row in kept], key(kept[-1]) if len(rows) > limit else None)


_RUNS = text("""
    SELECT r.id, r.name AS campaign, r.kind, r.channel, r.occurrence_key AS occurrence, r.state, r.audience,
           r.started_by, r.created_at, r.finished_at
    FROM run r
    WHERE r.kind = 'campaign' AND (CAST(:campaign AS text) IS NULL OR r.name = :campaign)
      AND (CAST(:state AS text) IS NULL OR r.state = :state)
      AND (CAST(:at AS timestamptz) IS NULL OR (r.created_at, r.id) < (:at, CAST(:id AS uuid)))
    ORDER BY r.created_at DESC, r.id DESC LIMIT :most
""")


def runs(
    connection: Connection,
    after: list[Any] | None,
    limit: int,
    *,
    campaign: str | None = None,
    state: str | None = None,
) -> Page:
    """Return the runs of campaigns, the newest first."""
    at, run_id = (datetime.fromisoformat(after[0]), after[1]) if after else (None, None)
    wanted = {"campaign": campaign, "state": state, "at": at, "id": run_id, "most": limit + 1}
    rows = connection.execute(_RUNS, wanted).all()
    return _page(rows, limit, lambda row: [show_instant(row.created_at), str(row.id)], _run)


def _run(row: Row[Any]) -> dict[str, Any]:
    values = dict(row._mapping)
    return {"run": str(values.pop("id")), **values}


_CAMPAIGNS = text("""
    SELECT c.name AS campaign, c.definition->>'channel' AS channel, c.definition->>'segment' AS segment,
           c.definition->>'template' AS template, c.version, c.origin, c.next_fire_at
    FROM campaign c WHERE c.active AND (CAST(:after AS text) IS NULL OR c.name > :after)
    ORDER BY c.name LIMIT :most
""")


def campaigns(connection: Connection, after: list[Any] | None, limit: int) -> Page:
    """Return the campaigns that are in force, by name."""
    rows = connection.execute(_CAMPAIGNS, {"after": after[0] if after else None, "most": limit + 1}).all()
    return _page(rows, limit, lambda row: [row.campaign], lambda row: dict(row._mapping))


_SEGMENTS = text("""
    SELECT s.name AS segment, s.version, ARRAY(
        SELECT c.name FROM campaign c WHERE c.active AND c.definition->>'segment' = s.name ORDER BY c.name
    ) AS campaigns
    FROM segment s WHERE CAST(:after AS text) IS NULL OR s.name > :after ORDER BY s.name LIMIT :most
""")


def segments(connection: Connection, after: list[Any] | None, limit: int) -> Page:
    """Return the segments by name, with the campaigns that use each."""
    rows = connection.execute(_SEGMENTS, {"after": after[0] if after else None, "most": limit + 1}).all()
    return _page(rows, limit, lambda row: [row.segment], lambda row: dict(row._mapping))


# Of an audience a contact has one message in a run; those asked for one by one are in the order they were asked for.
# Two statements, each along its own index.
_MESSAGE = f"""
    SELECT m.id, m.run_id AS run, m.contact_id, c.external_id AS contact, m.channel, m.class, m.topic, m.status,
           {REASON} AS reason, m.due_at, m.expires_at, m.authorised_at, m.handed_over_at, m.settled_at
    FROM message m JOIN contact c ON c.id = m.contact_id
    WHERE m.run_id = :run AND (CAST(:status AS text) IS NULL OR m.status = :status)
"""  # noqa: S608 - constants only
_OF_AN_AUDIENCE = text(
    f"{_MESSAGE} AND m.client IS NULL AND m.contact_id > COALESCE(CAST(:after AS bigint), 0) "
    "ORDER BY m.contact_id LIMIT :most"
)
_ASKED_FOR = text(
    f"{_MESSAGE} AND m.client IS NOT NULL AND m.id > COALESCE(CAST(:after AS uuid), "
    "'00000000-0000-0000-0000-000000000000') ORDER BY m.id LIMIT :most"
)


def messages(
    connection: Connection, after: list[Any] | None, limit: int, *, run_id: UUID, status: str | None = None
) -> Page:
    """Return the messages of a run; [] if there is no such run."""
    standing = connection.scalar(text("SELECT kind = 'standing' FROM run WHERE id = :run"), {"run": run_id})
    wanted = {"run": run_id, "status": status, "after": after[0] if after else None, "most": limit + 1}
    rows = connection.execute(_ASKED_FOR if standing else _OF_AN_AUDIENCE, wanted).all()
    return _page(rows, limit, lambda row: [str(row.id) if standing else row.contact_id], _message)


def _message(row: Row[Any]) -> dict[str, Any]:
    values = dict(row._mapping)
    values.pop("contact_id")
    return {**values, "id": str(row.id), "run": str(row.run)}


_SUPPRESSIONS = text("""
    SELECT s.id, a.channel, encode(a.hash, 'hex') AS address_hash, s.reason, s.scope, s.source, s.created_at, ARRAY(
        SELECT c.external_id FROM contact c
        WHERE a.id IN (c.email_address_id, c.sms_address_id) AND c.merged_into IS NULL ORDER BY c.id
    ) AS contacts
    FROM suppression s JOIN address a ON a.id = s.address_id
    WHERE (CAST(:channel AS text) IS NULL OR a.channel = :channel)
      AND (CAST(:reason AS text) IS NULL OR s.reason = :reason)
      AND (CAST(:hash AS bytea) IS NULL OR a.hash = :hash)
      AND (CAST(:contact AS bigint) IS NULL OR a.id IN (
            SELECT unnest(ARRAY[email_address_id, sms_address_id]) FROM contact WHERE id = :contact))
      AND s.id > COALESCE(CAST(:after AS bigint), 0)
    ORDER BY s.id LIMIT :most
""")


def suppressions(
    connection: Connection, after: list[Any] | None, limit: int, *, channel: str | None = None,
    reason: str | None = None, address_hash: bytes | None = None, contact_id: int | None = None,
) -> Page:  # fmt: skip
    """Return the suppressions, the oldest first, with the contacts that have the address now.

    The address itself is nowhere: what is kept of it is its hash.
    """
    wanted = {
        "channel": channel, "reason": reason, "hash": address_hash, "contact": contact_id,
        "after": after[0] if after else None, "most": limit + 1,
    }  # fmt: skip
    rows = connection.execute(_SUPPRESSIONS, wanted).all()
    return _page(rows, limit, lambda row: [row.id], _suppression)


def _suppression(row: Row[Any]) -> dict[str, Any]:
    values = dict(row._mapping)
    values.pop("id")
    return values
