"""Apply: write a workspace into the database, all of it or nothing.

What a run needs is frozen when it starts, so applying never changes a run that is under way; what disappeared from the
folder is retired, not deleted, for old runs still name it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson
from sqlalchemy import Connection, text

from dispatcher import audit, clock, db, interests
from dispatcher.contact_windows.changes import loosenings
from dispatcher.content import template_hash
from dispatcher.definitions import Campaign, Schedule, Shop
from dispatcher.rates import accounts
from dispatcher.schedules import next_occurrence
from dispatcher.workspace import Workspace
from segments.definition import to_json

Action = Literal["added", "changed", "unchanged", "retired"]

_LOCK = 0x6170706C  # "appl": two applies at once go one after the other, and so does an edit over the API


@dataclass(frozen=True, slots=True)
class Change:
    """What applying did to one definition."""

    kind: Literal["shop", "template", "segment", "campaign", "trigger"]
    name: str
    action: Action
    note: str = ""


def apply(connection: Connection, workspace: Workspace, *, by: str) -> list[Change]:
    """Write the workspace; return what became of each definition, those of the database that it lacks included."""
    lock_definitions(connection)
    changes = [
        _apply_shop(connection, workspace.shop, by),
        *_apply_templates(connection, workspace),
        *_apply_segments(connection, workspace),
        *_apply_campaigns(connection, workspace),
        *_apply_triggers(connection, workspace),
    ]
    for change in changes:
        if change.action != "unchanged":
            audit.record(connection, by, f"{change.kind}.{change.action}", change.name, {})
    if any(change.action != "unchanged" for change in changes):
        connection.execute(text("UPDATE campaign SET fire_retry_at = NULL WHERE fire_retry_at IS NOT NULL"))
        db.notify(connection, "campaign")
    return changes


def lock_definitions(connection: Connection) -> None:
    """Be the only one who changes definitions, until the transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _apply_shop(connection: Connection, shop: Shop, by: str) -> Change:
    stored = connection.execute(text("SELECT shop FROM engine FOR UPDATE")).scalar_one()
    wanted = shop.model_dump(mode="json", by_alias=True)
    if stored == wanted:
        return Change("shop", shop.shop.name, "unchanged")
    half_life = interests.read_half_life(connection)
    connection.execute(text("UPDATE engine SET shop = CAST(:shop AS jsonb)"), {"shop": _json(wanted)})
    accounts.set_rates(connection, shop.rates)
    _record_loosenings(connection, Shop.model_validate(stored) if stored else None, shop, by)
    note = ""
    if shop.interests.half_life != half_life:
        interests.recompute(connection, shop.interests.half_life)
        note = "interest scores computed afresh with the new half-life"
    return Change("shop", shop.shop.name, "added" if stored is None else "changed", note)


def _record_loosenings(connection: Connection, had: Shop | None, wanted: Shop, by: str) -> None:
    """Write to the audit who answers for letting through what the law or a code of practice does not."""
    before, after = loosenings(had), loosenings(wanted)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            action = "contact_window.loosened" if name in after else "contact_window.restored"
            audit.record(connection, by, action, name, after.get(name) or before[name])


# --- templates: content by hash; the flag `current` says which one new runs take


def content_hash(channel: str, name: str, files: dict[str, str]) -> str:
    """Return the name a template's content is kept under.  Two templates with the same files are still two."""
    return hashlib.sha256(f"{channel}/{name}/{template_hash(files)}".encode()).hexdigest()


def _apply_templates(connection: Connection, workspace: Workspace) -> list[Change]:
    rows = connection.execute(text("SELECT channel, name, hash FROM template WHERE current"))
    current = {(row.channel, row.name): row.hash for row in rows}
    changes = []
    for (channel, name), files in sorted(workspace.templates.items()):
        wanted, had = content_hash(channel, name, files), current.pop((channel, name), None)
        if wanted != had:
            _make_current(connection, channel, name, wanted, files)
        changes.append(Change("template", f"{channel}/{name}", _action(had, wanted)))
    for channel, name in sorted(current):
        _unset_current(connection, channel, name)
        changes.append(Change("template", f"{channel}/{name}", "retired"))
    return changes


def _make_current(connection: Connection, channel: str, name: str, wanted: str, files: dict[str, str]) -> None:
    _unset_current(connection, channel, name)
    connection.execute(
        text(
            "INSERT INTO template (hash, channel, name, files) VALUES (:hash, :channel, :name, CAST(:files AS jsonb)) "
            "ON CONFLICT (hash) DO UPDATE SET current = true"
        ),
        {"hash": wanted, "channel": channel, "name": name, "files": _json(files)},
    )


def _unset_current(connection: Connection, channel: str, name: str) -> None:
    connection.execute(
        text("UPDATE template SET current = false WHERE channel = :channel AND name = :name AND current"),
        {"channel": channel, "name": name},
    )


# --- segments


