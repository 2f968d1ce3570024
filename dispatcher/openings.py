"""When a message is welcome: the openings between the silences that it must keep.  Facts in, instants out."""

from __future__ import annotations

from datetime import datetime, timedelta

from dispatcher import own_hours, quiet_hours
from dispatcher.facts import Facts
from dispatcher.quiet_hours import Opening

_MOST_SPREAD = timedelta(minutes=30)


def next_opening(facts: Facts, now: datetime) -> Opening | None:
    """Return the first opening for this message; it begins at `now` if that is open.  None: none within nine days."""
    return quiet_hours.next_opening(now, facts.silences_to_keep, facts.run.guard)


def only_they_object(facts: Facts, now: datetime) -> bool:
    """Whether there would be an opening, but for the person's own quiet hours: that says nothing of the place."""
    others = tuple(local for local in facts.silences_to_keep if local.source != own_hours.SOURCE)
    return others != facts.silences_to_keep and quiet_hours.next_opening(now, others, facts.run.guard) is not None


def moment_in(opening: Opening, facts: Facts) -> datetime:
    """Return this message's own moment of an opening: not all who waited for it leave at once."""
    length = (opening.closes_at - opening.opens_at) if opening.closes_at else _MOST_SPREAD * 10
    moment = opening.opens_at + min(_MOST_SPREAD, length / 10, length - facts.run.guard) * facts.spread
    return moment if moment < facts.expires_at else opening.opens_at  # rather in the stampede than too late


def welcome_from(at: datetime, facts: Facts) -> datetime:
    """Return `at`, or if that is in quiet hours this message's moment of the next opening."""
    opening = next_opening(facts, at)
    return at if opening is None or opening.opens_at == at else moment_in(opening, facts)


def open_until(facts: Facts, now: datetime) -> datetime:
    """Return from when on the message is not welcome any more: its next silence or its expiry.

    What a provider that keeps messages is told (the `ValidityPeriod` of an SMS).
    """
    opening = next_opening(facts, now)
    closes_at = opening.closes_at if opening is not None else now
    return facts.expires_at if closes_at is None else min(closes_at, facts.expires_at)
