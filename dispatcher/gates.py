"""May this message go now?  Facts in, verdict out.

`decide` asks the gates in the order of this file and returns the first objection.  Plan, authorise, simulate and
explain all ask it, and nothing else decides.  Consent and quiet hours come before caps: what is blocked or parked never
eats a slot.

Only marketing needs consent, heeds a person's pause, gives way to rivals and is capped.  Quiet hours bind marketing,
and of the rest the transactional texts that are not urgent.  Every other gate binds every message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from dispatcher.caps import rivals_for, room_under
from dispatcher.facts import Facts
from dispatcher.openings import moment_in, next_opening, only_they_object, welcome_from
from dispatcher.places import TZDATA_VERSION
from dispatcher.quiet_hours import HORIZON, in_effect, unknown_calendars


class Reason(StrEnum):
    OPERATOR = "OPERATOR"  #: a human stopped the engine or the run
    EXPIRED = "EXPIRED"  #: it would come too late to be of use
    NO_ADDRESS = "NO_ADDRESS"  #: no address on this channel
    BAD_ADDRESS = "BAD_ADDRESS"  #: the address cannot work
    SUPPRESSED = "SUPPRESSED"  #: a standing "never send" on the address
    NO_CONSENT = "NO_CONSENT"  #: this topic is not granted on this channel for this address
    PAUSED = "PAUSED"  #: the person asked for a pause
    NOT_IN_SEGMENT = "NOT_IN_SEGMENT"  #: the campaign is not for them, or no longer
    FLOW_EXIT = "FLOW_EXIT"  #: what the trigger waited for happened
    SOURCE_STALE = "SOURCE_STALE"  #: the shop's feed is too old to know
    HOLDOUT = "HOLDOUT"  #: kept out on purpose, to measure what sending does
    DUPLICATE_ADDRESS = "DUPLICATE_ADDRESS"  #: somebody else in this run has the same address
    LATE = "LATE"  #: its local time had passed
    PLACE_UNKNOWN = "PLACE_UNKNOWN"  #: we cannot tell whether it is night there
    QUIET_HOURS = "QUIET_HOURS"  #: it is time for silence where the contact may be
    OUTRANKED = "OUTRANKED"  #: a more important message needs the slot
    CAPPED = "CAPPED"  #: enough for now
    RENDER_FAILED = "RENDER_FAILED"  #: the template could not be filled for this contact
    REJECTED = "REJECTED"  #: the provider refused it for good
    PROVIDER_DROPPED = "PROVIDER_DROPPED"  #: the provider accepted it and then let it fall
    RATE = "RATE"  #: the provider's rate is used up for the moment


@dataclass(frozen=True, slots=True)
class Send:
    """Nothing objects."""


@dataclass(frozen=True, slots=True)
class Defer:
    """Not now; ask again at `until`."""

    until: datetime
    reason: Reason
    facts: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Skip:
    """Never, for this message."""

    reason: Reason
    facts: dict[str, Any] = field(default_factory=dict, compare=False)


Verdict = Send | Defer | Skip
SEND = Send()

#: How soon to ask again when only a human or better data can change the answer.
ASK_AGAIN = {
    Reason.OPERATOR: timedelta(minutes=1),
    Reason.SOURCE_STALE: timedelta(minutes=5),
    Reason.PLACE_UNKNOWN: timedelta(hours=1),
}


# --- may anything leave, and where to


def not_stopped(facts: Facts, now: datetime) -> Verdict:
    if facts.run.state == "cancelled":
        return Skip(Reason.OPERATOR, {"run": "cancelled"})
    if facts.run.stopped or facts.run.state == "paused":
        shown = {"engine": "stopped"} if facts.run.stopped else {"run": "paused"}
        return Defer(now + ASK_AGAIN[Reason.OPERATOR], Reason.OPERATOR, shown)
    return SEND


def not_expired(facts: Facts, now: datetime) -> Verdict:
    return Skip(Reason.EXPIRED, {"expires_at": facts.expires_at}) if now >= facts.expires_at else SEND


def has_address(facts: Facts, now: datetime) -> Verdict:
    return Skip(Reason.NO_ADDRESS, {"channel": facts.run.channel}) if facts.address_id is None else SEND


def address_works(facts: Facts, now: datetime) -> Verdict:
    return SEND if facts.address_ok else Skip(Reason.BAD_ADDRESS, {"channel": facts.run.channel})


# --- may we write to this person


def not_suppressed(facts: Facts, now: datetime) -> Verdict:
    if not facts.suppressions:
        return SEND
    binding = [
        reason
        for reason, scope in facts.suppressions
        if (scope == "all" or facts.run.marketing) and not (facts.run.is_answer and reason == "stop")
    ]
    return Skip(Reason.SUPPRESSED, {"because": binding}) if binding else SEND


def has_consent(facts: Facts, now: datetime) -> Verdict:
    if not facts.run.marketing or (objection := _consent_objection(facts, now)) is None:
        return SEND
    shown: dict[str, Any] = {"topic": facts.run.topic, "state": facts.consent, "because": objection}
    if facts.consent_event is not None:  # kept with the message: the state may be another when somebody asks why
        shown |= {"since": facts.consent_effective_at, "evidence": facts.consent_event}
    if facts.consent_basis is not None:
        shown |= {"basis": facts.consent_basis, "expires_at": facts.consent_expires_at}
    return Skip(Reason.NO_CONSENT, shown)


def _consent_objection(facts: Facts, now: datetime) -> str | None:
    if facts.consent != "granted":
        return {"none": "never granted", "pending": "not confirmed yet", "withdrawn": "withdrawn"}[facts.consent]
    if not facts.consent_for_this_address:
        return "granted for a former address"
    if facts.consent_expires_at is not None and facts.consent_expires_at <= now:
        return "no longer in force"
    if facts.run.double_opt_in and not facts.consent_confirmed:
        return "the topic needs a confirmed opt-in"
    if facts.consent_basis not in (None, "consent", *facts.run.bases):
        return "the topic does not accept this basis"
    return None


def not_paused(facts: Facts, now: datetime) -> Verdict:
    if facts.paused_until is None or facts.paused_until <= now or not facts.run.marketing:
        return SEND
    return Skip(Reason.PAUSED, {"paused_until": facts.paused_until})


# --- is it still for them


def in_segment(facts: Facts, now: datetime) -> Verdict:
    return SEND if facts.in_segment else Skip(Reason.NOT_IN_SEGMENT)


def flow_goes_on(facts: Facts, now: datetime) -> Verdict:
    if facts.flow is None or not facts.flow_exited:
        return SEND
    flow = facts.flow
    return Skip(Reason.FLOW_EXIT, {"event": flow.ended_by, "at": flow.ended_at, "same": flow.matched_by})


def source_is_fresh(facts: Facts, now: datetime) -> Verdict:
    """Rather hold a reminder than send it to somebody whose order we have not heard of; in the end, never."""
    if facts.flow is None or not facts.source_stale:
        return SEND
    shown = {"source": facts.flow.source, "heard_at": facts.flow.heard_at}
    until = now + ASK_AGAIN[Reason.SOURCE_STALE]
    return Skip(Reason.SOURCE_STALE, shown) if until >= facts.expires_at else Defer(until, Reason.SOURCE_STALE, shown)


def not_held_out(facts: Facts, now: datetime) -> Verdict:
    return Skip(Reason.HOLDOUT) if facts.held_out else SEND


def first_at_its_address(facts: Facts, now: datetime) -> Verdict:
    return SEND if facts.duplicate_of is None else Skip(Reason.DUPLICATE_ADDRESS, {"goes_to": facts.duplicate_of})


def in_time(facts: Facts, now: datetime) -> Verdict:
    return Skip(Reason.LATE) if facts.too_late else SEND


# --- is it the time for it


def place_known(facts: Facts, now: datetime) -> Verdict:
    """An hour that suits no place, and holidays that we cannot know, are as good as no place."""
    if not facts.run.heeds_quiet_hours or (because := _place_objection(facts, now)) is None:
        return SEND
    shown = {
        "because": because,
        "zones": facts.places.zones,
        "known_from": facts.places.known_from,
        "tzdata": TZDATA_VERSION,
    }
    return Defer(now + ASK_AGAIN[Reason.PLACE_UNKNOWN], Reason.PLACE_UNKNOWN, shown)


def _place_objection(facts: Facts, now: datetime) -> str | None:
    if not facts.places.candidates:
        return "nothing says where they are"
    if not facts.silences:
        return None
    if missing := unknown_calendars(facts.silences):
        return f"there is no calendar of holidays for {', '.join(missing)}"
    if next_opening(facts, now) is None and not only_they_object(facts, now):
        return "no hour within nine days suits every place they may be in"
    return None


def outside_quiet_hours(facts: Facts, now: datetime) -> Verdict:
    if not facts.silences_to_keep:
        return SEND
    opening = next_opening(facts, now)
    if opening is None and not only_they_object(facts, now):  # `place_known` has objected
        return SEND
    if opening is not None and opening.opens_at == now:
        return SEND
    shown: dict[str, Any] = {
        "zones": facts.places.zones,
        "known_from": facts.places.known_from,
        "windows": tuple(dict.fromkeys(local.source for local in facts.silences)),
        "in_effect": in_effect(now, facts.silences, facts.run.guard),
        "tzdata": TZDATA_VERSION,
    }
    if opening is None:
        return Defer(now + HORIZON, Reason.QUIET_HOURS, shown)
    shown |= {"opens_at": opening.opens_at, "closes_at": opening.closes_at}
    return Defer(moment_in(opening, facts), Reason.QUIET_HOURS, shown)


# --- is there room for one more


def not_outranked(facts: Facts, now: datetime) -> Verdict:
    if not facts.rivals or not facts.run.marketing:
        return SEND
    for cap in facts.caps:
        free = room_under(cap, facts, now).free
        rivals = rivals_for(cap, facts, now)
        if 0 < free <= len(rivals):
            winner = rivals[free - 1]
            shown = {"cap": cap.name, "winner": winner.message_id, "campaign": winner.campaign, "run": winner.run}
            return Defer(_gives_way_until(winner.expires_at, facts, now), Reason.OUTRANKED, shown)
    return SEND


def _gives_way_until(winner_expires_at: datetime, facts: Facts, now: datetime) -> datetime:
    """Return when to ask again, if the winner has not moved until then: when it expires.

    One that outlives this message may still be skipped or stopped in time, so then it is asked a last time before the
    end, a guard early.
    """
    last_call = facts.expires_at - facts.run.guard
    return last_call if now < last_call < facts.expires_at <= winner_expires_at else winner_expires_at


def under_caps(facts: Facts, now: datetime) -> Verdict:
    if not facts.counted or not facts.run.marketing:
        return SEND
    full = [room for cap in facts.caps if (room := room_under(cap, facts, now)).frees_at is not None]
    if not full:
        return SEND
    last = max(full, key=lambda room: room.frees_at or now)
    shown = {"cap": last.cap.name, "counted": last.counted, "frees_at": last.frees_at}
    if facts.run.on_cap == "defer" and last.frees_at is not None:
        return Defer(welcome_from(last.frees_at, facts), Reason.CAPPED, shown)
    return Skip(Reason.CAPPED, shown)


# --- all of them


Gate = Callable[[Facts, datetime], Verdict]

#: Every gate by the reason it gives, in the order they are asked.
GATES: dict[Reason, Gate] = {
    Reason.OPERATOR: not_stopped,
    Reason.EXPIRED: not_expired,
    Reason.NO_ADDRESS: has_address,
    Reason.BAD_ADDRESS: address_works,
    Reason.SUPPRESSED: not_suppressed,
    Reason.NO_CONSENT: has_consent,
    Reason.PAUSED: not_paused,
    Reason.NOT_IN_SEGMENT: in_segment,
    Reason.FLOW_EXIT: flow_goes_on,
    Reason.SOURCE_STALE: source_is_fresh,
    Reason.HOLDOUT: not_held_out,
    Reason.DUPLICATE_ADDRESS: first_at_its_address,
    Reason.LATE: in_time,
    Reason.PLACE_UNKNOWN: place_known,
    Reason.QUIET_HOURS: outside_quiet_hours,
    Reason.OUTRANKED: not_outranked,
    Reason.CAPPED: under_caps,
}
_IN_ORDER = tuple(GATES.values())


def decide(facts: Facts, now: datetime) -> Verdict:
    """Return the first objection, or Send if no gate objects.  A deferral past the expiry is a skip."""
    for gate in _IN_ORDER:
        verdict = gate(facts, now)
        if verdict is not SEND:
            return within_expiry(verdict, facts)
    return SEND


def within_expiry(verdict: Verdict, facts: Facts) -> Verdict:
    """Return the verdict, or a skip if it would put the message off past its expiry."""
    if isinstance(verdict, Defer) and verdict.until >= facts.expires_at:
        shown = {"blocked_by": verdict.reason, "until": verdict.until, "expires_at": facts.expires_at}
        return Skip(Reason.EXPIRED, verdict.facts | shown)
    return verdict
