"""What all the evidence of one contact, channel and topic adds up to, in whatever order it arrived."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, NamedTuple

CONFIRMED = "confirmed_opt_in"


class Evidence(NamedTuple):
    """What of a consent event decides the state."""

    id: int
    action: str
    actor: str
    occurred_at: datetime
    received_at: datetime
    address_id: int | None = None
    opt_in_level: str | None = None
    source: str = ""


class State(NamedTuple):
    state: Literal["pending", "granted", "withdrawn"]
    effective_at: datetime
    confirmed: bool
    address_id: int | None
    event_id: int


def state_after(evidence: Iterable[Evidence], address_id: int | None) -> State | None:
    """Return the state that all evidence of one contact, channel and topic adds up to; None: never asked.

    * Each piece counts from the earlier of when it occurred and when we received it; an act of the person reported as
      it happens counts from its arrival, after everything before it, even if our clock was set back since.
    * After a withdrawal only a later act of the person grants.  A tie goes to the withdrawal.
    * A request waits only where nothing was granted or withdrawn.
    * Grants and requests speak of one address, the present one; a withdrawal speaks of the person.
    """
    timed = _timed(evidence)
    withdrawals = [(at, piece) for at, piece in timed if piece.action == "withdrawn"]
    here = [(at, piece) for at, piece in timed if piece.address_id == address_id]
    grants = [(at, piece) for at, piece in here if piece.action == "granted"]
    if withdrawals:
        withdrawn_at, withdrawal = max(withdrawals, key=_when)
        grants = [(at, piece) for at, piece in grants if piece.actor == "person" and at > withdrawn_at]
        if not grants:
            return State("withdrawn", withdrawn_at, False, withdrawal.address_id, withdrawal.id)
    if grants:
        at, latest = max(grants, key=_when)
        confirmed = any(piece.opt_in_level == CONFIRMED for _, piece in grants)
        return State("granted", at, confirmed, latest.address_id, latest.id)
    requests = [(at, piece) for at, piece in here if piece.action == "requested"]
    if requests:
        at, latest = max(requests, key=_when)
        return State("pending", at, False, latest.address_id, latest.id)
    return None


def _timed(evidence: Iterable[Evidence]) -> list[tuple[datetime, Evidence]]:
    timed: list[tuple[datetime, Evidence]] = []
    latest = None
    for piece in sorted(evidence, key=lambda piece: piece.id):
        at = min(piece.occurred_at, piece.received_at)
        if latest is not None and piece.actor == "person" and piece.occurred_at >= piece.received_at:
            at = max(at, latest)
        latest = at if latest is None else max(at, latest)
        timed.append((at, piece))
    return timed


def _when(timed: tuple[datetime, Evidence]) -> tuple[datetime, int]:
    return timed[0], timed[1].id
