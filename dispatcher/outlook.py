"""What comes of a verdict: a deferral is followed from one instant to the next, until the message leaves or never will.

The facts are those of the first decision, with the clock moved on: what caps counted grows old, what outranks has left
when it was due.  What people and shops will do meanwhile nobody knows; authorise asks again, on the facts of then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from dispatcher.facts import Counted, Facts
from dispatcher.gates import Defer, Reason, Send, Verdict, decide

#: More deferrals in a row than any rule can give within a week of expiry; where it stops, we do not know.
_MOST_STEPS = 64

#: Only a human, or better data, ends these.
_OPEN_ENDED = frozenset({Reason.OPERATOR, Reason.PLACE_UNKNOWN, Reason.SOURCE_STALE})


@dataclass(frozen=True, slots=True)
class Outlook:
    """Exactly one of the first three: it leaves, it never will in this run, or it waits for somebody to act."""

    leaves_at: datetime | None  #: the first instant at which no gate objects, UTC
    never: Reason | None
    waits_for: Reason | None
    steps: tuple[tuple[datetime, Verdict], ...]  #: every decision on the way, with its instant


def follow(facts: Facts, at: datetime, verdict: Verdict) -> Outlook:
    """Return what comes of `verdict`, given at `at` on `facts`."""
    steps = [(at, verdict)]
    while isinstance(verdict, Defer):
        if verdict.reason in _OPEN_ENDED or len(steps) >= _MOST_STEPS:
            return Outlook(None, None, verdict.reason, tuple(steps))
        if verdict.reason is Reason.OUTRANKED:
            facts, at = _winner_leaves(facts, at, verdict)
        else:
            at = verdict.until
        facts = _at_a_later_time(facts, at)
        verdict = decide(facts, at)
        steps.append((at, verdict))
    if isinstance(verdict, Send):
        return Outlook(at, None, None, tuple(steps))
    return Outlook(None, verdict.reason, None, tuple(steps))


def _at_a_later_time(facts: Facts, at: datetime) -> Facts:
    """Return the facts without the rivals that have expired by then."""
    if all(rival.expires_at > at for rival in facts.rivals):
        return facts
    return replace(facts, rivals=tuple(rival for rival in facts.rivals if rival.expires_at > at))


def _winner_leaves(facts: Facts, at: datetime, verdict: Defer) -> tuple[Facts, datetime]:
    """Return facts and instant of the next decision: right after the winner left, which wakes whoever waits for it."""
    winner = next((r for r in facts.rivals if r.message_id == verdict.facts.get("winner")), facts.rivals[0])
    at = max(at, winner.due_at)
    left = Counted(at, winner.channel, winner.topic, to_contact=True, to_address=True)
    rivals = tuple(rival for rival in facts.rivals if rival is not winner)
    return replace(facts, rivals=rivals, counted=(*facts.counted, left)), at
