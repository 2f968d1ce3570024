"""What became of a contact in a run, from the ledger alone: nothing of the past is decided again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from dispatcher.errors import NotFound, Refused
from dispatcher.explain.sentences import because, day
from dispatcher.explain.whom import Person
from dispatcher.gates import GATES, Reason
from dispatcher.tables import MAY_HAVE_LEFT

#: These facts are written when something else than a gate's turn ends a message: which gates had agreed is not known.
_FROM_OUTSIDE = frozenset({"withdrawn_at", "suppressed_at", "merged"})
_LEFT = frozenset({"sending", "sent", "delivered", "bounced", "unknown"})
NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True)
class Past:
    """One run of the campaign, and the contact's message in it."""

    run: dict[str, Any]  #: with `in_audience`, and `planned`: whether their page was reached
    message: dict[str, Any] | None

    @property
    def facts(self) -> dict[str, Any]:
        """What was stored of the gate that objected."""
        return dict(self.message["facts"] or {}) if self.message else {}


def look_back(connection: Connection, person: Person, campaign: str, run_id: UUID | None) -> Past | None:
    """Return what the ledger says of `run_id`, else of the campaign's last run; None if it has never run.

    NotFound if there is no such run; Refused if it is another campaign's.
    """
    found = connection.execute(_RUN, {"run": run_id, "campaign": campaign}).one_or_none()
    if found is None:
        if run_id is not None:
            raise NotFound(f"there is no run {run_id}; see: dispatcher run list")
        return None
    if found.campaign != campaign or found.kind != "campaign":
        raise Refused(f"run {run_id} is of {found.campaign}, not of {campaign}; see: dispatcher run list")
    ids = [person.contact_id, *person.merged_ids]
    message = connection.execute(_MESSAGE, {"run": found.run, "ids": ids, "contact": person.contact_id}).one_or_none()
    pages = connection.execute(_PAGES, {"run": found.run, "ids": ids}).one()
    run = dict(found._mapping)
    run |= {"in_audience": message is not None or pages.pages > 0, "planned": message is not None or not pages.waiting}
    if message is None:
        return Past(run, None)
    return Past(run, {**message._mapping, "earlier_attempts": earlier_attempts(connection, message.message)})


def earlier_attempts(connection: Connection, message_id: UUID) -> list[dict[str, Any]]:
    """Return the tries of a message before its latest, in their order."""
    return [dict(row._mapping) for row in connection.execute(_ATTEMPTS, {"message": message_id})]


#: What is told of a run, and of a message `m` at an address `a`.
RUN_COLUMNS = """id AS run, name AS campaign, kind, occurrence_key AS occurrence, state, nominal_at, as_of, created_at,
    planned_at, finished_at, started_by, tzdata, segment->>'name' AS segment"""
MESSAGE_COLUMNS = """m.id AS message, m.status, m.reason, m.deferred_reason, m.facts, m.channel, m.topic,
    m.first_due_at, m.due_at, m.expires_at, m.attempts, m.authorised_at, m.send_deadline, m.handed_over_at,
    m.settled_at, m.provider, m.provider_ref, encode(a.hash, 'hex') AS address_hash"""

_RUN = text(f"""
    SELECT {RUN_COLUMNS}
    FROM run WHERE CASE WHEN CAST(:run AS uuid) IS NULL THEN name = :campaign AND kind = 'campaign' ELSE id = :run END
    ORDER BY created_at DESC, id DESC LIMIT 1
""")  # noqa: S608 - a constant
# Of two rows, after a merge, the one that may have left says more.
_MESSAGE = text(f"""
    SELECT {MESSAGE_COLUMNS}
    FROM message m LEFT JOIN address a ON a.id = m.address_id
    WHERE m.run_id = :run AND m.contact_id = ANY(:ids)
    ORDER BY m.status IN {MAY_HAVE_LEFT} DESC, m.contact_id = :contact DESC, m.id LIMIT 1
""")  # noqa: S608 - a constant
_PAGES = text("""
    SELECT count(*) AS pages, count(*) FILTER (WHERE planned_at IS NULL) > 0 AS waiting
    FROM audience_page WHERE run_id = :run AND contact_ids && CAST(:ids AS bigint[])
""")
_ATTEMPTS = text("""
    SELECT number, authorised_at, handed_over_at, settled_at, provider, outcome, detail
    FROM attempt WHERE message_id = :message ORDER BY number
""")


def as_ledger(past: Past) -> dict[str, Any] | None:
    """Return the message with what its run froze, as `ledger` in JSON; None if they have none in this run."""
    if past.message is None:
        return None
    frozen = {name: past.run[name] for name in ("run", "tzdata")}
    return {**past.message, **frozen, "occurrence_key": past.run["occurrence"], "decided_at": decided_at(past)}


def decided_at(past: Past) -> datetime | None:
    """Return when the last decision was made: authorised or ended; None while it waits."""
    message = past.message or {}
    return message.get("authorised_at") or message.get("settled_at")


