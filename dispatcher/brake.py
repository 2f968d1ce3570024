"""The brake: a run that goes wrong pauses itself, and says why.

Bounces, complaints, render failures and unknown outcomes are looked at after a run's first hundredth (and never before
a few dozen messages), then always.  Whoever resumes it has looked: from then on only what is authorised later counts.

The limits.  Complaints: mailbox providers ask senders to stay below 0.3 % (Google and Yahoo, sender rules of 2024).
Bounces: providers review senders at 5 % (Amazon SES); what the provider refused at once counts as bounced.  A template
that cannot be rendered for one in twenty is broken.  Unknown outcomes at one in ten mean that the way to the provider
is; what a dead worker of ours left in doubt says nothing about that way, and is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Connection, Engine, Row, text

from dispatcher import audit, clock, db
from dispatcher.locks import pull_brake

log = structlog.get_logger()

ACTOR = "brake"


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of one trouble is too much."""

    share: float  #: of what was tried
    least: int  #: fewer than this are chance


LIMITS: dict[str, Limit] = {
    "complaints": Limit(0.003, 3),
    "bounces": Limit(0.05, 5),
    "render failures": Limit(0.05, 5),
    "unknown outcomes": Limit(0.1, 5),
}
#: Of the audience, before anything is judged.
FIRST_SHARE = 0.01
FIRST_LEAST = 50


def verdict_on(tried: int, audience: int, troubles: Mapping[str, int]) -> dict[str, Any] | None:
    """Return why the run must pause: {"because", "count", "of", "limit"}; None if it may go on."""
    if tried < min(audience, max(FIRST_LEAST, math.ceil(audience * FIRST_SHARE))):
        return None
    for name, limit in LIMITS.items():
        count = troubles.get(name, 0)
        if count >= limit.least and count > tried * limit.share:
            return {"because": name, "count": count, "of": tried, "limit": limit.share}
    return None


def watch(database: Engine) -> list[UUID]:
    """Look at every run that is at work and pause those that go wrong; return which."""
    with database.connect() as connection:
        troubled = connection.execute(_TROUBLED, {"least": min(limit.least for limit in LIMITS.values())}).all()
    return [row.id for row in troubled if _judge(database, row)]


# By the small index of what went wrong; complaints by way of the feedback about the run's messages.
_TROUBLED = text("""
SELECT r.id, r.audience, r.watched_from, t.bounces, t.unknown, t.render, COALESCE(f.complaints, 0) AS complaints
FROM run r
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE m.status = 'bounced' OR m.reason = 'REJECTED') AS bounces,
           count(*) FILTER (WHERE m.status = 'unknown' AND m.handed_over_at IS NOT NULL) AS unknown,
           count(*) FILTER (WHERE m.status = 'failed' AND m.reason = 'RENDER_FAILED') AS render
    FROM message m WHERE m.run_id = r.id AND m.status IN ('bounced', 'unknown', 'failed')
      AND COALESCE(m.authorised_at, m.settled_at) > COALESCE(r.watched_from, '-infinity')) t
LEFT JOIN (
    SELECT m.run_id, count(DISTINCT m.id) AS complaints
    FROM feedback f JOIN message m ON m.id = f.message_id JOIN run r ON r.id = m.run_id
    WHERE f.kind = 'complained' AND f.received_at > r.created_at
      AND r.kind = 'campaign' AND r.state IN ('planning', 'running')
      AND m.authorised_at > COALESCE(r.watched_from, '-infinity')
    GROUP BY m.run_id) f ON f.run_id = r.id
WHERE r.kind = 'campaign' AND r.state IN ('planning', 'running')
  AND GREATEST(t.bounces, t.unknown, t.render, COALESCE(f.complaints, 0)) >= :least
""")
_TRIED = text("""
SELECT count(*) FROM message
WHERE run_id = :run AND status NOT IN ('pending', 'skipped', 'cancelled')
  AND COALESCE(authorised_at, settled_at) > COALESCE(CAST(:since AS timestamptz), '-infinity')
""")


def _judge(database: Engine, row: Row[Any]) -> bool:
    with database.connect() as connection:
        tried = connection.execute(_TRIED, {"run": row.id, "since": row.watched_from}).scalar_one()
    troubles = {"complaints": row.complaints, "bounces": row.bounces, "render failures": row.render,
                "unknown outcomes": row.unknown}  # fmt: skip
    verdict = verdict_on(tried, row.audience, troubles)
    if verdict is None:
        return False
    with database.begin() as connection:
        return _pause(connection, row, verdict)


def _pause(connection: Connection, row: Row[Any], verdict: dict[str, Any]) -> bool:
    """Pause the run; False if somebody moved it, or looked at it and resumed it, in the meantime."""
    pull_brake(connection, row.id)
    shown = {**verdict, "at": clock.read_now(connection)}
    paused = connection.execute(
        text("""UPDATE run SET state = 'paused', brake = CAST(:brake AS jsonb)
                WHERE id = :id AND state IN ('planning', 'running')
                  AND watched_from IS NOT DISTINCT FROM CAST(:since AS timestamptz)"""),
        {"id": row.id, "brake": orjson.dumps(shown).decode(), "since": row.watched_from},
    ).rowcount
    if paused:
        audit.record(connection, ACTOR, "run.paused", str(row.id), verdict)
        db.notify(connection, "run")
        log.error("run.braked", run=str(row.id), **verdict)
    return bool(paused)


def explain_brake(brake: Mapping[str, Any]) -> str:
    """Return why a run paused itself, in a line for a human."""
    count, of = brake["count"], brake["of"]
    return (
        f"paused by the brake: {count:,} {brake['because']} in {of:,} messages, "
        f"{count / of:.1%} (the limit is {brake['limit']:.1%}). "
        "Find out why, then: dispatcher campaign resume"
    )
