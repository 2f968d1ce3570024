"""What every provider does: take a slice of authorised messages, answer for each what became of it.

Outcomes we expect are values.  A provider repeats nothing whose refusal is not proved, and hands nothing over past the
deadline.  What counts as accepted, refused and unknown is decided in the providers, and nowhere else:

* accepted: the answer says so (2xx, 250 after the final dot);
* proof that it was not: nothing was written, or a complete refusal (4xx, an SMTP reply before the final dot);
* anything else after bytes were written is unknown, and nobody guesses.

`docs/howto/adding-a-provider.md` tells how to write one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol, runtime_checkable
from uuid import UUID

from dispatcher import suppression
from dispatcher.content import Content, one_line
from dispatcher.errors import DispatcherError

# CLOCK_BOOTTIME goes on while the machine sleeps; where it is not known, monotonic time is the closest.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_seconds() -> float:
    """Return seconds since boot: never set back or forward by anybody."""
    return time.clock_gettime(_CLOCK)


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant of the engine's clock pinned to this machine's boot-time clock."""

    at: datetime
    boot: float

    def instant(self, boot: float) -> datetime:
        """Return the engine's time when the boot-time clock showed `boot`."""
        return self.at + timedelta(seconds=boot - self.boot)


@dataclass(frozen=True, slots=True)
class Envelope:
    """One authorised message, rendered and addressed."""

    message_id: UUID
    run_id: UUID | None  #: None: a test message, which belongs to no run
    contact: str  #: external id
    to: str
    content: Content
    headers: tuple[tuple[str, str], ...]
    from_name: str = ""
    from_email: str = ""
    campaign: str = ""  #: the campaign's name, or the template's; never anything personal
    marketing: bool = False
    #: From when on it is not welcome any more: the next silence where the contact may be, or its expiry, whichever
    #: comes first.  A provider that keeps messages must let go of it by then.  None: nobody knows (a test message).
    closes_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a provider says with an answer that it takes, until its next window begins."""

    calls: int  #: so many more requests
    window: timedelta  #: within this time


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has it."""

    ref: str | None  #: its own name for it, by which feedback and look-ups find it
    handed_over: float  #: boot time of the first byte
    units: int = 1  #: what it counts as for the provider's rate and price: the parts of an SMS
    allowance: Allowance | None = None  #: what it says of its own limits


#: What a refusal is about: this message, the address, the template (nobody will get it), or our account (everybody's).
Scope = Literal["message", "address", "template", "account"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider refused it for good; `suppress` says why the address must not be used again, if so.

    What it says of our account is not the message's fault: it waits until somebody has put the account in order.
    """

    detail: str  #: nothing personal: a code, a field, the provider's words without addresses
    handed_over: float | None = None  #: None: refused before a byte was written
    suppress: Literal["hard_bounce", "invalid", "stop"] | None = None
    scope: Scope = "message"


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Proof that nothing was accepted, and the provider's word that it has enough for `wait`.

    The whole lane rests; for more than a minute it is the account that does, and a second provider may come in.
    """

    detail: str
    wait: timedelta


@dataclass(frozen=True, slots=True)
class NotSent:
    """Proof that nothing was accepted: it may be tried again after `wait`."""

    detail: str
    wait: timedelta = timedelta(0)
    unreachable: bool = False  #: the provider was not there: what opens the circuit of its account
    answered: bool = False  #: it was there, and said "not now" of this message


@dataclass(frozen=True, slots=True)
class Unknown:
    """Bytes were written and no clear answer came: it may have been accepted."""

    detail: str
    handed_over: float


Receipt = Accepted | Rejected | RetryAfter | NotSent | Unknown

PAST_DEADLINE = "past the send deadline"


@dataclass(frozen=True, slots=True)
class Trial:
    """What a provider says of our account when it is asked without anything to send."""

    ok: bool | None  #: None: it did not say
    detail: str  #: nothing secret
    to_do: str = ""
    ahead: timedelta | None = None  #: by how much the provider's clock is ahead of this machine's, to the second


class Provider(Protocol):
    name: str
    slice_size: int  #: how many messages one authorisation should carry: what one kill may leave in doubt

    def hand_over(self, slice_: Sequence[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        """Hand over each message, and return as many receipts in the same order.

        Right before the first byte of each, `boot_seconds() < deadline` must hold; past it the receipt is NotSent.
        How many calls that takes, and how many of them at once, is the provider's affair.  Called by several threads.
        """
        ...

    def try_account(self, seconds: float) -> list[Trial]:
        """Ask whether our account works, within about so many seconds; nothing is sent and nothing changed."""
        ...

    def close(self) -> None:
        """Let go of connections; nothing is handed over any more."""
        ...


@dataclass(frozen=True, slots=True)
class TheirList:
    """A suppression list that the provider keeps itself."""

    name: str
    reason: suppression.Reason  #: what it means for us that an address is on it
    #: What one puts on it stops there: everything, or marketing.  None: only the provider itself puts addresses on it.
    stops: suppression.Scope | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An address on such a list, as it is written there."""

    address: str = field(repr=False)
    at: datetime | None  #: since when
    words: str = ""  #: why, in the provider's words


class ListsUnavailable(DispatcherError):  # noqa: N818 - named for what it says, like the rest of its family
    """The provider's lists cannot be read or changed now; `wait` says when to ask again."""

    def __init__(self, detail: str, wait: timedelta) -> None:
        super().__init__(detail)
        self.wait = wait


@runtime_checkable
class MirrorsSuppressions(Protocol):
    """A provider whose own suppression lists can be read and changed.  Every call is safe to repeat.

    Each may take as long as the provider lets us wait, and raises ListsUnavailable if that is too long.
    """

    name: str

    def suppression_lists(self) -> Sequence[TheirList]: ...

    def entries(self, list_: TheirList, until: datetime) -> Iterator[list[Entry]]:
        """Yield the list in pages, as it was at `until` or newer; an entry may come twice."""
        ...

    def since(self, list_: TheirList, address: str) -> datetime | None:
        """Return since when an address stands on the list; None: it does not, or the provider does not say."""
        ...

    def put_on(self, list_: TheirList, addresses: Sequence[str]) -> list[str]:
        """Put addresses (normal form) on the list; return those it does not take."""
        ...

    def take_off(self, list_: TheirList, address: str) -> None:
        """Take an address off the list; fine if it is not there."""
        ...


_ADDRESS_OR_NUMBER = re.compile(r"\S*@\S*|\+?\d[\d\s().-]{5,}\d")


def without_addresses(words: str) -> str:
    """Return a provider's words on one line, short, and without what may be an address or a phone number."""
    return one_line(_ADDRESS_OR_NUMBER.sub("...", words))[:200]