def verdict_then(past: Past) -> dict[str, Any]:
    """Return verdict, reason, until and gates as they were decided then, in the form of today's."""
    message = past.message
    if message is None:
        return _verdict_without_a_row(past.run)
    if message["status"] == "pending" and past.run["state"] == "paused":
        facts = {"run": "paused"}
        gates = _gates(Reason.OPERATOR, "defer", None, facts)
        return {"verdict": "defer", "reason": Reason.OPERATOR, "until": None, "facts": facts, "gates": gates}
    deferred = message["deferred_reason"] if message["status"] == "pending" else None
    reason = deferred or message["reason"]
    verdict = "defer" if deferred else "skip" if message["status"] in ("skipped", "cancelled") else "send"
    return {
        "verdict": verdict,
        "reason": reason,
        "until": message["due_at"] if deferred else None,
        "facts": past.facts,
        "gates": _gates(reason, verdict, message["due_at"] if deferred else None, past.facts),
    }


def _verdict_without_a_row(run: dict[str, Any]) -> dict[str, Any]:
    """Return the verdict on who has no row: not decided yet, not meant, or of an occurrence that was sent to nobody."""
    verdict: str = "skip"
    reason: Reason | None = Reason.NOT_IN_SEGMENT if run["state"] != "missed" else Reason.LATE
    if run["in_audience"]:
        verdict, reason = "defer", Reason.OPERATOR if run["state"] == "paused" else None
    return {"verdict": verdict, "reason": reason, "until": None, "facts": {"run": run["state"]}, "gates": []}


def _gates(reason: str | None, verdict: str, until: datetime | None, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is known of each gate: in front of the one that objected they agreed, behind it none was asked."""
    objector = facts.get("blocked_by", reason)
    asked = not (_FROM_OUTSIDE & facts.keys())
    before = objector in GATES
    told: list[dict[str, Any]] = []
    for gate in GATES:
        if gate == objector:
            told.append({"gate": gate, "verdict": verdict, "until": until, "facts": facts})
            asked = False
        else:
            agreed = "send" if asked or not before else NOT_ASKED
            told.append({"gate": gate, "verdict": agreed, "until": None, "facts": {}})
    return told


def sentence_then(person: Person, past: Past) -> str:
    """Return what became of them, in one plain sentence with the reason and the date."""
    who, name, run, message = person.external_id, past.run["campaign"], past.run, past.message
    in_run = f"in the run of {day(run['created_at'])}"
    if message is None:
        return _absent(person, past, in_run)
    at = day(message["handed_over_at"] or message["authorised_at"] or message["settled_at"])
    settled = day(message["settled_at"])
    match message["status"]:
        case "sent":
            return f"{who} was sent {name} on {at}, and {message['provider']} accepted it."
        case "delivered":
            return f"{who} was sent {name} on {at}, and it was delivered on {settled}."
        case "bounced":
            return f"{who} was sent {name} on {at}, and it came back undelivered on {settled}."
        case "unknown":
            return (
                f"Whether {who} got {name} is not known: it was handed over on {at} without a clear answer, "
                "and is not sent again blindly."
            )
        case "sending":
            return f"{who} is being sent {name} right now: it was authorised on {day(message['authorised_at'])}."
        case "pending":
            return _waiting(who, name, past, in_run)
        case _:
            why = because(message["reason"], {"channel": message["channel"], "topic": message["topic"], **past.facts})
            return f"{who} did not get {name} {in_run}: {why} ({message['reason']}, decided on {settled})."


def _waiting(who: str, name: str, past: Past, in_run: str) -> str:
    message = past.message or {}
    due, good = day(message["due_at"]), day(message["expires_at"])
    if past.run["state"] == "paused":
        return f"{who} has not got {name} {in_run}: {because(Reason.OPERATOR, {'run': 'paused'})}; good until {good}."
    if reason := message["deferred_reason"]:
        why = because(reason, {"channel": message["channel"], "topic": message["topic"], **past.facts})
        return f"{who} has not got {name} yet {in_run}: {why} ({reason}); asked again on {due}, good until {good}."
    return f"{who} is to get {name} {in_run}: due on {due}, good until {good}."


def _absent(person: Person, past: Past, in_run: str) -> str:
    who, run = person.external_id, past.run
    if run["in_audience"]:
        paused = ", and the run is paused" if run["state"] == "paused" else ""
        return f"{who} is in the audience of {run['campaign']} {in_run}, and has not been decided on yet{paused}."
    if run["state"] == "missed":
        return f"{who} did not get {run['campaign']} {in_run}: its hour had passed, and it was sent to nobody (LATE)."
    known = "" if person.created_at <= run["created_at"] else f"; they are known since {day(person.created_at)} only"
    segment = f"segment {run['segment']}" if run["segment"] else "its segment"
    return (
        f"{who} did not get {run['campaign']} {in_run}: {segment} did not mean them "
        f"when its audience was frozen on {day(run['as_of'])}{known} (NOT_IN_SEGMENT)."
    )
