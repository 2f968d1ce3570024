"""What all the evidence of one contact, channel and topic adds up to, in whatever order it arrived."""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from datetime import datetime
from typing import Literal, NamedTuple

CONFIRMED = "confirmed_opt_in"
Basis = Literal["consent", "soft_opt_in", "implied_purchase", "implied_inquiry"]
CONSENT: Basis = "consent"

#: For how many calendar months a grant that is not consent is good, from the purchase or the inquiry.  The implied ones
#: are CASL's (s. 10(10)); ePrivacy art. 13(2) and PECR reg. 22(3) set no term for a soft opt-in, so that one is ours.
MONTHS_IN_FORCE: dict[str, int] = {"implied_purchase": 24, "implied_inquiry": 6, "soft_opt_in": 24}


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
    basis: str | None = None  #: of a grant; None: consent


class State(NamedTuple):
    state: Literal["pending", "granted", "withdrawn"]
    effective_at: datetime
    confirmed: bool
    address_id: int | None
    event_id: int
    basis: str | None = None  #: of a grant
    expires_at: datetime | None = None  #: of a grant that is not consent; from this instant on it is not in force


Timed = tuple[datetime, Evidence]


def state_after(evidence: Iterable[Evidence], address_id: int | None) -> State | None:
    """Return the state that all evidence of one contact, channel and topic adds up to; None: never asked.

    * Each piece counts from the earlier of when it occurred and when we received it; an act of the person reported as
      it happens counts from its arrival, after everything before it, even if our clock was set back since.
    * After a withdrawal only a later act of the person grants.  A tie goes to the withdrawal.
    * A request waits only where nothing was granted or withdrawn.
    * Grants and requests speak of one address, the present one; a withdrawal speaks of the person.
    * A purchase or an inquiry (any basis but consent) grants only where there is neither consent nor a withdrawal, and
      until it expires; of several, the one that lasts longest.
    """
    timed = _timed(evidence)
    withdrawals = [(at, piece) for at, piece in timed if piece.action == "withdrawn"]
    here = [(at, piece) for at, piece in timed if piece.address_id == address_id]
    grants = [(at, piece) for at, piece in here if piece.action == "granted" and _is_consent(piece)]
    if withdrawals:
        withdrawn_at, withdrawal = max(withdrawals, key=_when)
        grants = [(at, piece) for at, piece in grants if piece.actor == "person" and at > withdrawn_at]
        if not grants:
            return State("withdrawn", withdrawn_at, False, withdrawal.address_id, withdrawal.id)
    if grants:
        at, latest = max(grants, key=_when)
        confirmed = any(piece.opt_in_level == CONFIRMED for _, piece in grants)
        return State("granted", at, confirmed, latest.address_id, latest.id, CONSENT)
    return _implied(here) or _waiting(here)


def _implied(here: list[Timed]) -> State | None:
    implied = [(expiry_of(str(piece.basis), at), piece.basis, at, piece) for at, piece in here
               if piece.action == "granted" and not _is_consent(piece)]  # fmt: skip
    if not implied:
        return None
    expires_at, basis, at, latest = max(implied, key=lambda each: (*each[:3], each[3].id))
    return State("granted", at, False, latest.address_id, latest.id, basis, expires_at)


def _waiting(here: list[Timed]) -> State | None:
    requests = [(at, piece) for at, piece in here if piece.action == "requested"]
    if not requests:
        return None
    at, latest = max(requests, key=_when)
    return State("pending", at, False, latest.address_id, latest.id)


def can_be_confirmed(evidence: Iterable[Evidence], request_id: int) -> bool:
    """Return whether this request still waits for its answer: no withdrawal is as late as it is, or later.

    A confirmation is an act of the person, but one that was offered before they withdrew must not undo that.
    """
    timed = _timed(evidence)
    asked_at = next((at for at, piece in timed if piece.id == request_id and piece.action == "requested"), None)
    return asked_at is not None and all(at < asked_at for at, piece in timed if piece.action == "withdrawn")


def expiry_of(basis: str, since: datetime) -> datetime:
    """Return when a grant on this basis ends: calendar months after `since`, UTC; 31 August and six: 28 February."""
    months = since.year * 12 + since.month - 1 + MONTHS_IN_FORCE[basis]
    year, month = divmod(months, 12)
    return since.replace(year=year, month=month + 1, day=min(since.day, calendar.monthrange(year, month + 1)[1]))


def _is_consent(piece: Evidence) -> bool:
    return piece.basis in (None, CONSENT)


def _timed(evidence: Iterable[Evidence]) -> list[Timed]:
    timed: list[Timed] = []
    latest = None
    for piece in sorted(evidence, key=lambda piece: piece.id):
        at = min(piece.occurred_at, piece.received_at)
        if latest is not None and piece.actor == "person" and piece.occurred_at >= piece.received_at:
            at = max(at, latest)
        latest = at if latest is None else max(at, latest)
        timed.append((at, piece))
    return timed


def _when(timed: Timed) -> tuple[datetime, int]:
    return timed[0], timed[1].id
