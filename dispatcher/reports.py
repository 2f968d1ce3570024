"""What became of a run, counted from the ledger: every number on any screen comes from here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from dispatcher import clicks, doubt
from dispatcher.errors import NotFound, Refused
from dispatcher.instants import show_instant
from dispatcher.lifecycle import Status

#: Why a row of the ledger (m) is not simply on its way: a pending row's deferral, else why it ended as it did.
REASON = "CASE WHEN m.status = 'pending' THEN COALESCE(m.deferred_reason, m.reason) ELSE m.reason END"

ACCEPTED = (Status.SENT, Status.DELIVERED, Status.BOUNCED)

COLUMNS = (
    "message_id",
    "run",
    "campaign",
    "contact",
    "channel",
    "topic",
    "class",
    "status",
    "reason",
    "first_due_at",
    "due_at",
    "expires_at",
    "authorised_at",
    "send_deadline",
    "handed_over_at",
    "settled_at",
    "attempts",
    "provider",
    "provider_ref",
    "address_hash",
)

_RUN = text("SELECT *, class AS class_ FROM run WHERE id = :run")
_BREAKDOWN = text(f"""
    SELECT m.status, {REASON} AS reason, count(*) AS count FROM message m
    WHERE m.run_id = :run GROUP BY 1, 2 ORDER BY 1, 2
""")  # noqa: S608 - constants only
#: How many messages were reported as what; one message may be reported as several things.
_FACTS = text("""
    SELECT f.kind, count(DISTINCT f.message_id) AS count FROM feedback f JOIN message m ON m.id = f.message_id
    WHERE m.run_id = :run AND f.kind IS NOT NULL GROUP BY f.kind ORDER BY f.kind
""")
_NOT_YET_PLANNED = text("""
    SELECT COALESCE(sum(cardinality(p.contact_ids)), 0) FROM audience_page p
    WHERE p.run_id = :run AND p.planned_at IS NULL
""")


def run_report(connection: Connection, run_id: UUID) -> dict[str, Any]:
    """Return the figures of a run, as `run show --json` prints them; NotFound if there is no such run."""
    run = connection.execute(_RUN, {"run": run_id}).one_or_none()
    if run is None:
        raise NotFound(f"there is no run {run_id}; see: dispatcher run list")
    breakdown = [dict(row._mapping) for row in connection.execute(_BREAKDOWN, {"run": run_id})]
    status: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for line in breakdown:
        status[line["status"]] += line["count"]
        if line["reason"] is not None:
            reasons[line["reason"]] += line["count"]
    facts = connection.execute(_FACTS, {"run": run_id}).all()
    standing = run.kind == "standing"  # its messages are asked for one by one: nobody is chosen beforehand
    return {
        "run": str(run.id),
        "campaign": run.name,
        "state": run.state,
        "audience": status.total() if standing else run.audience,
        "status": dict(status),
        "reasons": dict(reasons),
        "not_yet_planned": int(connection.execute(_NOT_YET_PLANNED, {"run": run_id}).scalar_one()),
        "kind": run.kind,
        "channel": run.channel,
        "topic": run.topic,
        "class": run.class_,
        "occurrence": run.occurrence_key,
        "as_of": show_instant(run.as_of),
        "started_by": run.started_by,
        "created_at": show_instant(run.created_at),
        "planned_at": show_instant(run.planned_at),
        "finished_at": show_instant(run.finished_at),
        "breakdown": breakdown,
        "feedback": {row.kind: row.count for row in facts},
        "clicks": clicks.clicks_of(connection, run_id),
        "unknown": doubt.figures_of(connection, run_id),
        "brake": run.brake,
    }


@dataclass(frozen=True, slots=True)
class FunnelLine:
    """One step from the audience to what was sent."""

    label: str  # a reason, or a status where there is none
    status: str  # what the rows are: skipped, pending (deferred) ...; empty for the first and the last line
    count: int


def funnel(report: dict[str, Any]) -> list[FunnelLine]:
    """Return audience, everything that was not sent, sent: the lines after the first add up to the first."""
    lines = [FunnelLine("audience", "", report["audience"])]
    if report["not_yet_planned"]:
        lines.append(FunnelLine("not yet planned", "", report["not_yet_planned"]))
    left_out = [line for line in report["breakdown"] if line["status"] not in ACCEPTED]
    for line in sorted(
        left_out, key=lambda line: (line["status"] != Status.SKIPPED, -line["count"], line["reason"] or "")
    ):
        lines.append(FunnelLine(line["reason"] or line["status"], _shown_status(line), line["count"]))
    lines.append(FunnelLine("sent", "", sum(report["status"].get(status, 0) for status in ACCEPTED)))
    return lines


def _shown_status(line: dict[str, Any]) -> str:
    return "deferred" if line["status"] == Status.PENDING and line["reason"] else str(line["status"])


def list_runs(connection: Connection, *, campaign: str | None = None, most: int = 50) -> list[dict[str, Any]]:
    """Return the newest runs of campaigns, newest first, with their state and audience."""
    rows = connection.execute(
        text("""
            SELECT r.id, r.name, r.channel, r.occurrence_key, r.state, r.audience, r.created_at, r.finished_at,
                   (SELECT count(*) FROM message m
                    WHERE m.run_id = r.id AND m.status IN ('sent', 'delivered', 'bounced')) AS sent
            FROM run r
            WHERE r.kind = 'campaign' AND (CAST(:campaign AS text) IS NULL OR r.name = :campaign)
            ORDER BY r.created_at DESC, r.id DESC LIMIT :most"""),
        {"campaign": campaign, "most": most},
    )
    return [
        {
            "run": str(row.id),
            "campaign": row.name,
            "channel": row.channel,
            "occurrence": row.occurrence_key,
            "state": row.state,
            "audience": row.audience,
            "sent": row.sent,
            "created_at": row.created_at,
            "finished_at": row.finished_at,
        }
        for row in rows
    ]


def list_campaigns(connection: Connection) -> list[dict[str, Any]]:
    """Return the applied campaigns by name, with when each fires next and how its last run stands."""
    rows = connection.execute(
        text("""
            SELECT c.name, c.definition, c.version, c.next_fire_at, c.fire_error, c.fire_failed_at,
                   r.created_at, r.state
            FROM campaign c LEFT JOIN LATERAL (
                SELECT created_at, state FROM run WHERE campaign_id = c.id ORDER BY created_at DESC, id DESC LIMIT 1
            ) r ON true
            WHERE c.active ORDER BY c.name""")
    )
    return [
        {
            "campaign": row.name,
            "version": row.version,
            "channel": row.definition["channel"],
            "segment": row.definition["segment"],
            "template": row.definition["template"],
            "schedule": _schedule(row.definition["schedule"]),
            "next_fire_at": row.next_fire_at,
            "not_fired_since": row.fire_failed_at,
            "not_fired_because": row.fire_error,
            "last_run_at": row.created_at,
            "last_run_state": row.state,
        }
        for row in rows
    ]


def _schedule(schedule: dict[str, Any] | None) -> str | None:
    if schedule is None:
        return None
    where = "where each contact is" if schedule["local"] else schedule["zone"]
    return f"{schedule['cron'] or schedule['at']} {where}"


def list_segments(connection: Connection) -> list[dict[str, Any]]:
    """Return the applied segments by name, with the campaigns that use each."""
    rows = connection.execute(
        text("""
            SELECT s.name AS segment, s.version,
                   COALESCE(array_agg(c.name ORDER BY c.name) FILTER (WHERE c.id IS NOT NULL), '{}') AS campaigns
            FROM segment s LEFT JOIN campaign c ON c.active AND c.definition->>'segment' = s.name
            GROUP BY s.name, s.version ORDER BY s.name""")
    )
    return [dict(row._mapping) for row in rows]


def messages_of(connection: Connection, contact_id: int, *, most: int) -> list[dict[str, Any]]:
    """Return a contact's newest messages, those of the contacts merged into it included."""
    rows = connection.execute(
        text(f"""
            SELECT m.id AS message, r.id AS run, r.name AS campaign, m.channel, m.status, {REASON} AS reason, m.due_at,
                   m.authorised_at
            FROM message m JOIN run r ON r.id = m.run_id
            WHERE m.contact_id = :contact OR m.contact_id IN (SELECT id FROM contact WHERE merged_into = :contact)
            ORDER BY m.id DESC LIMIT :most"""),  # noqa: S608 - constants only
        {"contact": contact_id, "most": most},
    )
    return [dict(row._mapping) for row in rows]


