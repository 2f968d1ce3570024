"""Runs: one execution of a campaign, with everything frozen that must not change under way.

Starting a run freezes its definition, segment, template content and audience; `plan` then writes one ledger row for
each contact.  Pausing and cancelling change only the run row; `sweep` carries it into the messages, page by page.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, text
from uuid_utils.compat import uuid7

from dispatcher import audience, audit, clock, db
from dispatcher.definitions import Campaign, TemplateMeta, Trigger
from dispatcher.errors import Conflict, NotFound
from dispatcher.locks import pull_brake
from dispatcher.places import TZDATA_VERSION
from segments.definition import Segment, to_json

#: A second manual start within this time is more often a slip than a wish.
START_AGAIN_AFTER = timedelta(hours=24)
SWEEP_PAGE = 2_000
#: The occurrence key of the standing runs that answer what people text to us (`replies.answers`).
ANSWERS = "answers"


@dataclass(frozen=True, slots=True)
class Run:
    """A row of `run`, as decisions need it; `campaign` or `trigger` is what it froze (neither: a template's run)."""

    id: UUID
    kind: str
    campaign_id: int | None
    name: str
    occurrence_key: str
    channel: str
    topic: str | None
    class_: str
    lane: str
    priority: int
    template_hash: str
    nominal_at: datetime
    as_of: datetime  #: when it was fired: what its audience was chosen by
    state: str
    started_by: str | None
    planned_at: datetime | None
    campaign: Campaign | None
    trigger: Trigger | None = None


_STORED = (
    "id", "kind", "campaign_id", "name", "occurrence_key", "channel", "topic", "class AS class_", "lane", "priority",
    "template_hash", "nominal_at", "as_of", "state", "started_by", "planned_at", "definition",
)  # fmt: skip

_FREEZE = text("""
INSERT INTO run (id, kind, campaign_id, name, occurrence_key, channel, topic, class, lane, priority, definition,
                 segment, template_hash, tzdata, nominal_at, as_of, state, started_by, created_at, finished_at)
VALUES (:id, :kind, :campaign_id, :name, :occurrence_key, :channel, :topic, :class, :lane, :priority,
        CAST(:definition AS jsonb), CAST(:segment AS jsonb), :template_hash, :tzdata, :nominal_at, :now, :state,
        :started_by, :now, :finished_at)
ON CONFLICT (campaign_id, occurrence_key) DO NOTHING
RETURNING id
""")


def lane_of(channel: str, class_: str) -> str:
    """Return the lane of a message: channel x class; security travels with transactional."""
    return f"{channel}.{'marketing' if class_ == 'marketing' else 'transactional'}"


def load_campaign(connection: Connection, name: str) -> tuple[int, Campaign]:
    """Return a campaign's id and definition; NotFound names those that exist."""
    row = connection.execute(
        text("SELECT id, definition, active FROM campaign WHERE name = :name"), {"name": name}
    ).one_or_none()
    if row is None or not row.active:
        names = connection.scalars(text("SELECT name FROM campaign WHERE active ORDER BY name")).all()
        near = difflib.get_close_matches(name, names, n=1)
        meant = f"did you mean {near[0]}?  There are" if near else "there are"
        known = f"{meant} {', '.join(names)}" if names else "none has been applied yet: run dispatcher apply"
        raise NotFound(f"there is no campaign {name}; {known}")
    return row.id, Campaign.model_validate(row.definition)


def template_of(connection: Connection, channel: str, name: str) -> tuple[str, TemplateMeta]:
    """Return the current template's content hash and its meta.yaml."""
    from dispatcher.content import meta_of

    row = connection.execute(
        text("""SELECT hash, jsonb_build_object('meta.yaml', files->'meta.yaml') AS meta FROM template
                WHERE channel = :channel AND name = :name AND current"""),
        {"channel": channel, "name": name},
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no {channel} template {name}: add it to templates/ and run dispatcher apply")
    return row.hash, meta_of(row.meta)


def start(connection: Connection, name: str, *, started_by: str, again: bool = False) -> UUID:
    """Start a campaign now, by hand; return the run's id.  Refused if it ran within 24 h, unless `again`."""
    campaign_id, _ = load_campaign(connection, name)
    connection.execute(text("SELECT FROM campaign WHERE id = :id FOR UPDATE"), {"id": campaign_id})
    now = clock.read_now(connection)
    last = connection.scalar(
        text("SELECT max(created_at) FROM run WHERE campaign_id = :id AND state <> 'missed'"), {"id": campaign_id}
    )
    if last is not None and now - last < START_AGAIN_AFTER and not again:
        raise Conflict(
            f"campaign {name} ran at {last:%Y-%m-%d %H:%M} UTC, less than 24 h ago; if you mean it, add --again"
        )
    run_id = fire(
        connection,
        name,
        occurrence_key=f"by hand {now:%Y-%m-%dT%H:%M:%S.%fZ}",
        nominal_at=now,
        now=now,
        started_by=started_by,
    )
    if run_id is None:
        raise Conflict(f"campaign {name} was started at this very instant by somebody else")
    audit.record(connection, started_by, "campaign.start", name, {"run": str(run_id)})
    return run_id


def draft(
    connection: Connection, name: str, *, occurrence_key: str, nominal_at: datetime, started_by: str,
    as_of: datetime | None = None,
) -> tuple[Run, Segment]:  # fmt: skip
    """Return the run that a campaign would start at `as_of`, else at its nominal time, and its segment.

    Nothing is written.
    """
    campaign_id, campaign = load_campaign(connection, name)
    template_hash, meta = template_of(connection, campaign.channel, campaign.template)
    run = Run(
        id=uuid7(),
        kind="campaign",
        campaign_id=campaign_id,
        name=campaign.name,
        occurrence_key=occurrence_key,
        channel=campaign.channel,
        topic=campaign.topic or meta.topic,
        class_=meta.class_,
        lane=lane_of(campaign.channel, meta.class_),
        priority=campaign.priority,
        template_hash=template_hash,
        nominal_at=nominal_at,
        as_of=as_of or nominal_at,
        state="planning",
        started_by=started_by,
        planned_at=None,
        campaign=campaign,
    )
    return run, audience.load_segment(connection, campaign.segment)


def fire(
    connection: Connection, name: str, *, occurrence_key: str, nominal_at: datetime, now: datetime, started_by: str,
    missed: bool = False,
) -> UUID | None:  # fmt: skip
    """Insert the run of one occurrence with everything frozen; None if that occurrence already has its run.

    `missed` records an occurrence that was too late to be sent: a run without an audience.
    """
    run, segment = draft(
        connection, name, occurrence_key=occurrence_key, nominal_at=nominal_at, started_by=started_by, as_of=now
    )
    assert run.campaign is not None
    values = {field: getattr(run, field) for field in _STORED if field not in ("definition", "class AS class_")}
    values |= {
        "class": run.class_,
        "definition": run.campaign.model_dump_json(),
        "segment": orjson.dumps(to_json(segment)).decode(),
        "tzdata": TZDATA_VERSION,
        "state": "missed" if missed else "planning",
        "now": now,
        "finished_at": now if missed else None,
    }
    if connection.execute(_FREEZE, values).scalar_one_or_none() is None:
        return None
    if not missed:
        people, pages = audience.freeze(connection, run.id, segment, now)
        connection.execute(
            text("UPDATE run SET audience = :people, pages = :pages WHERE id = :id"),
            {"people": people, "pages": pages, "id": run.id},
        )
        db.notify(connection, "run")
    return run.id


def load_run(connection: Connection, run_id: UUID, *, lock: Literal["", "FOR UPDATE"] = "") -> Run:
    """Return a run; NotFound if there is none."""
    row = connection.execute(
        text(f"SELECT {', '.join(_STORED)} FROM run WHERE id = :id {lock}"),  # noqa: S608 - fixed names
        {"id": run_id},
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no run {run_id}; dispatcher run list shows them")
    *stored, definition = row
    campaign = Campaign.model_validate(definition) if row.kind == "campaign" else None
    trigger = Trigger.model_validate(definition) if row.kind == "standing" and definition else None
    return Run(*stored, campaign, trigger)  # type: ignore[call-arg]  # _STORED names its fields in order


def pause(connection: Connection, run_id: UUID, *, by: str) -> None:
    """Stop authorising this run's messages.  Their expiry goes on running."""
    _move(connection, run_id, {"planning", "running"}, "paused", by)


def resume(connection: Connection, run_id: UUID, *, by: str) -> None:
    """Let a paused run go on: planning where it was left, and what it had put off is due at once."""
    run = _move(connection, run_id, {"paused"}, "running", by)
    connection.execute(  # whoever resumes it knows what went wrong up to now: the brake looks at what comes after
        text("UPDATE run SET brake = NULL, watched_from = :now WHERE id = :id"),
        {"now": clock.read_now(connection), "id": run_id},
    )
    if run.planned_at is None:
        connection.execute(text("UPDATE run SET state = 'planning' WHERE id = :id"), {"id": run_id})
    wake_stopped(connection, run_id)


def cancel(connection: Connection, run_id: UUID, *, by: str) -> None:
    """Never send what has not left yet; planning goes on, so that everybody still has a row and a reason."""
    _move(connection, run_id, {"planning", "running", "paused"}, "cancelled", by)


def _move(connection: Connection, run_id: UUID, allowed: set[str], state: str, by: str) -> Run:
    pull_brake(connection, run_id)
    run = load_run(connection, run_id, lock="FOR UPDATE")
    if run.kind == "standing" and state == "cancelled":
        raise Conflict(f"run {run_id} carries every message of {run.name}, later ones too; pause it instead")
    if run.state not in allowed:
        raise Conflict(f"run {run_id} is {run.state} and cannot become {state}")
    connection.execute(text("UPDATE run SET state = :state WHERE id = :id"), {"state": state, "id": run_id})
    audit.record(connection, by, f"run.{state}", str(run_id), {"was": run.state})
    db.notify(connection, "run")
    return run


def wake_stopped(connection: Connection, run_id: UUID | None = None) -> None:
    """Make what only an operator's stop had put off due at once; of one run, or of all.

    What somebody else holds just now is left alone: it asks again by itself, within a minute.
    """
    connection.execute(
        text("""
        WITH waiting AS MATERIALIZED (
            SELECT id FROM message
            WHERE status = 'pending' AND batch_id IS NULL AND deferred_reason = 'OPERATOR'
              AND (CAST(:run AS uuid) IS NULL OR run_id = :run) FOR UPDATE SKIP LOCKED)
        UPDATE message m SET due_at = :now, deferred_reason = NULL, facts = NULL
        FROM waiting WHERE m.id = waiting.id"""),
        {"now": clock.read_now(connection), "run": run_id},
    )


def stop_all(connection: Connection, *, by: str) -> None:
    """Stop authorising anything at all."""
    pull_brake(connection)
    connection.execute(
        text("""UPDATE engine SET stopped_at = clock_timestamp() + clock_offset, stopped_by = :by
                WHERE stopped_at IS NULL"""),
        {"by": by},
    )
    audit.record(connection, by, "engine.stop", "engine", {})
    db.notify(connection, "engine")


def go_on(connection: Connection, *, by: str) -> None:
    """Undo `stop_all`."""
    pull_brake(connection)
    connection.execute(text("UPDATE engine SET stopped_at = NULL, stopped_by = NULL"))
    wake_stopped(connection)
    audit.record(connection, by, "engine.go_on", "engine", {})
    db.notify(connection, "engine")


def being_planned(database: Engine) -> list[UUID]:
    """Return the runs that have pages left to plan, the more important first; close the planning of the others."""
    with database.begin() as connection:
        rows = connection.execute(
            text("""SELECT id, EXISTS (SELECT FROM audience_page p
                                       WHERE p.run_id = run.id AND p.planned_at IS NULL) AS unplanned
                    FROM run WHERE finished_at IS NULL AND planned_at IS NULL AND state IN ('planning', 'cancelled')
                    AND kind = 'campaign' ORDER BY priority DESC, created_at""")
        ).all()
        for row in rows:
            if not row.unplanned:
                finish_planning(connection, row.id)
    return [row.id for row in rows if row.unplanned]


def finish_planning(connection: Connection, run_id: UUID) -> None:
    """Record that every page is planned, once it is so."""
    connection.execute(
        text("""UPDATE run SET planned_at = clock_timestamp() + (SELECT clock_offset FROM engine),
                       state = CASE state WHEN 'planning' THEN 'running' ELSE state END
                WHERE id = :run AND planned_at IS NULL AND state IN ('planning', 'cancelled')
                  AND NOT EXISTS (SELECT FROM audience_page p WHERE p.run_id = run.id AND p.planned_at IS NULL)"""),
        {"run": run_id},
    )


def sweep(connection: Connection, now: datetime) -> list[int]:
    """Carry cancellation into one page of pending messages; return their contacts."""
    cancelled = connection.scalars(
        text("""
        WITH doomed AS MATERIALIZED (
            SELECT m.id FROM message m JOIN run r ON r.id = m.run_id
            WHERE r.state = 'cancelled' AND r.finished_at IS NULL AND m.status = 'pending'
            LIMIT :page FOR UPDATE OF m SKIP LOCKED)
        UPDATE message m SET status = 'cancelled', reason = 'OPERATOR', deferred_reason = NULL, batch_id = NULL,
               settled_at = :now
        FROM doomed WHERE m.id = doomed.id RETURNING m.contact_id"""),
        {"page": SWEEP_PAGE, "now": now},
    )
    return list(cancelled)


def finish(connection: Connection, now: datetime) -> None:
    """Mark the runs finished that have nothing left to do; first in its transaction, as runs come before messages."""
    connection.execute(_FINISH, {"now": now})


# A run whose every message has come to rest; `unknown` may still be settled by evidence.  Batches that were emptied
# before anybody took them are done, too.
_FINISH = text("""
WITH finished AS (
    UPDATE run r SET finished_at = :now, state = CASE r.state WHEN 'running' THEN 'finished' ELSE r.state END
    WHERE r.kind = 'campaign' AND r.finished_at IS NULL AND r.planned_at IS NOT NULL
      AND r.state IN ('running', 'cancelled')
      AND NOT EXISTS (SELECT FROM message m WHERE m.run_id = r.id AND m.status IN ('pending', 'sending'))
    RETURNING r.id)
UPDATE batch b SET state = 'done' FROM finished WHERE b.run_id = finished.id AND b.state = 'ready'
""")
