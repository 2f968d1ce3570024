"""How somebody stands with us, as their page shows it: every topic of every channel they have, and their wishes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from sqlalchemy import Connection, text

from dispatcher import consent, opt_in, suppression
from dispatcher.consent import Held
from dispatcher.definitions import DEFAULT_CONFIRMATION, Shop, Topic
from dispatcher.facts import Facts, RunFacts
from dispatcher.gates import SEND, has_consent
from dispatcher.preferences.whose import Person, Way

#: How a tick takes effect: with the click, after a message that asks, or not here.
How = Literal["at once", "by message", "not here"]
#: Why nothing can be chosen on a channel: they texted STOP, or it cannot or must not be written to.
Closed = Literal["stop", "unreachable"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A topic on a channel."""

    topic: str
    titles: Topic
    on: bool  #: marketing about it is sent, as far as they are concerned
    waiting: bool  #: for the confirmation of a request
    how: How


@dataclass(frozen=True, slots=True)
class Channel:
    name: str
    address: str  #: in clear: mask it
    closed: Closed | None
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    person: Person
    channels: tuple[Channel, ...]


def stand(connection: Connection, shop: Shop, person: Person, way: Way) -> Standing:
    """Return how the person stands; only the channels they have an address on, e-mail first."""
    held = {(one.channel, one.topic): one for one in consent.state_of(connection, person.contact_id)}
    asked = opt_in.waiting(connection, person.contact_id, person.now)
    channels = tuple(
        _channel(connection, shop, person, way, name, held, asked)
        for name in ("email", "sms")
        if name in person.addresses
    )
    return Standing(person, channels)


def _channel(
    connection: Connection, shop: Shop, person: Person, way: Way, name: str, held: dict[tuple[str, str], Held],
    asked: set[tuple[str, str, int]],
) -> Channel:  # fmt: skip
    reasons = {one.reason for one in suppression.suppressions_of(connection, person.addresses[name])}
    closed = _closed(connection, person.addresses[name], reasons)
    by_reader = bool(reasons & {"unsubscribe", "complaint"})
    choices = []
    for topic, rules in shop.topics.items():
        if name not in rules.channels:
            continue
        state = held.get((name, topic))
        on = closed is None and not by_reader and state is not None and _in_force(rules, topic, name, state, person)
        waiting = closed is None and not on and (name, topic, person.addresses[name]) in asked
        asks = by_reader or rules.double_opt_in or name != way.channel
        how: How = "at once"
        if closed is not None or (asks and not _can_ask(connection, name, rules)):
            how = "not here"
        elif asks:
            how = "by message"
        choices.append(Choice(topic, rules, on, waiting, how))
    return Channel(name, person.address_on(name), closed, tuple(choices))


def _closed(connection: Connection, address_id: int, reasons: set[suppression.Reason]) -> Closed | None:
    if "stop" in reasons:
        return "stop"
    bad = connection.scalar(text("SELECT state = 'bad' FROM address WHERE id = :id"), {"id": address_id})
    return "unreachable" if bad or reasons - {"unsubscribe", "complaint"} else None


def _in_force(rules: Topic, topic: str, channel: str, state: Held, person: Person) -> bool:
    """Ask the very gate that lets messages out."""
    run = RunFacts(
        state="running", stopped=False, channel=channel, topic=topic, class_="marketing",
        double_opt_in=rules.double_opt_in, bases=rules.bases,
    )  # fmt: skip
    facts = Facts(
        run, person.contact_id, person.now + timedelta(days=1), consent=state.state,
        consent_for_this_address=state.for_present_address, consent_confirmed=state.confirmed,
        consent_expires_at=state.expires_at, consent_basis=state.basis,
    )  # fmt: skip
    return has_consent(facts, person.now) is SEND


def _can_ask(connection: Connection, channel: str, rules: Topic) -> bool:
    """Whether there is a message to ask with."""
    return bool(
        connection.scalar(
            text("SELECT EXISTS (SELECT FROM template WHERE current AND channel = :channel AND name = :name)"),
            {"channel": channel, "name": rules.confirmation or DEFAULT_CONFIRMATION},
        )
    )
