"""Why does this contact get this campaign, or why not?  Every gate in order, with what it looked at and since when.

Today is decided by the code that plans and sends; the past is read from the ledger and never decided again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from dispatcher import audience
from dispatcher.errors import NotFound
from dispatcher.explain import past as past_runs
from dispatcher.explain.evidence import Case, gates_of, verdict_of
from dispatcher.explain.flows import explain_flow, is_trigger
from dispatcher.explain.sentences import because, blame, day
from dispatcher.explain.whom import Person, find_person
from dispatcher.gates import Defer, Reason, Send, Skip, decide
from dispatcher.keys import KeyRing
from dispatcher.outlook import Outlook, follow
from dispatcher.plan import Planned, judge
from dispatcher.rehearsal import Rehearsal, rehearse

__all__ = ["explain"]


def explain(
    connection: Connection,
    key_ring: KeyRing,
    contact: str,
    campaign: str,
    *,
    as_of: datetime | None = None,
    run: UUID | None = None,
    suggest: bool = False,
) -> dict[str, Any]:
    """Return the verdict on `contact` (external id, else e-mail address) if `campaign` came to them now, or at `as_of`.

    `verdict`, `reason`, `until`, and `gates`: each gate's own answer and facts, also those behind the first objection.
    `sentence` says it in words; `eligible` follows a deferral to the instant at which nothing objects any more.
    `next_occurrence` is the verdict on the next one of a `local: true` campaign; None for any other.
    `segment` shows every condition of the segment with what was found.  `ledger` is what became of them in the
    campaign's last run, from the ledger; None if they have no row in it.

    With `run`, verdict, reason, until and gates are those of then, as stored; `today` has the present ones beside.
    Instants are UTC.  NotFound: no such contact, no such run, no such campaign (unless it ran once).  Refused: the run
    is another campaign's.  `suggest`: an unknown contact is answered with a similar external id.

    `campaign` may be a trigger, too: see `explain_flow`.
    """
    person = find_person(connection, key_ring, contact, suggest=suggest)
    if is_trigger(connection, campaign):
        return explain_flow(connection, person, campaign, as_of=as_of, run=run)
    past = past_runs.look_back(connection, person, campaign, run)
    try:
        today: dict[str, Any] | None = _today(connection, person, campaign, as_of)
    except NotFound:
        if past is None:
            raise
        today = None  # a campaign that is retired has a past all the same
    told: dict[str, Any] = {
        "contact": person.external_id,
        "campaign": campaign,
        "merged_from": person.merged_from,
        "erased_at": person.erased_at,
    }
    if today is not None and run is None:
        told |= today
    elif past is not None:
        told |= {"sentence": past_runs.sentence_then(person, past), **past_runs.verdict_then(past), "today": today}
    return told | {
        "ledger": past_runs.as_ledger(past) if past else None,
        "ledger_sentence": past_runs.sentence_then(person, past) if past else _never_run(campaign),
        "run": past.run if past else None,
    }


def _never_run(campaign: str) -> str:
    return f"{campaign} has never been run."


def _today(connection: Connection, person: Person, campaign: str, as_of: datetime | None) -> dict[str, Any]:
    """Return what would become of them if the campaign started now, and at its next occurrence if that is local."""
    now = _rehearsed(connection, person, rehearse(connection, campaign, as_of=as_of, by_hand=True))
    coming = rehearse(connection, campaign, as_of=as_of)
    if coming.occurrence is None:
        return {**now, "next_occurrence": None}
    told = _rehearsed(connection, person, coming)
    return {**now, "next_occurrence": {"occurrence": coming.occurrence.key, **{k: told[k] for k in _OF_AN_OCCURRENCE}}}


_OF_AN_OCCURRENCE = ("as_of", "due_at", "sentence", "verdict", "reason", "until", "facts", "eligible")


def _rehearsed(connection: Connection, person: Person, rehearsal: Rehearsal) -> dict[str, Any]:
    """Return verdict, gates and outlook of one rehearsal."""
    planned = _judged(connection, rehearsal, person)
    outlook = follow(planned.facts, planned.due_at, planned.verdict)
    case = Case(connection, rehearsal.order, person.external_id, planned.facts, planned.due_at, rehearsal.segment.name)
    conditions = audience.why_not(connection, rehearsal.segment, rehearsal.now, person.contact_id)
    return {
        "as_of": rehearsal.now,
        "due_at": planned.due_at,
        "sentence": _sentence(person, rehearsal, planned, outlook, blame(conditions)),
        **verdict_of(planned.verdict),
        "facts": getattr(planned.verdict, "facts", {}),
        "gates": gates_of(case),
        "eligible": _eligible(planned, outlook),
        "segment": conditions.to_json(),
        "not_in_segment_because": blame(conditions),
    }


def _judged(connection: Connection, rehearsal: Rehearsal, person: Person) -> Planned:
    """Return the verdict that planning the whole audience would give them: whoever shares their address comes first."""
    sharing = connection.scalars(
        text(f"""SELECT o.id FROM contact c
                 JOIN contact o ON o.{rehearsal.run.channel}_address_id = c.{rehearsal.run.channel}_address_id
                 WHERE c.id = :id AND o.id < c.id AND o.merged_into IS NULL ORDER BY o.id"""),  # noqa: S608 - a channel
        {"id": person.contact_id},
    ).all()
    asked = [*sharing, person.contact_id]
    inside = audience.members(connection, rehearsal.segment, rehearsal.now, asked)
    page = [contact_id for contact_id in asked if contact_id in inside or contact_id == person.contact_id]
    *_, planned = judge(connection, rehearsal.run, rehearsal.order, page, rehearsal.now)
    if person.contact_id in inside:
        return planned
    facts = replace(planned.facts, in_segment=False)
    return replace(planned, facts=facts, verdict=decide(facts, planned.due_at))


def _sentence(person: Person, rehearsal: Rehearsal, planned: Planned, outlook: Outlook, unmet: list[str]) -> str:
    who, campaign, verdict = person.external_id, rehearsal.run.name, planned.verdict
    judged = f"judged at {day(rehearsal.now)}"
    if person.erased_at is not None:
        return f"{who} would not get {campaign}, {judged}: they were erased on {day(person.erased_at)}."
    known = {**_known(rehearsal), "unmet": unmet}
    match verdict:
        case Send() if planned.due_at > rehearsal.now:
            return f"{who} would get {campaign} on {day(planned.due_at)}, {judged}: every gate agrees."
        case Send():
            return f"{who} would get {campaign} now, {judged}: every gate agrees."
        case Skip(reason=reason, facts=facts):
            return f"{who} would not get {campaign}, {judged}: {because(reason, known | facts)} ({reason})."
        case Defer(reason=reason, facts=facts):
            then = _then(outlook)
            return f"{who} would not get {campaign} yet, {judged}: {because(reason, known | facts)} ({reason}); {then}."


def _known(rehearsal: Rehearsal) -> dict[str, Any]:
    """Return what a sentence may name beside the facts of the gate that objects."""
    return {
        "channel": rehearsal.run.channel,
        "topic": rehearsal.run.topic,
        "segment": rehearsal.segment.name,
        "share": rehearsal.order.holdout,
    }


def _eligible(planned: Planned, outlook: Outlook) -> dict[str, Any]:
    """Return when nothing would object any more, and the decisions on the way there."""
    steps = [{"at": at, **verdict_of(verdict)} for at, verdict in outlook.steps]
    return {
        "at": outlook.leaves_at,
        "never": outlook.never,
        "waits_for": outlook.waits_for,
        "sentence": _then(outlook),
        "good_until": planned.facts.expires_at,
        "steps": steps,
    }


def _then(outlook: Outlook) -> str:
    if outlook.leaves_at is not None:
        return f"eligible on {day(outlook.leaves_at)}"
    if outlook.never is not None:
        at, verdict = outlook.steps[-1]
        why = because(outlook.never, getattr(verdict, "facts", {}))
        return f"never for this run, because {why} ({outlook.never}, as of {day(at)})"
    if outlook.waits_for == Reason.OPERATOR:
        return "eligible when an operator lets it go on"
    return f"eligible when we know more of where they are: import a country, subdivision or zone ({outlook.waits_for})"
