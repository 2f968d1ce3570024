"""A trigger instead of a campaign: the contact's newest message of it, and what the gates say of that one now."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from dispatcher import clock
from dispatcher.errors import Refused
from dispatcher.explain import past as past_runs
from dispatcher.explain.evidence import Case, gates_of, verdict_of
from dispatcher.explain.sentences import because, day
from dispatcher.explain.whom import Person
from dispatcher.facts_page import order_of, read_facts
from dispatcher.gates import Defer, Send, Verdict, decide
from dispatcher.runs import load_run
from dispatcher.shop import load_shop


def is_trigger(connection: Connection, name: str) -> bool:
    """Whether `name` is a trigger, a retired one included."""
    return bool(connection.scalar(text("SELECT EXISTS (SELECT FROM trigger WHERE name = :name)"), {"name": name}))


def explain_flow(
    connection: Connection, person: Person, name: str, *, as_of: datetime | None, run: UUID | None
) -> dict[str, Any]:
    """Return what `explain` returns of a campaign, of the person's newest message of this trigger (of this run of it).

    It has no segment, no next occurrence and no outlook.  Refused if no event of theirs has started one.
    """
    now = as_of or clock.read_now(connection)
    past = _newest(connection, person, name, run)
    message = past.message or {}
    stopped = bool(connection.scalar(text("SELECT stopped_at IS NOT NULL FROM engine")))
    order = order_of(load_run(connection, past.run["run"]), load_shop(connection), stopped=stopped, urgent=False)
    [(external_id, facts)] = read_facts(
        connection,
        order,
        [person.contact_id],
        now=now,
        expires_at=message["expires_at"],
        first_due_at={person.contact_id: message["first_due_at"]},
        messages=[message["message"]],
    )
    verdict = decide(facts, now)
    return {
        "contact": external_id,
        "campaign": name,
        "merged_from": person.merged_from,
        "erased_at": person.erased_at,
        "as_of": now,
        "due_at": message["due_at"],
        "sentence": _sentence(external_id, name, now, verdict, {"channel": order.facts.channel}),
        **verdict_of(verdict),
        "facts": getattr(verdict, "facts", {}),
        "gates": gates_of(Case(connection, order, external_id, facts, now, "")),
        "segment": None,
        "not_in_segment_because": [],
        "next_occurrence": None,
        "eligible": None,
        "ledger": past_runs.as_ledger(past),
        "ledger_sentence": past_runs.sentence_then(person, past),
        "run": past.run,
    }


_NEWEST = text(f"""
    SELECT {past_runs.MESSAGE_COLUMNS}, m.run_id
    FROM message m JOIN trigger g ON g.id = m.trigger_id LEFT JOIN address a ON a.id = m.address_id
    WHERE g.name = :name AND m.contact_id = :contact AND (CAST(:run AS uuid) IS NULL OR m.run_id = :run)
    ORDER BY m.id DESC LIMIT 1
""")  # noqa: S608 - a constant
_RUN = text(f"SELECT {past_runs.RUN_COLUMNS}, true AS in_audience, true AS planned FROM run WHERE id = :run")  # noqa: S608


def _newest(connection: Connection, person: Person, name: str, run: UUID | None) -> past_runs.Past:
    row = connection.execute(_NEWEST, {"name": name, "contact": person.contact_id, "run": run}).one_or_none()
    if row is None:
        raise Refused(f"no event of {person.external_id} has started trigger {name}, so it has no message for them")
    message = dict(row._mapping)
    frozen = connection.execute(_RUN, {"run": message.pop("run_id")}).one()
    message["earlier_attempts"] = past_runs.earlier_attempts(connection, row.message)
    return past_runs.Past(dict(frozen._mapping), message)


def _sentence(who: str, name: str, now: datetime, verdict: Verdict, known: dict[str, Any]) -> str:
    judged = f"judged at {day(now)}"
    if isinstance(verdict, Send):
        return f"{who} would get {name}, {judged}: every gate agrees."
    later = f" yet, {judged}: " if isinstance(verdict, Defer) else f", {judged}: "
    return f"{who} would not get {name}{later}{because(verdict.reason, known | verdict.facts)} ({verdict.reason})."
