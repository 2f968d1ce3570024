"""consent show, request, grant, withdraw, export."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from dispatcher.cli import door

if TYPE_CHECKING:
    from dispatcher.consent import Basis, Held
    from dispatcher.definitions import Shop

Channel = Annotated[str, typer.Option("--channel", metavar="CHANNEL", help="email or sms.")]
Source = Annotated[str, typer.Option("--source", metavar="TEXT", help="How you know, for the evidence.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="What people allowed, and how we know: show, ask, record, export.", no_args_is_help=True)
    group.command("show")(show)
    group.command("request")(request)
    group.command("grant")(grant)
    group.command("withdraw")(withdraw)
    group.command("export")(export)
    app.add_typer(group, name="consent")


def show(contact: door.ContactArgument, as_json: door.AsJson = False) -> None:
    """Show a contact's consent by channel and topic; what is not listed was never asked.

    Example: dispatcher consent show 12348
    """
    from dispatcher import consent
    from dispatcher.contacts import find_contact

    with door.transaction() as (runtime, connection):
        held = consent.state_of(connection, find_contact(connection, runtime.key_ring, contact))
    if as_json:
        door.print_json([one._asdict() for one in held])
        return
    columns = ("channel", "topic", "state", "basis", "since", "expires", "source")
    rows = [
        (one.channel, one.topic, _state(one), one.basis, one.effective_at, one.expires_at, one.source) for one in held
    ]
    door.print_table(columns, rows)


def _state(one: Held) -> str:
    state = f"{one.state}, confirmed" if one.confirmed else one.state
    return state if one.for_present_address else f"{state} (for a former address: void)"


def request(
    contact: door.ContactArgument,
    topic: Annotated[str, typer.Option("--topic", metavar="TOPIC", help="A topic of the shop.")],
    channel: Channel = "email",
    source: Source = "told to an operator",
) -> None:
    """Ask a person to confirm that they want a topic: they get one message with a link, at most one a day.

    Example: dispatcher consent request 12348 --topic news --source "asked for it on the phone"
    """
    from dispatcher import audit, opt_in
    from dispatcher.contacts import hold_contact
    from dispatcher.shop import load_shop

    with door.transaction() as (runtime, connection):
        shop = load_shop(connection)
        _topics(shop, channel, topic)
        held = hold_contact(connection, runtime.key_ring, contact, channel)
        asked = opt_in.request(connection, runtime.key_ring, shop, held, topic, actor="operator", source=source)
        details = {"channel": channel, "topic": topic, "message": asked.message_id}
        audit.record(connection, door.actor(), "consent.request", str(held.contact_id), details)
    if asked.message_id is None:
        door.say(f"nothing is sent: {asked.because}")
    print(f"{asked.state}: {topic} on {channel}")


def grant(
    contact: door.ContactArgument,
    topic: Annotated[str, typer.Option("--topic", metavar="TOPIC", help="A topic of the shop.")],
    channel: Channel = "email",
    source: Source = "told to an operator",
    at: Annotated[
        datetime | None, typer.Option(parser=door.instant, metavar="INSTANT", help="When they said so.")
    ] = None,
    basis: Annotated[
        str,
        typer.Option(
            "--basis",
            metavar="BASIS",
            help="What it rests on: consent, soft_opt_in, implied_purchase or implied_inquiry.",
        ),
    ] = "consent",
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=door.instant, metavar="INSTANT", help="When the purchase or inquiry was, for such a basis."
        ),
    ] = None,
) -> None:
    """Record that a person allowed a topic, as an operator knows it.  After a withdrawal only the person can grant.

    Example: dispatcher consent grant 12348 --topic offers --source "paper form of 1 December"
    """
    from dispatcher import audit, granting
    from dispatcher.contacts import hold_contact
    from dispatcher.errors import Refused
    from dispatcher.shop import load_shop

    known_basis = _basis(basis, at=at, since=since)
    with door.transaction() as (runtime, connection):
        shop = load_shop(connection)
        _topics(shop, channel, topic)
        held = hold_contact(connection, runtime.key_ring, contact, channel)
        state = granting.grant(
            connection, runtime.key_ring, shop, held, topic,
            actor="operator", source=source, basis=known_basis, occurred_at=since or at,
        )  # fmt: skip
        if objection := granting.objection(held, state):
            raise Refused(objection)
        details = {"channel": channel, "topic": topic, "basis": basis}
        audit.record(connection, door.actor(), "consent.grant", str(held.contact_id), details)
    until = f" until {state.expires_at:%Y-%m-%d}" if state.expires_at else ""
    door.say(f"granted: {topic} on {channel}{until}")
    if shop.topics[topic].double_opt_in and not state.confirmed:
        door.say(f"but {topic} needs a confirmed opt-in, so nothing is sent until they confirm it themselves")


def _basis(basis: str, *, at: datetime | None, since: datetime | None) -> Basis:
    from dispatcher.consent import CONSENT, MONTHS_IN_FORCE

    if basis not in (CONSENT, *MONTHS_IN_FORCE):
        known = ", ".join((CONSENT, *MONTHS_IN_FORCE))
        raise typer.BadParameter(f"{basis!r} is no basis; there are {known}", param_hint="--basis")
    if (basis == CONSENT) != (since is None) or (basis != CONSENT and at is not None):
        reason = "goes with a basis of a purchase or inquiry, which needs it; --at goes with consent"
        raise typer.BadParameter(reason, param_hint="--since")
    return cast("Basis", basis)


def withdraw(
    contact: door.ContactArgument,
    topic: Annotated[
        str | None, typer.Option("--topic", metavar="TOPIC", help="Only this topic; else every topic of the channel.")
    ] = None,
    channel: Channel = "email",
    source: Source = "told to an operator",
) -> None:
    """Record that a person withdraws consent, and wait for what is just leaving: nothing follows it.

    Example: dispatcher consent withdraw 12348 --source "phone call"
    """
    from dispatcher import audit, consent, unsubscribe
    from dispatcher.contacts import hold_contact
    from dispatcher.shop import load_shop
    from dispatcher.tokens import WayOut

    with door.open_engine() as runtime:
        with runtime.database.begin() as connection:
            topics = _topics(load_shop(connection), channel, topic)
            held = hold_contact(connection, runtime.key_ring, contact, channel)
            details = {"channel": channel, "topics": topics}
            audit.record(connection, door.actor(), "consent.withdraw", str(held.contact_id), details)
            if held.address_id is None:  # nothing can be on the way to them
                consent.withdraw(
                    connection, runtime.key_ring, held.contact_id, channel, topics,
                    address_id=None, source=source, now=held.now,
                )  # fmt: skip
        answers = [
            unsubscribe.withdraw(
                runtime.database,
                runtime.key_ring,
                WayOut(held.contact_id, channel, one, held.address_id),
                source=source,
            )
            for one in topics
            if held.address_id is not None
        ]
    door.say(f"withdrawn: {', '.join(topics)} on {channel}")
    if any(answer.status != unsubscribe.DONE for answer in answers):
        door.say("a message to them was already handed over or is just leaving; nothing more will")


def export(
    contact: door.ContactArgument,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the page here, readable by you only.")
    ] = None,
    as_json: door.AsJson = False,
) -> None:
    """Show all evidence on one contact, personal data opened: a page to print (on stdout, or --html FILE), or JSON.

    Example: dispatcher consent export 12348 --html 12348.html
    """
    from dispatcher import evidence

    with door.transaction() as (runtime, connection):
        gathered = evidence.gather(connection, runtime.key_ring, contact, by=door.actor())
    if html is not None:
        door.write_privately(html, evidence.to_html(gathered))
        door.say(f"{html}: {len(gathered['events'])} pieces of evidence")
    if as_json:
        door.print_json(gathered)
    elif html is None:
        print(evidence.to_html(gathered))
    if not gathered["chain"]["verified"]:
        door.say("the chain of evidence is broken: dispatcher verify shows where")


def _topics(shop: Shop, channel: str, topic: str | None) -> list[str]:
    """Return the topics meant; wrong usage if the shop has no such topic on this channel."""
    if channel not in ("email", "sms"):
        raise typer.BadParameter(f"{channel!r} is no channel; write email or sms", param_hint="--channel")
    known = [name for name, one in shop.topics.items() if channel in one.channels]
    if topic is not None and topic not in known:
        reason = f"{topic!r} is not a topic for {channel}; there are {', '.join(known) or 'none'}"
        raise typer.BadParameter(reason, param_hint="--topic")
    return known if topic is None else [topic]
