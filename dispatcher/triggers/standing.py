"""The triggers that are applied, and the standing run of each version.

A run freezes the trigger's definition and its template's content, so a message keeps what it was born with.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text
from uuid_utils.compat import uuid7

from dispatcher import clock
from dispatcher.definitions import Trigger
from dispatcher.errors import NotFound, Refused
from dispatcher.places import TZDATA_VERSION
from dispatcher.runs import lane_of, template_of


@dataclass(frozen=True, slots=True)
class Applied:
    """A trigger as it is applied now."""

    id: int
    version: int
    active: bool  #: False: retired; its messages go on, and no new ones start
    paused: bool
    definition: Trigger

    @property
    def heeds(self) -> frozenset[str]:
        """The events that mean something to it."""
        ends = self.definition.exits | ({self.definition.cancel} if self.definition.cancel else set())
        return ends | {self.definition.on}


@dataclass(frozen=True, slots=True)
class Standing:
    """The run that a trigger's new messages belong to."""

    run_id: UUID
    topic: str | None
    class_: str
    lane: str
    priority: int
    expires_after: timedelta


_STANDING = text("SELECT id FROM run WHERE trigger_id = :trigger_id AND occurrence_key = :occurrence_key")
_MAKE = text("""
INSERT INTO run (id, kind, trigger_id, name, occurrence_key, channel, topic, class, lane, priority, definition,
                 template_hash, tzdata, nominal_at, as_of, state, started_by, created_at, planned_at)
SELECT :id, 'standing', t.id, :name, :occurrence_key, :channel, :topic, :class, :lane, :priority,
       CAST(:definition AS jsonb), :template_hash, :tzdata, :now, :now,
       CASE WHEN t.paused THEN 'paused' ELSE 'running' END, 'trigger', :now, :now
FROM trigger t WHERE t.id = :trigger_id FOR SHARE  -- a pause either is seen here, or waits and sees this run
ON CONFLICT (trigger_id, occurrence_key) DO NOTHING
""")


def load_triggers(connection: Connection) -> list[Applied]:
    """Return every trigger, retired ones too, in the order of their ids."""
    rows = connection.execute(text("SELECT id, version, active, paused, definition::text FROM trigger ORDER BY id"))
    return [Applied(row.id, row.version, row.active, row.paused, _parse(row.definition)) for row in rows]


@lru_cache(maxsize=256)
def _parse(definition: str) -> Trigger:
    return Trigger.model_validate_json(definition)


def standing_run(connection: Connection, trigger: Applied) -> Standing:
    """Return the run of the trigger's present version and template content; the first message makes it."""
    wanted = trigger.definition
    try:
        template_hash, meta = template_of(connection, wanted.channel, wanted.template)
    except NotFound as error:
        raise Refused(f"trigger {wanted.name}: {error}") from None
    values: dict[str, Any] = {
        "trigger_id": trigger.id,
        "occurrence_key": f"version {trigger.version}, template {template_hash[:12]}",
    }
    run_id = connection.scalar(_STANDING, values)
    lane = lane_of(wanted.channel, meta.class_)
    if run_id is None:
        more = {
            "id": uuid7(), "name": wanted.name, "channel": wanted.channel, "topic": meta.topic, "class": meta.class_,
            "lane": lane, "priority": wanted.priority, "definition": wanted.model_dump_json(),
            "template_hash": template_hash, "tzdata": TZDATA_VERSION, "now": clock.read_now(connection),
        }  # fmt: skip
        connection.execute(_MAKE, values | more)
        run_id = connection.execute(_STANDING, values).scalar_one()
    return Standing(
        run_id, meta.topic, meta.class_, lane, wanted.priority, wanted.expires_after_as(meta.class_)
    )  # fmt: skip
