"""What each gate looked at, for one contact: not only the values it compared, but where they come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row, text

from dispatcher.caps import Room, longest_window, room_under
from dispatcher.contact_windows import load_rows
from dispatcher.facts import Facts
from dispatcher.facts_page import Order, share_of
from dispatcher.gates import GATES, Defer, Reason, Send, Verdict
from dispatcher.places import TZDATA_VERSION
from dispatcher.quiet_hours import LocalSilence, in_effect, next_opening
from dispatcher.tables import MAY_HAVE_LEFT


@dataclass(frozen=True, slots=True)
class Case:
    """One contact's facts at one instant, and the ledger they came from."""

    connection: Connection
    order: Order
    external_id: str
    facts: Facts
    at: datetime
    segment: str


def gates_of(case: Case) -> list[dict[str, Any]]:
    """Return every gate in order: its own answer, also behind the first objection, and the facts it looked at."""
    told = []
    for reason, gate in GATES.items():
        answer = gate(case.facts, case.at)
        found = _EVIDENCE[reason](case) | getattr(answer, "facts", {})
        told.append({"gate": reason, **verdict_of(answer), "facts": found})
        del told[-1]["reason"]
    return told


def verdict_of(answer: Verdict) -> dict[str, Any]:
    """Return verdict, reason and until as JSON has them."""
    if isinstance(answer, Send):
        return {"verdict": "send", "reason": None, "until": None}
    if isinstance(answer, Defer):
        return {"verdict": "defer", "reason": answer.reason, "until": answer.until}
    return {"verdict": "skip", "reason": answer.reason, "until": None}


Evidence = Callable[[Case], dict[str, Any]]


def _operator(case: Case) -> dict[str, Any]:
    run = case.facts.run
    drafted = run.state == "planning"  # a run that would begin now: nobody can have stopped it
    return {"engine_stopped": run.stopped} | ({} if drafted else {"run": run.state})


def _suppressions(case: Case) -> dict[str, Any]:
    rows = case.connection.execute(
        text("""SELECT reason, scope, source, created_at FROM suppression
                WHERE address_id = :address ORDER BY order_seq"""),
        {"address": case.facts.address_id},
    )
    return {"suppressions": [dict(row._mapping) for row in rows]}


def _consent(case: Case) -> dict[str, Any]:
    facts = case.facts
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
        "evidence": _consent_event(case.connection, facts.consent_event),
    }


def _consent_event(connection: Connection, event_id: int | None) -> dict[str, Any] | None:
    """Return the piece of evidence that the state stands on; what of it is personal stays sealed."""
    if event_id is None:
        return None
    row = connection.execute(text("SELECT * FROM consent_event WHERE id = :id"), {"id": event_id}).one()
    return {name: value for name, value in row._mapping.items() if name in _TOLD_OF_CONSENT}


_TOLD_OF_CONSENT = frozenset(
    {
        "id",
        "action",
        "actor",
        "occurred_at",
        "received_at",
        "source",
        "wording",
        "opt_in_level",
        "basis",
        "confirmation",
    }
)


def _exit(case: Case) -> dict[str, Any]:
    flow = case.facts.flow
    known = (
        {"began_at": flow.began_at, "event": flow.ended_by, "at": flow.ended_at, "same": flow.matched_by}
        if flow
        else {}
    )
    return {"exited": case.facts.flow_exited, **known}


def _feed(case: Case) -> dict[str, Any]:
    told: dict[str, Any] = {"stale": case.facts.source_stale}
    if flow := case.facts.flow:
        patience = flow.may_be_silent_for
        told |= {"source": flow.source, "heard_at": flow.heard_at}
        told |= {"may_be_silent_seconds": patience.total_seconds() if patience else None}
    return told


def _holdout(case: Case) -> dict[str, Any]:
    return {
        "held_out": case.facts.held_out,
        "share": case.order.holdout,
        "drawn": round(share_of("holdout", case.order.name, case.external_id), 4),
    }


def _places(case: Case) -> dict[str, Any]:
    return {"places": _candidates(case.facts, case.at), "tzdata": TZDATA_VERSION}


def _candidates(facts: Facts, at: datetime) -> list[dict[str, Any]]:
    """Return every place they may be in: what it is known from, and what the clock shows there."""
    return [
        {
            "zone": place.zone,
            "country": place.country,
            "subdivision": place.subdivision,
            "known_from": place.known_from,
            "local_time": _clock(place.zone, at),
        }
        for place in facts.places.candidates
    ]


def _clock(zone: str, at: datetime) -> str:
    return at.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes")


def _quiet(case: Case) -> dict[str, Any]:
    facts = case.facts
    opening = next_opening(case.at, facts.silences, facts.run.guard) if facts.places.zones else None
    return {
        "heeded": facts.run.heeds_quiet_hours,
        "local_times": {place.zone: _clock(place.zone, case.at) for place in facts.places.candidates},
        "silences": _silences(facts, case.at),
        "laws": _laws(local.source for local in facts.silences),
        "guard_seconds": facts.run.guard.total_seconds(),
        "opens_at": opening.opens_at if opening else None,
        "closes_at": opening.closes_at if opening else None,
    }


