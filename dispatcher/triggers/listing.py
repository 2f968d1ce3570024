"""The triggers with their counts, and pausing them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import Connection, text

from dispatcher import audit, runs
from dispatcher.errors import NotFound, Refused
from dispatcher.reports import REASON
from dispatcher.triggers.standing import Applied, load_triggers
from segments.durations import format_duration

_COUNTS = text(f"""
    SELECT m.trigger_id, m.status, {REASON} AS reason, count(*) AS number FROM message m
    WHERE m.trigger_id IS NOT NULL GROUP BY 1, 2, 3
""")  # noqa: S608 - constants only
_RUNS = text("SELECT trigger_id, id FROM run WHERE trigger_id IS NOT NULL ORDER BY created_at DESC, id DESC")


def list_triggers(connection: Connection) -> list[dict[str, Any]]:
    """Return the triggers by name, each with its messages by status and by reason, and its runs, newest first."""
    counts = connection.execute(_COUNTS).all()
    runs_of = connection.execute(_RUNS).all()
    found = []
    for trigger in sorted(load_triggers(connection), key=lambda one: one.definition.name):
        status: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for row in counts:
            if row.trigger_id == trigger.id:
                status[row.status] += row.number
                if row.reason is not None:
                    reasons[row.reason] += row.number
        rules = trigger.definition
        found.append(
            {
                "trigger": rules.name,
                "on": rules.on,
                "after": format_duration(rules.after),
                "channel": rules.channel,
                "template": rules.template,
                "version": trigger.version,
                "state": _state(trigger),
                "messages": status.total(),
                "status": dict(status),
                "reasons": dict(reasons),
                "runs": [str(row.id) for row in runs_of if row.trigger_id == trigger.id],
            }
        )
    return found


def _state(trigger: Applied) -> str:
    if not trigger.active:
        return "retired"
    return "paused" if trigger.paused else "active"


def pause(connection: Connection, name: str, *, by: str) -> int:
    """Let nothing of this trigger leave; events go on starting messages.  Return how many runs were paused."""
    return _move(connection, name, paused=True, by=by)


def resume(connection: Connection, name: str, *, by: str) -> int:
    """Let a paused trigger's messages leave again, those that have not expired; return how many runs go on."""
    return _move(connection, name, paused=False, by=by)


def _move(connection: Connection, name: str, *, paused: bool, by: str) -> int:
    trigger_id = connection.scalar(text("SELECT id FROM trigger WHERE name = :name"), {"name": name})
    if trigger_id is None:
        names = ", ".join(trigger.definition.name for trigger in load_triggers(connection))
        raise NotFound(
            f"there is no trigger {name}; there are {names or 'none: add triggers/ and run dispatcher apply'}"
        )
    moved = _move_runs(connection, trigger_id, paused=paused, by=by)  # first: they come before what they hang on
    changed = connection.execute(
        text("UPDATE trigger SET paused = :paused WHERE id = :id AND paused <> :paused"),
        {"id": trigger_id, "paused": paused},
    )
    moved += _move_runs(connection, trigger_id, paused=paused, by=by)  # what an event has made meanwhile
    if not changed.rowcount and not moved:
        raise Refused(f"trigger {name} is {'paused already' if paused else 'not paused'}")
    audit.record(connection, by, f"trigger.{'paused' if paused else 'resumed'}", name, {"runs": moved})
    return moved


def _move_runs(connection: Connection, trigger_id: int, *, paused: bool, by: str) -> int:
    found = connection.scalars(
        text("SELECT id FROM run WHERE trigger_id = :id AND state = :state ORDER BY id"),
        {"id": trigger_id, "state": "running" if paused else "paused"},
    ).all()
    for run_id in found:
        (runs.pause if paused else runs.resume)(connection, run_id, by=by)
    return len(found)
