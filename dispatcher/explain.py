"""Why does this contact get this campaign, or why not?  Every gate in order, with the facts it looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from dispatcher import audience, clock, runs
from dispatcher.caps import room_under
from dispatcher.contacts import find_contact
from dispatcher.facts import Facts
from dispatcher.facts_page import order_of, read_facts
from dispatcher.gates import GATES, Defer, Reason, Send, Skip, Verdict, decide
from dispatcher.keys import KeyRing
from dispatcher.quiet_hours import LocalSilence, next_opening
from dispatcher.shop import load_shop


def explain(
    connection: Connection,
    key_ring: KeyRing,
    contact: str,
    campaign: str,
    *,
    as_of: datetime | None = None,
    run: UUID | None = None,
) -> dict[str, Any]:
    """Return the verdict on `contact` (external id, else e-mail address) if `campaign` came to them now, or at `as_of`.

    `verdict`, `reason`, `until`, and `gates`: each gate's own answer and facts, also those behind the first objection.
    `ledger` is what became of them in the campaign's last run, or in `run`; None if they were not in its audience.
    `segment` shows every condition of the segment with what was found.
    """
    contact_id = find_contact(connection, key_ring, contact)
    now = as_of or clock.read_now(connection)
    drafted, segment = runs.draft(
        connection, campaign, occurrence_key="explained", nominal_at=now, started_by="explain"
    )
    stopped = bool(connection.scalar(text("SELECT stopped_at IS NOT NULL FROM engine")))
    order = order_of(drafted, load_shop(connection), stopped=stopped, urgent=False)
    assert drafted.campaign is not None
    inside = contact_id in audience.members(connection, segment, now, [contact_id])
    [(external_id, facts)] = read_facts(
        connection,
        order,
        [contact_id],
        now=now,
        expires_at=now + drafted.campaign.expires_after,
        outside_segment=() if inside else (contact_id,),
    )
    verdict = decide(facts, now)
    return {
        "contact": external_id,
        "campaign": campaign,
        "as_of": now,
        **_verdict(verdict),
        "facts": getattr(verdict, "facts", {}),
        "gates": [_gate(reason, facts, now) for reason in GATES],
        "segment": audience.why_not(connection, segment, now, contact_id),
        "ledger": _ledger(connection, contact_id, campaign, run),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    match verdict:
        case Send():
            return {"verdict": "send", "reason": None, "until": None}
        case Defer(until=until, reason=reason):
            return {"verdict": "defer", "reason": reason, "until": until}
        case Skip(reason=reason):
            return {"verdict": "skip", "reason": reason, "until": None}


def _gate(reason: Reason, facts: Facts, now: datetime) -> dict[str, Any]:
    answer = GATES[reason](facts, now)
    shown = _EVIDENCE[reason](facts, now) | getattr(answer, "facts", {})
    return {"gate": reason, "verdict": _verdict(answer)["verdict"], "until": _verdict(answer)["until"], "facts": shown}


Evidence = Callable[[Facts, datetime], dict[str, Any]]


def _consent(facts: Facts, _: datetime) -> dict[str, Any]:
    return {
        "needed": facts.run.marketing,
        "topic": facts.run.topic,
        "state": facts.consent,
        "for_this_address": facts.consent_for_this_address,
        "confirmed": facts.consent_confirmed,
        "double_opt_in": facts.run.double_opt_in,
        "basis": facts.consent_basis,
        "accepted_bases": ("consent", *facts.run.bases),
        "effective_at": facts.consent_effective_at,
        "expires_at": facts.consent_expires_at,
        "evidence": facts.consent_event,
    }


def _quiet(facts: Facts, now: datetime) -> dict[str, Any]:
    places = facts.places
    opening = next_opening(now, facts.silences, facts.run.guard) if places.zones else None
    return {
        "heeded": facts.run.heeds_quiet_hours,
        "zones": places.zones,
        "known_from": places.known_from,
        "silences": _silences(facts),
        "guard_seconds": facts.run.guard.total_seconds(),
        "opens_at": opening.opens_at if opening else None,
        "closes_at": opening.closes_at if opening else None,
    }


def _silences(facts: Facts) -> list[dict[str, Any]]:
    """Return each rule once, with the zones by whose clocks it holds."""
    zones: dict[LocalSilence, list[str]] = {}
    for local in facts.silences:
        zones.setdefault(replace(local, zone=""), []).append(local.zone)
    return [
        {
            "source": rule.source,
            "zones": names,
            "hours": [str(silence) for silence in rule.silences],
            "holidays": rule.holidays,
            "before_holidays": [str(silence) for silence in rule.before_holidays],
        }
        for rule, names in zones.items()
    ]


def _caps(facts: Facts, now: datetime) -> dict[str, Any]:
    rooms = [room_under(cap, facts, now) for cap in facts.caps]
    return {
        "on_cap": facts.run.on_cap,
        "caps": [
            {"cap": room.cap.name, "counted": room.counted, "free": room.free, "frees_at": room.frees_at}
            for room in rooms
        ],
    }


_EVIDENCE: dict[Reason, Evidence] = {
    Reason.OPERATOR: lambda f, _: {"engine_stopped": f.run.stopped, "run": f.run.state},
    Reason.EXPIRED: lambda f, _: {"expires_at": f.expires_at},
    Reason.NO_ADDRESS: lambda f, _: {"channel": f.run.channel, "has_address": f.address_id is not None},
    Reason.BAD_ADDRESS: lambda f, _: {"address_ok": f.address_ok},
    Reason.SUPPRESSED: lambda f, _: {"suppressions": [{"reason": r, "scope": s} for r, s in f.suppressions]},
    Reason.NO_CONSENT: _consent,
    Reason.PAUSED: lambda f, _: {"paused_until": f.paused_until},
    Reason.NOT_IN_SEGMENT: lambda f, _: {"in_segment": f.in_segment},
    Reason.FLOW_EXIT: lambda f, _: {"exited": f.flow_exited},
    Reason.SOURCE_STALE: lambda f, _: {"stale": f.source_stale},
    Reason.HOLDOUT: lambda f, _: {"held_out": f.held_out},
    Reason.DUPLICATE_ADDRESS: lambda f, _: {"goes_to": f.duplicate_of},
    Reason.LATE: lambda f, _: {"too_late": f.too_late},
    Reason.PLACE_UNKNOWN: lambda f, _: {"places": [asdict(place) for place in f.places.candidates]},
    Reason.QUIET_HOURS: _quiet,
    Reason.OUTRANKED: lambda f, _: {"rivals": [asdict(rival) for rival in f.rivals]},
    Reason.CAPPED: _caps,
}


def _ledger(connection: Connection, contact_id: int, campaign: str, run: UUID | None) -> dict[str, Any] | None:
    row = connection.execute(
        text("""SELECT m.id AS message, m.run_id AS run, m.status, m.reason, m.deferred_reason, m.facts, m.due_at,
                       m.expires_at, m.authorised_at, m.handed_over_at, m.settled_at, r.occurrence_key, r.tzdata
                FROM message m JOIN run r ON r.id = m.run_id
                WHERE m.contact_id = :contact AND r.name = :campaign AND r.kind = 'campaign'
                  AND (CAST(:run AS uuid) IS NULL OR r.id = :run)
                ORDER BY r.created_at DESC LIMIT 1"""),
        {"contact": contact_id, "campaign": campaign, "run": run},
    ).one_or_none()
    return dict(row._mapping) if row is not None else None
