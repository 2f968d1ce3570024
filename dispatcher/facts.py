"""What a decision may look at.  Values only: no session, no clock, no settings.  `facts_page` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.definitions import Cap
from dispatcher.places import NOWHERE, Places
from dispatcher.quiet_hours import LocalSilence


@dataclass(frozen=True, slots=True)
class Counted:
    """A marketing message that left, or may have left: what caps count."""

    at: datetime  #: authorised
    channel: str
    topic: str | None
    to_contact: bool
    to_address: bool


#: Who goes first, the lower one: (minus priority, first due, campaign, occurrence key).  No two runs are alike.
Rank = tuple[int, datetime, str, str]


@dataclass(frozen=True, slots=True)
class Rival:
    """A pending marketing message of another run, which runs, to the same contact."""

    message_id: str
    run: str
    campaign: str
    occurrence_key: str
    channel: str
    topic: str | None
    priority: int
    first_due_at: datetime
    due_at: datetime
    expires_at: datetime

    @property
    def rank(self) -> Rank:
        return -self.priority, self.first_due_at, self.campaign, self.occurrence_key


@dataclass(frozen=True, slots=True)
class Flow:
    """What became of a trigger's flow since the newest event of its key, and how fresh the news are."""

    began_at: datetime | None  #: when that event happened
    ended_by: str | None = None  #: the name of an event that ends it
    ended_at: datetime | None = None
    matched_by: str | None = None  #: key, contact or address
    source: str | None = None
    heard_at: datetime | None = None  #: when the newest event of that source arrived
    may_be_silent_for: timedelta | None = None  #: None: the flow waits for nothing
    stale: bool = False


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What holds for every message of a run."""

    state: str  #: of the run
    stopped: bool  #: by `stop-all`
    channel: str
    topic: str | None
    class_: str
    urgent: bool = False
    is_answer: bool = False  #: to what the person has just texted: STOP does not stop it
    double_opt_in: bool = False
    bases: tuple[str, ...] = ()  #: what the topic accepts beside consent
    guard: timedelta = timedelta(minutes=5)
    caps: tuple[Cap, ...] = ()  #: those that speak of this channel and topic
    on_cap: str = "skip"

    @property
    def marketing(self) -> bool:
        return self.class_ == "marketing"

    @property
    def heeds_quiet_hours(self) -> bool:
        return self.marketing or (self.class_ == "transactional" and self.channel == "sms" and not self.urgent)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the gates may know of one message."""

    run: RunFacts
    contact_id: int
    expires_at: datetime
    address_id: int | None = None
    address_ok: bool = True
    suppressions: tuple[tuple[str, str], ...] = ()  #: (reason, scope)
    consent: str = "none"  #: none, pending, granted, withdrawn
    consent_for_this_address: bool = True
    consent_confirmed: bool = False
    consent_effective_at: datetime | None = None
    consent_expires_at: datetime | None = None
    consent_event: int | None = None
    consent_basis: str | None = None  #: of a grant: consent, soft_opt_in, implied_purchase, implied_inquiry
    paused_until: datetime | None = None
    in_segment: bool = True
    flow: Flow | None = None  #: None: not of a trigger
    held_out: bool = False
    duplicate_of: str | None = None  #: who gets this run's message at the same address, or got it
    too_late: bool = False  #: its local time had passed when the run was planned, and the campaign says skip
    places: Places = NOWHERE
    silences: tuple[LocalSilence, ...] = ()  #: all that must be kept, by the clocks of every place
    law_caps: tuple[Cap, ...] = ()  #: those of the places, beside the shop's
    spread: float = 0.0  #: 0..1, the same for a message whenever it is asked: keeps an opening from being a stampede
    counted: tuple[Counted, ...] = ()
    rivals: tuple[Rival, ...] = ()  #: best first, those that go after this message among them
    rank: Rank | None = None  #: this message's own; None: every rival goes first

    @property
    def silences_to_keep(self) -> tuple[LocalSilence, ...]:
        return self.silences if self.run.heeds_quiet_hours else ()

    @property
    def flow_exited(self) -> bool:
        return self.flow is not None and self.flow.ended_by is not None

    @property
    def source_stale(self) -> bool:
        return self.flow is not None and self.flow.stale

    @property
    def caps(self) -> tuple[Cap, ...]:
        """All caps that bind this message: the shop's, and those of the places."""
        return (*self.run.caps, *self.law_caps) if self.law_caps else self.run.caps
