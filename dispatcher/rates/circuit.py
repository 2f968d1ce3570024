"""The circuit of an account: whether its provider is worth asking at all.  Values only.

Closed: go on.  After a few hand-overs in a row that got nowhere it opens, and nothing is authorised for the account.
When the wait is over one message goes as a probe (half-open): if that gets through the circuit closes, else it opens
again for twice as long.  A refusal of our account opens it at once: asking again changes nothing.  So does a provider
that wants to be left alone for long; a short "not now" is the rate's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypeGuard

from dispatcher.providers.protocol import Accepted, NotSent, Receipt, Rejected, Unknown

#: So many hand-overs in a row, of whichever hands.
FAILURES = 3
FIRST_WAIT = timedelta(seconds=15)
#: A code lives ten minutes: one that comes while it is open must see a probe, and what that says, in its lifetime.
LONGEST_WAIT = timedelta(minutes=5)
#: Somebody has to put the account in order.
ACCOUNT_WAIT = timedelta(minutes=1)
#: Whoever asks for a longer rest than this is as good as gone for what waits; until here it is waited for, since no
#: sender becomes known by changing its provider for seconds.  SendGrid's own windows are not longer.
LONGEST_REST = timedelta(minutes=1)
#: A probe that has not come back after this never will: longer than any hand-over takes.
PROBE_WITHIN = timedelta(minutes=2)
#: Less than this is the time that somebody waited for the account's lock.
_CLOCK_SET_BACK = timedelta(minutes=1)
#: How soon to ask again while a probe is under way.
ASK_AGAIN = timedelta(seconds=5)

State = Literal["closed", "open", "half_open"]
#: What a hand-over says of the provider: it takes our messages, it cannot be reached or does not answer, it refuses our
#: account, it wants none for longer than anybody waits, or nothing.
Sign = Literal["alive", "failed", "refused", "enough", "none"]


@dataclass(frozen=True, slots=True)
class Circuit:
    state: State = "closed"
    failures: int = 0  #: in a row
    openings: int = 0  #: in a row: how often it has opened without closing
    open_until: datetime | None = None
    probe_until: datetime | None = None
    because: str | None = None

    @property
    def sound(self) -> bool:
        """Whether there is nothing to remember of it."""
        return self.state == "closed" and not self.failures


def sign_of(receipts: Sequence[Receipt]) -> tuple[Sign, str]:
    """Return what the receipts of one hand-over say of the account, and in which words."""
    for receipt in receipts:
        if isinstance(receipt, Rejected) and receipt.scope == "account":
            return "refused", receipt.detail
    if any(_shows_life(receipt) for receipt in receipts):
        return "alive", ""
    for receipt in receipts:
        if isinstance(receipt, Unknown) or (isinstance(receipt, NotSent) and receipt.unreachable):
            return "failed", receipt.detail
    return "none", ""


def _shows_life(receipt: Receipt) -> bool:
    """A message that was taken, or refused for what it is.  A "too much" is the rate's affair."""
    return isinstance(receipt, (Accepted, Rejected)) or (isinstance(receipt, NotSent) and receipt.answered)


def admits(circuit: Circuit, now: datetime) -> Literal["all", "probe"] | datetime:
    """Return what may go: everything, one message, or nothing before an instant."""
    if circuit.state == "closed":
        return "all"
    if circuit.state == "open":
        return circuit.open_until if is_ahead(circuit.open_until, now, LONGEST_WAIT) else "probe"
    if is_ahead(circuit.probe_until, now, PROBE_WITHIN):
        return min(circuit.probe_until, now + ASK_AGAIN)
    return "probe"


def is_ahead(until: datetime | None, now: datetime, longest: timedelta) -> TypeGuard[datetime]:
    """Whether it is still to come; much further ahead than it was ever set, the clock was set back since."""
    return until is not None and now < until <= now + longest + _CLOCK_SET_BACK


def probing(circuit: Circuit, now: datetime) -> Circuit:
    """Return the circuit with a probe under way."""
    return replace(circuit, state="half_open", probe_until=now + PROBE_WITHIN)


def after(
    circuit: Circuit, sign: Sign, because: str, now: datetime, *, probe: bool, rest: timedelta | None = None
) -> Circuit:
    """Return the circuit after a hand-over; `rest`: what the provider asked for.

    While it is not closed only a probe counts: the others began before it opened.
    """
    rest = min(rest or timedelta(0), LONGEST_WAIT)
    if circuit.state != "closed" and not probe:
        return circuit
    match sign:
        case "alive":
            return Circuit()
        case "refused":
            return _opened(circuit, because, now, at_least=ACCOUNT_WAIT)
        case "enough":
            return replace(circuit, state="open", open_until=now + rest, because=because)
        case "failed" if probe or circuit.failures + 1 >= FAILURES:
            return _opened(circuit, because, now)
        case "failed":
            return replace(circuit, failures=circuit.failures + 1, because=because)
    # A probe that was told to wait, or came too late, says nothing: the next one may go when the wait is over.
    return replace(circuit, state="open", open_until=now + rest, probe_until=None) if probe else circuit


def _opened(circuit: Circuit, because: str, now: datetime, *, at_least: timedelta = timedelta(0)) -> Circuit:
    wait = min(FIRST_WAIT * 2 ** min(circuit.openings, 10), LONGEST_WAIT)
    return Circuit(
        state="open",
        failures=circuit.failures + 1,
        openings=circuit.openings + 1,
        open_until=now + max(wait, at_least),
        because=because,
    )