def find_run(connection: Connection, wanted: str) -> UUID:
    """Return the run that `wanted` names: an id, the beginning of one, or `latest`."""
    if wanted == "latest":
        latest = connection.scalar(
            text("SELECT id FROM run WHERE kind = 'campaign' ORDER BY created_at DESC, id DESC LIMIT 1")
        )
        if latest is None:
            raise NotFound("there is no run yet; dispatcher campaign start makes one")
        return UUID(str(latest))
    prefix = wanted.lower() if re.fullmatch(r"[0-9A-Fa-f-]+", wanted) else ""
    found = connection.scalars(
        text("SELECT id FROM run WHERE id::text LIKE :prefix ORDER BY id LIMIT 2"), {"prefix": f"{prefix}%"}
    ).all()
    if not prefix or not found:
        raise NotFound(f"there is no run {wanted}; see: dispatcher run list")
    if len(found) > 1:
        raise Refused(f"several runs begin with {wanted}; write more of the id, see: dispatcher run list")
    return UUID(str(found[0]))


_EXPORT = text(f"""
    SELECT m.id AS message_id, m.run_id AS run, r.name AS campaign, c.external_id AS contact, m.channel, m.topic,
           m.class, m.status, {REASON} AS reason, m.first_due_at, m.due_at, m.expires_at, m.authorised_at,
           m.send_deadline, m.handed_over_at, m.settled_at, m.attempts, m.provider, m.provider_ref,
           encode(a.hash, 'hex') AS address_hash
    FROM message m
    JOIN run r ON r.id = m.run_id
    JOIN contact c ON c.id = m.contact_id
    LEFT JOIN address a ON a.id = m.address_id
    WHERE m.run_id = :run
    ORDER BY m.contact_id, m.id
""")  # noqa: S608 - constants only
_TYPED_BY_OTHERS = {"contact", "provider_ref", "campaign", "topic"}


def export_run(connection: Connection, run_id: UUID) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a run's CSV, the header first, without ever holding all of them."""
    yield COLUMNS
    options = {"stream_results": True, "yield_per": 2_000}
    for row in connection.execute(_EXPORT, {"run": run_id}, execution_options=options):
        yield tuple(_cell(column, getattr(row, column)) for column in COLUMNS)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column.endswith("_at") or column == "send_deadline":
        return show_instant(value) or ""
    return harmless(str(value)) if column in _TYPED_BY_OTHERS else str(value)


def harmless(value: str) -> str:
    """Return the text so that a spreadsheet takes it as text: what would be a formula gets a quote in front."""
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\0")) else value