def _apply_segments(connection: Connection, workspace: Workspace) -> list[Change]:
    current = {row.name: row.definition for row in connection.execute(text("SELECT name, definition FROM segment"))}
    changes = []
    for name, segment in sorted(workspace.segments.items()):
        wanted, had = to_json(segment), current.pop(name, None)
        if wanted != had:
            connection.execute(
                text(
                    "INSERT INTO segment (name, definition) VALUES (:name, CAST(:definition AS jsonb)) "
                    "ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, version = segment.version + 1"
                ),
                {"name": name, "definition": _json(wanted)},
            )
        changes.append(Change("segment", name, _action(had, wanted)))
    for name in sorted(current):  # runs carry a copy of their segment, so nothing refers to the row
        connection.execute(text("DELETE FROM segment WHERE name = :name"), {"name": name})
        changes.append(Change("segment", name, "retired"))
    return changes


# --- campaigns


def _apply_campaigns(connection: Connection, workspace: Workspace) -> list[Change]:
    rows = connection.execute(text("SELECT * FROM campaign ORDER BY id FOR UPDATE"))
    current = {row.name: row for row in rows}
    now = clock.read_now(connection)
    changes = []
    for name, campaign in sorted(workspace.campaigns.items()):
        changes.append(write_campaign(connection, campaign, current.pop(name, None), now))
    for name, row in sorted(current.items()):
        if row.active and row.origin == "workspace":  # one that a program wrote is not missing from the folder
            connection.execute(
                text("UPDATE campaign SET active = false, next_fire_at = NULL, fire_error = NULL WHERE id = :id"),
                {"id": row.id},
            )
            changes.append(Change("campaign", name, "retired"))
    return changes


def write_campaign(
    connection: Connection,
    campaign: Campaign,
    row: Any,
    now: datetime,
    *,
    origin: Literal["workspace", "api"] = "workspace",
) -> Change:
    """Write one campaign whose references are checked; `row` is what is there, locked, and `origin` who writes."""
    wanted = campaign.model_dump(mode="json")
    if row is not None and row.active and row.definition == wanted:
        connection.execute(
            text("UPDATE campaign SET origin = :origin WHERE id = :id AND origin <> :origin"),
            {"id": row.id, "origin": origin},
        )
        return Change("campaign", campaign.name, "unchanged", _next_fire(row.next_fire_at))
    had = Campaign.model_validate(row.definition) if row is not None and row.active else None
    reschedule = had is None or had.schedule != campaign.schedule
    # only instants later than the edit and than the last fire count
    last = row.fires_after if row is not None else None
    after = max(now, last or now) if reschedule else last or now
    next_fire_at = _next_fire_at(campaign.schedule, after)
    connection.execute(
        text("""
            INSERT INTO campaign (name, definition, fires_after, next_fire_at, origin)
            VALUES (:name, CAST(:definition AS jsonb), :after, :next, :origin)
            ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, version = campaign.version + 1,
                active = true, fires_after = excluded.fires_after, next_fire_at = excluded.next_fire_at,
                origin = excluded.origin,
                fire_error = NULL, fire_failures = 0, fire_failed_at = NULL, fire_retry_at = NULL"""),
        {
            "name": campaign.name, "definition": _json(wanted), "after": after, "next": next_fire_at, "origin": origin,
        },
    )  # fmt: skip
    note = _next_fire(next_fire_at)
    if had is not None and row.origin == "api" and origin == "workspace":
        note = f"what was written over the API is replaced{'; ' if note else ''}{note}"
    if campaign.schedule is not None and next_fire_at is None:
        note = "its time is past: it will not fire by itself"
    return Change("campaign", campaign.name, "added" if had is None else "changed", note)


# --- triggers


def _apply_triggers(connection: Connection, workspace: Workspace) -> list[Change]:
    """A retired trigger starts nothing any more; what waits of it goes on, and is still ended by its events."""
    rows = connection.execute(text("SELECT name, definition, active FROM trigger ORDER BY id FOR UPDATE"))
    current = {row.name: row for row in rows}
    changes = []
    for name, trigger in sorted(workspace.triggers.items()):
        row = current.pop(name, None)
        had, wanted = row.definition if row is not None and row.active else None, trigger.model_dump(mode="json")
        if had != wanted:
            connection.execute(
                text("""
                    INSERT INTO trigger (name, definition) VALUES (:name, CAST(:definition AS jsonb))
                    ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, active = true,
                        version = trigger.version + 1"""),
                {"name": name, "definition": _json(wanted)},
            )
        changes.append(Change("trigger", name, _action(had, wanted)))
    for name, row in sorted(current.items()):
        if row.active:
            connection.execute(text("UPDATE trigger SET active = false WHERE name = :name"), {"name": name})
            changes.append(Change("trigger", name, "retired"))
    return changes


def _next_fire_at(schedule: Schedule | None, after: datetime) -> datetime | None:
    occurrence = next_occurrence(schedule, after) if schedule else None
    return occurrence.at if occurrence else None


def _next_fire(at: datetime | None) -> str:
    return f"fires next at {at:%Y-%m-%d %H:%M} UTC" if at else ""


def _action(had: object, wanted: object) -> Action:
    if had is None:
        return "added"
    return "unchanged" if had == wanted else "changed"


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