def _silences(facts: Facts, at: datetime) -> list[dict[str, Any]]:
    """Return each rule of silence once: whose it is, by whose clocks, its hours, and whether it holds now."""
    zones: dict[LocalSilence, list[LocalSilence]] = {}
    for local in facts.silences:
        zones.setdefault(replace(local, zone=""), []).append(local)
    return [
        {
            "source": rule.source,
            "in_effect": bool(in_effect(at, tuple(locals_), facts.run.guard)),
            "zones": [local.zone for local in locals_],
            "hours": [str(silence) for silence in rule.silences],
            "holidays": rule.holidays,
            "before_holidays": [str(silence) for silence in rule.before_holidays],
        }
        for rule, locals_ in zones.items()
    ]


def _laws(row_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Return what each contact window stands on: statute or code, how binding it is, the pages it was read from.

    Left out is what is no row of ours: the shop's own hours, and the person's.
    """
    rows = [row for row_id in dict.fromkeys(row_ids) if (row := load_rows().get(row_id))]
    return [
        {"window": row.id, "basis": row.basis, "standing": row.standing, "reach": row.reach, "pages": row.sources}
        for row in rows
    ]


def _caps(case: Case) -> dict[str, Any]:
    history = _history(case) if case.facts.counted else []
    return {
        "on_cap": case.facts.run.on_cap,
        "caps": [_room(room_under(cap, case.facts, case.at), case, history) for cap in case.facts.caps],
        "laws": _laws(_LAW_CAP.sub(r"\1", cap.name).upper() for cap in case.facts.law_caps),
    }


#: The caps of places are called after their row, with a number where it has several.
_LAW_CAP = re.compile(r"^law-(.+?)(-\d+)?$")


def _room(room: Room, case: Case, history: list[Row[Any]]) -> dict[str, Any]:
    """Return what a cap leaves, with the messages it counted: the newest ones to the contact, or to the address."""
    cap = room.cap
    of_contact = replace(case.facts, counted=tuple(c for c in case.facts.counted if c.to_contact))
    by_contact = room_under(cap, of_contact, case.at).counted == room.counted
    counted = [
        {"message": row.id, "campaign": row.campaign, "authorised_at": row.authorised_at, "channel": row.channel}
        for row in history
        if row.channel in cap.channels
        and (cap.topics is None or row.topic in cap.topics)
        and (row.to_contact if by_contact else row.to_address)
    ]
    return {
        "cap": cap.name,
        "allows": cap.max or 1,
        "counted": room.counted,
        "free": room.free,
        "frees_at": room.frees_at,
        "messages": counted[: room.counted],
    }


def _history(case: Case) -> list[Row[Any]]:
    """Return what caps count, newest first, by the same conditions as the facts."""
    window = longest_window(case.facts.caps)
    return list(
        case.connection.execute(
            _HISTORY,
            {"contact": case.facts.contact_id, "address": case.facts.address_id, "since": case.at - window,
             "until": case.at},
        )
    )  # fmt: skip


_HISTORY = text(f"""
    SELECT m.id, r.name AS campaign, m.authorised_at, m.channel, m.topic,
           m.contact_id = :contact OR t.merged_into IS NOT NULL AS to_contact,
           COALESCE(m.address_id = :address, false) AS to_address
    FROM message m JOIN run r ON r.id = m.run_id
    LEFT JOIN contact t ON t.id = m.contact_id AND t.merged_into = :contact
    WHERE m.class = 'marketing' AND m.status IN {MAY_HAVE_LEFT}
      AND m.authorised_at > :since AND m.authorised_at <= :until
      AND (m.contact_id = :contact OR m.contact_id IN (SELECT id FROM contact WHERE merged_into = :contact)
           OR m.address_id = :address)
    ORDER BY m.authorised_at DESC, m.id DESC
""")  # noqa: S608 - a constant

_EVIDENCE: dict[Reason, Evidence] = {
    Reason.OPERATOR: _operator,
    Reason.EXPIRED: lambda case: {"expires_at": case.facts.expires_at},
    Reason.NO_ADDRESS: lambda case: {
        "channel": case.facts.run.channel,
        "has_address": case.facts.address_id is not None,
    },
    Reason.BAD_ADDRESS: lambda case: {"address_ok": case.facts.address_ok},
    Reason.SUPPRESSED: _suppressions,
    Reason.NO_CONSENT: _consent,
    Reason.PAUSED: lambda case: {"paused_until": case.facts.paused_until},
    Reason.NOT_IN_SEGMENT: lambda case: {"segment": case.segment, "in_segment": case.facts.in_segment},
    Reason.FLOW_EXIT: _exit,
    Reason.SOURCE_STALE: _feed,
    Reason.HOLDOUT: _holdout,
    Reason.DUPLICATE_ADDRESS: lambda case: {"goes_to": case.facts.duplicate_of},
    Reason.LATE: lambda case: {"too_late": case.facts.too_late},
    Reason.PLACE_UNKNOWN: _places,
    Reason.QUIET_HOURS: _quiet,
    Reason.OUTRANKED: lambda case: {"rivals": [asdict(rival) for rival in case.facts.rivals]},
    Reason.CAPPED: _caps,
}
