"""A grant that somebody tells us of, the shop or an operator: what they may claim, and what not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection

from dispatcher import consent
from dispatcher.consent import CONSENT, Basis, ConsentChange, Held
from dispatcher.contacts import Holding
from dispatcher.definitions import Shop
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing


def grant(
    connection: Connection,
    key_ring: KeyRing,
    shop: Shop,
    held: Holding,
    topic: str,
    *,
    actor: consent.Actor,
    source: str,
    basis: Basis = CONSENT,
    occurred_at: datetime | None = None,
    wording: Mapping[str, str] | None = None,
    sealed: Mapping[str, str] | None = None,
) -> Held:
    """Record the grant as evidence and return the state that all evidence adds up to: see `objection`.

    `occurred_at`: when they said so; for another basis than consent the purchase or inquiry, which must be told.
    Refused without an address, or for a basis that the topic does not accept.
    """
    if held.address_id is None:
        raise Refused(
            f"contact {held.external_id} has no address for {held.channel}, so there is nothing to consent to"
        )
    if basis != CONSENT:
        if basis not in shop.topics[topic].bases:
            raise Refused(f"topic {topic} does not accept {basis}; bases in dispatcher.toml names what it accepts")
        if occurred_at is None:
            raise Refused(f"{basis} needs the time of the purchase or inquiry: it expires so many months after that")
    change = ConsentChange(
        held.contact_id, held.channel, topic, "granted", actor, source, occurred_at or held.now, held.address_id,
        wording=wording, basis=basis, sealed=sealed,
    )  # fmt: skip
    consent.record(connection, key_ring, [change], now=held.now)
    [state] = [
        one
        for one in consent.state_of(connection, held.contact_id)
        if (one.channel, one.topic) == (held.channel, topic)
    ]
    return state


def objection(held: Holding, state: Held) -> str | None:
    """Return why the grant that was just recorded grants nothing; None if it does."""
    if state.state == "withdrawn":
        return (
            f"{held.external_id} has withdrawn {state.topic} on {held.channel}: "
            "only their own later act can grant it again"
        )
    if state.expires_at is not None and state.expires_at <= held.now:
        return f"{state.basis} has expired on {state.expires_at:%Y-%m-%d}: it was too long ago"
    return None
