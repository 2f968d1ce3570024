"""What every provider does: take a slice of authorised messages, answer for each what became of it.

Outcomes we expect are values.  A provider never repeats a send by itself, and hands nothing over past the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol
from uuid import UUID

from dispatcher.content import Content

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


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has it."""

    ref: str | None
    handed_over: float  #: boot time of the first byte


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider refused it for good; `suppress` says why the address must not be used again, if so."""

    detail: str
    handed_over: float
    suppress: Literal["hard_bounce", "invalid", "stop"] | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """Proof that nothing was accepted: it may be tried again after `wait`."""

    detail: str
    wait: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Unknown:
    """Bytes were written and no clear answer came: it may have been accepted."""

    detail: str
    handed_over: float


Receipt = Accepted | Rejected | NotSent | Unknown


class Provider(Protocol):
    name: str
    slice_size: int  #: how many messages one authorisation and one call should carry

    def hand_over(self, slice_: Sequence[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        """Hand over each message, in order, and return as many receipts in the same order.

        Right before the first byte of each, `boot_seconds() < deadline` must hold; past it the receipt is NotSent.
        """
        ...
