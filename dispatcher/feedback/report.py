"""A report in our words, and how far it takes a message.  Values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

from dispatcher.gates import Reason
from dispatcher.suppression import Reason as SuppressionReason


class Kind(StrEnum):
    ACCEPTED = "accepted"  #: the provider has it
    DELAYED = "delayed"  #: the provider goes on trying
    DELIVERED = "delivered"  #: the other side took it
    DROPPED = "dropped"  #: the provider let it fall: the other side never saw it
    BOUNCED = "bounced"  #: the other side returned it
    OPENED = "opened"
    CLICKED = "clicked"
    COMPLAINED = "complained"  #: the reader called it spam
    UNSUBSCRIBED = "unsubscribed"  #: the reader said no to the provider


class Standing(IntEnum):
    """How far a message has come by all that was reported.  It only rises, so no order of reports matters."""

    UNREPORTED = 0
    ACCEPTED = 1
    DELIVERED = 2
    DROPPED = 3
    BOUNCED = 4


_STANDS = {
    Kind.DELIVERED: Standing.DELIVERED,
    Kind.DROPPED: Standing.DROPPED,
    Kind.BOUNCED: Standing.BOUNCED,
}

#: What a standing is in the ledger.  Dropped counts as bounced: the provider had accepted it, so its slot stays taken.
STATUS: dict[Standing, tuple[str, str | None]] = {
    Standing.ACCEPTED: ("sent", None),
    Standing.DELIVERED: ("delivered", None),
    Standing.DROPPED: ("bounced", Reason.PROVIDER_DROPPED.value),
    Standing.BOUNCED: ("bounced", None),
}


def standing_by(kinds: Iterable[Kind]) -> Standing:
    """Return what these reports prove together.  Whatever is reported of a message proves that it was accepted."""
    return max((_STANDS.get(kind, Standing.ACCEPTED) for kind in kinds), default=Standing.UNREPORTED)


def standing_of(status: str, reason: str | None) -> Standing:
    """Return where a row of the ledger stands."""
    return next((standing for standing, row in STATUS.items() if row == (status, reason)), Standing.UNREPORTED)


@dataclass(frozen=True, slots=True)
class Report:
    """One event, as one of our normalisers understood it."""

    source: str  #: sendgrid, twilio, mail ...
    channel: str
    identity: str  #: equal for the same event told twice, whatever id the teller gives it; hashed before it is stored
    raw: Mapping[str, Any] | None = field(repr=False)  #: None: there is nothing in it that is not here
    kind: Kind | None = None  #: None: nothing that concerns a message
    event_id: str | None = None  #: the teller's own id of the event
    occurred_at: datetime | None = None  #: None: the arrival counts
    message_id: UUID | None = None  #: our id, if they sent it back
    provider_ref: str | None = None  #: their id of the message, else
    address: str | None = field(default=None, repr=False)  #: in normal form
    code: str | None = None
    hard: bool | None = None  #: of a bounce: the address cannot work
    suppress: SuppressionReason | None = None
    link: int | None = None  #: of a click on a link of ours: its number in the message
    bot: str | None = None  #: of such a click: why it was hardly a person's
    flaw: str | None = None  #: why nothing can be made of it
    #: An entry of a provider's own list, which stands there for years: what was said since counts more.
    listed: bool = False


def malformed(source: str, channel: str, identity: str, raw: Mapping[str, Any], why: str) -> Report:
    """Return a report that is kept and does nothing."""
    return Report(source, channel, identity, raw, flaw=f"malformed: {why}")
