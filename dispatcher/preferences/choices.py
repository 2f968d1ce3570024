"""What somebody chooses to hear about, and what becomes of it.

Leaving goes by the barrier of the unsubscribe link, topic by topic.  Joining is a new consent with its evidence: what
the page said, in which language, and from where.  The link proves one address, so a topic on another channel, one that
needs a double opt-in, and an address that its reader had closed are asked about with a message first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine

from dispatcher import audit, consent, granting, opt_in, unsubscribe
from dispatcher.contacts import Holding
from dispatcher.definitions import Shop
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.preferences import ACTOR
from dispatcher.preferences.standing import Choice, Standing, stand
from dispatcher.preferences.whose import Person, Way, find, hold
from dispatcher.shop import load_shop
from dispatcher.tokens import WayOut

Pair = tuple[str, str]  #: channel, topic

#: The name of the words on the page in the evidence; their hash and text are kept with it.
WORDING = "preference-centre"


@dataclass(slots=True)
class Chosen:
    """What became of a choice."""

    left: list[Pair] = field(default_factory=list)
    withdrawals: list[unsubscribe.Withdrawal] = field(default_factory=list)  #: committed, and not yet answered
    joined: list[Pair] = field(default_factory=list)  #: granted with the click
    asked: list[Pair] = field(default_factory=list)  #: a message asks whether it was them
    asked_lately: list[Pair] = field(default_factory=list)  #: one asked within the last day already
    refused: list[Pair] = field(default_factory=list)  #: cannot be chosen here (any more)


def ticked(standing: Standing) -> set[Pair]:
    """Return what the page shows with a tick: what is sent, and what waits for its confirmation."""
    return {(c.name, one.topic) for c in standing.channels for one in c.choices if one.on or one.waiting}


def wording(language: str, text: str) -> dict[str, str]:
    """Return what the evidence keeps of the words that were agreed to."""
    return {"id": WORDING, "hash": hashlib.sha256(text.encode()).hexdigest(), "language": language, "text": text}


def choose(
    database: Engine, key_ring: KeyRing, way: Way, *, shown: Collection[Pair], wanted: Collection[Pair],
    words: Mapping[Pair, Mapping[str, str]], sealed: Mapping[str, str],
) -> Chosen:  # fmt: skip
    """Leave and join what differs between what the page showed with a tick and what came back; BadToken as `whose`.

    A page that lay open while its reader unsubscribed elsewhere so changes nothing that was not touched on it.
    """
    with database.connect() as connection:
        person = find(connection, key_ring, way)
        known = _all_topics(connection, person)
    chosen = Chosen(refused=sorted(set(wanted) - set(shown) - known))
    _leave(database, key_ring, person, (set(shown) - set(wanted)) & known, sealed, chosen)
    for pair in sorted((set(wanted) - set(shown)) & known):
        with database.begin() as connection:
            _join(connection, key_ring, way, pair, words, sealed, chosen)
    return chosen


def leave_everything(database: Engine, key_ring: KeyRing, way: Way, sealed: Mapping[str, str]) -> Chosen:
    """Withdraw every topic there is, on every channel they have: also what they were never asked about."""
    chosen = Chosen()
    with database.connect() as connection:
        person = find(connection, key_ring, way)
        everything = _all_topics(connection, person)
    _leave(database, key_ring, person, everything, sealed, chosen)
    return chosen


def _all_topics(connection: Connection, person: Person) -> set[Pair]:
    """Return what the shop offers, and what the person has ever spoken of, on the channels they have."""
    held = {(one.channel, one.topic) for one in consent.state_of(connection, person.contact_id)}
    topics = load_shop(connection).topics
    offered = {(channel, topic) for topic, rules in topics.items() for channel in rules.channels}
    return {(channel, topic) for channel, topic in held | offered if channel in person.addresses}


def _leave(
    database: Engine, key_ring: KeyRing, person: Person, pairs: Iterable[Pair], sealed: Mapping[str, str],
    chosen: Chosen,
) -> None:  # fmt: skip
    """Withdraw each of these topics; the barrier's answers are the caller's to wait for."""
    for channel, topic in sorted(pairs):
        way_out = WayOut(person.contact_id, channel, topic, person.addresses[channel])
        withdrawal = unsubscribe.begin(database, key_ring, way_out, source=ACTOR, sealed=sealed, audited_by=ACTOR)
        chosen.withdrawals.append(withdrawal)
        chosen.left.append((channel, topic))


def _join(
    connection: Connection, key_ring: KeyRing, way: Way, pair: Pair, words: Mapping[Pair, Mapping[str, str]],
    sealed: Mapping[str, str], chosen: Chosen,
) -> None:  # fmt: skip
    person = hold(connection, key_ring, way)
    shop = load_shop(connection)
    choice = _choice(stand(connection, shop, person, way), pair)
    if choice is None or choice.how == "not here" or pair not in words:
        chosen.refused.append(pair)
        return
    if choice.on:
        return
    channel, topic = pair
    held = Holding(person.contact_id, person.external_id, channel, person.addresses[channel], person.now)
    about = {"channel": channel, "topic": topic, "how": choice.how}
    audit.record(connection, ACTOR, "preferences.join", f"contact {person.contact_id}", about)
    if choice.how == "at once":
        granting.grant(
            connection, key_ring, shop, held, topic, actor="person", source=ACTOR, wording=words[pair], sealed=sealed
        )
        chosen.joined.append(pair)
    else:
        chosen_list = _ask(connection, key_ring, shop, held, topic, words[pair], sealed, chosen)
        chosen_list.append(pair)


def _ask(
    connection: Connection, key_ring: KeyRing, shop: Shop, held: Holding, topic: str, words: Mapping[str, str],
    sealed: Mapping[str, str], chosen: Chosen,
) -> list[Pair]:  # fmt: skip
    """Request the topic and return the list that says what became of it."""
    try:
        asked = opt_in.request(
            connection, key_ring, shop, held, topic, actor="person", source=ACTOR, wording=words, sealed=sealed
        )
    except Refused:
        return chosen.refused
    if asked.message_id is not None:
        return chosen.asked
    return chosen.joined if asked.state == "granted" else chosen.asked_lately


def _choice(standing: Standing, pair: Pair) -> Choice | None:
    return next(
        (one for channel in standing.channels for one in channel.choices if (channel.name, one.topic) == pair), None
    )
