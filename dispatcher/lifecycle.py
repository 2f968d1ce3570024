"""What a message may become.  The database rejects every other move (a trigger made from this table)."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    PENDING = "pending"  #: to be sent at `due_at`; with `deferred_reason` if a gate put it off
    SENDING = "sending"  #: authorised; bytes may be on the wire
    SENT = "sent"  #: the provider accepted it
    DELIVERED = "delivered"  #: the provider reported it delivered
    BOUNCED = "bounced"  #: the provider reported it returned
    SKIPPED = "skipped"  #: a rule of ours said never
    FAILED = "failed"  #: it could not be sent
    CANCELLED = "cancelled"  #: a human stopped it
    UNKNOWN = "unknown"  #: handed over without an answer; never resent blindly


_EVIDENCE_OF_ACCEPTANCE = {Status.SENT, Status.DELIVERED, Status.BOUNCED}

MOVES: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.SENDING, Status.SKIPPED, Status.FAILED, Status.CANCELLED}),
    # back to pending only with proof that nothing was accepted
    Status.SENDING: frozenset({Status.PENDING, Status.FAILED, Status.UNKNOWN, *_EVIDENCE_OF_ACCEPTANCE}),
    Status.UNKNOWN: frozenset({Status.PENDING, Status.FAILED, *_EVIDENCE_OF_ACCEPTANCE}),
    Status.SENT: frozenset({Status.DELIVERED, Status.BOUNCED}),
    Status.DELIVERED: frozenset({Status.BOUNCED}),
    Status.BOUNCED: frozenset({Status.DELIVERED}),
    Status.FAILED: frozenset(_EVIDENCE_OF_ACCEPTANCE),  # evidence of acceptance beats our belief
    Status.SKIPPED: frozenset(),
    Status.CANCELLED: frozenset(),
}

#: The provider has it, or may have it: what caps count and what no second message may follow.
MAY_HAVE_LEFT = (Status.SENDING, Status.SENT, Status.DELIVERED, Status.BOUNCED, Status.UNKNOWN)
