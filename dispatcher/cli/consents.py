"""consent show, grant, withdraw."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli import door

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dispatcher.definitions import Shop
    from dispatcher.keys import KeyRing

Channel = Annotated[str, typer.Option("--channel", metavar="CHANNEL", help="email or sms.")]
Source = Annotated[str, typer.Option("--source", metavar="TEXT", help="How you know, for the evidence.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="What people allowed, and how we know.", no_args_is_help=True)
    group.command("show")(show)
    group.command("grant")(grant)
    group.command("withdraw")(withdraw)
    app.add_typer(group, name="consent")


def show(contact: door.ContactArgument, as_json: door.AsJson = False) -> None:
    """Show a contact's consent by channel and topic; what is not listed was never asked.

    Example: dispatcher consent show 17850
    """
    from dispatcher import consent
    from dispatcher.contacts import find_contact

    with door.transaction() as (runtime, connection):
        held = consent.state_of(connection, find_contact(connection, runtime.key_ring, contact))
    if as_json:
        door.print_json([one._asdict() for one in held])
        return
    columns = ("channel", "topic", "state", "since", "expires", "source")
    rows = [(*one[:2], _state(one.state, one.for_present_address), *one[4:6], one.source) for one in held]
    door.print_table(columns, rows)


def _state(state: str, for_present_address: bool) -> str:
    return state if for_present_address else f"{state} (for a former address: void)"


def grant(
    contact: door.ContactArgument,
    topic: Annotated[str, typer.Option("--topic", metavar="TOPIC", help="A topic of the shop.")],
    channel: Channel = "email",
    source: Source = "told to an operator",
    at: Annotated[
        datetime | None, typer.Option(parser=door.instant, metavar="INSTANT", help="When they said so.")
    ] = None,
) -> None:
    """Record that a person allowed a topic, as an operator knows it.  After a withdrawal only the person can grant.

    Example: dispatcher consent grant 17850 --topic offers --source "paper form of 1 December"
    """
    from dispatcher import audit, consent
    from dispatcher.errors import Refused
    from dispatcher.shop import load_shop

    with door.transaction() as (runtime, connection):
        shop = load_shop(connection)
        _topics(shop, channel, topic)
        contact_id, address_id, now = _hold(connection, runtime.key_ring, contact, channel)
        if address_id is None:
            raise Refused(f"contact {contact} has no address for {channel}, so there is nothing to consent to")
        change = consent.ConsentChange(contact_id, channel, topic, "granted", "operator", source, at or now, address_id)
        consent.record(connection, runtime.key_ring, [change], now=now)
        held = {(one.channel, one.topic): one for one in consent.state_of(connection, contact_id)}
        if held[channel, topic].state != "granted":
            raise Refused(f"{contact} has withdrawn {topic} on {channel}: only their own later act can grant it again")
        audit.record(connection, door.actor(), "consent.grant", str(contact_id), {"channel": channel, "topic": topic})
    door.say(f"granted: {topic} on {channel}")
    if shop.topics[topic].double_opt_in and not held[channel, topic].confirmed:
        door.say(f"but {topic} needs a confirmed opt-in, so nothing is sent until they confirm it themselves")


def withdraw(
    contact: door.ContactArgument,
    topic: Annotated[
        str | None, typer.Option("--topic", metavar="TOPIC", help="Only this topic; else every topic of the channel.")
    ] = None,
    channel: Channel = "email",
    source: Source = "told to an operator",
) -> None:
    """Record that a person withdraws consent: from then on nothing that needs it leaves, and waits for what is leaving.

    Example: dispatcher consent withdraw 17850 --source "phone call"
    """
    from dispatcher import audit, consent, unsubscribe
    from dispatcher.shop import load_shop
    from dispatcher.tokens import WayOut

    with door.open_engine() as runtime:
        with runtime.database.begin() as connection:
            topics = _topics(load_shop(connection), channel, topic)
            contact_id, address_id, now = _hold(connection, runtime.key_ring, contact, channel)
            audit.record(
                connection, door.actor(), "consent.withdraw", str(contact_id), {"channel": channel, "topics": topics}
            )
            if address_id is None:  # nothing can be on the way to them
                consent.withdraw(
                    connection, runtime.key_ring, contact_id, channel, topics, address_id=None, source=source, now=now
                )
        answers = [
            unsubscribe.withdraw(
                runtime.database, runtime.key_ring, WayOut(contact_id, channel, one, address_id), source=source
            )
            for one in topics
            if address_id is not None
        ]
    door.say(f"withdrawn: {', '.join(topics)} on {channel}")
    if any(answer.status != unsubscribe.DONE for answer in answers):
        door.say("a message to them was already handed over or is just leaving; nothing more will")


def _topics(shop: Shop, channel: str, topic: str | None) -> list[str]:
    """Return the topics meant; wrong usage if the shop has no such topic on this channel."""
    if channel not in ("email", "sms"):
        raise typer.BadParameter(f"{channel!r} is no channel; write email or sms", param_hint="--channel")
    known = [name for name, one in shop.topics.items() if channel in one.channels]
    if topic is not None and topic not in known:
        reason = f"{topic!r} is not a topic for {channel}; there are {', '.join(known) or 'none'}"
        raise typer.BadParameter(reason, param_hint="--topic")
    return known if topic is None else [topic]


def _hold(connection: Connection, key_ring: KeyRing, contact: str, channel: str) -> tuple[int, int | None, datetime]:
    """Lock the contact and its address; return both, and the engine's time read after that."""
    from sqlalchemy import text

    from dispatcher import clock, locks
    from dispatcher.contacts import find_contact

    contact_id = find_contact(connection, key_ring, contact)
    locks.lock_contacts(connection, [contact_id])
    row = connection.execute(
        text("SELECT email_address_id AS email, sms_address_id AS sms FROM contact WHERE id = :id"), {"id": contact_id}
    ).one()
    address_id: int | None = row._mapping[channel]
    locks.lock_addresses(connection, [] if address_id is None else [address_id])
    return contact_id, address_id, clock.read_now(connection)
