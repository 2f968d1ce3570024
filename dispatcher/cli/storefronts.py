"""storefront topics, requests, done, erase: what Shopify and WooCommerce told us, and what was asked for there."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.cli import door

Number = Annotated[int, typer.Argument(metavar="ID", help="As storefront requests shows it.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Shopify and WooCommerce: what they told us, and asked of us.", no_args_is_help=True)
    group.command("topics")(topics)
    group.command("requests")(requests_)
    group.command("done")(done)
    group.command("erase")(erase)
    app.add_typer(group, name="storefront")


def topics(as_json: door.AsJson = False) -> None:
    """Count the requests of each topic, what became of them, and when the last one came.

    Example: dispatcher storefront topics
    """
    from dataclasses import asdict

    from dispatcher.storefronts import counting

    with door.transaction() as (_, connection):
        counts = counting.counts(connection)
    if as_json:
        door.print_json([asdict(one) for one in counts])
        return
    rows = [(one.source, one.topic, one.outcome, one.requests, one.last_at) for one in counts]
    door.print_table(("from", "topic", "outcome", "requests", "last"), rows, numbers=("requests",))


def requests_(
    every: Annotated[bool, typer.Option("--all", help="Also those that are done.")] = False,
    as_json: door.AsJson = False,
) -> None:
    """List what was asked for on somebody's behalf: exports, erasures, and that a shop be forgotten.

    Example: dispatcher storefront requests
    """
    from dataclasses import asdict

    from dispatcher.storefronts import requests

    with door.transaction() as (_, connection):
        asked = requests.list_requests(connection, every=every)
    if as_json:
        door.print_json([asdict(one) for one in asked])
        return
    rows = [
        (one.id, one.source, one.kind, one.contact or "nobody we know", one.requested_at, one.due_at, one.state)
        for one in asked
    ]
    door.print_table(("id", "from", "wanted", "contact", "received", "due", "state"), rows)


def done(number: Number) -> None:
    """Note that an export was handed over (dispatcher contact export makes it), or that nobody was meant.

    Example: dispatcher storefront done 3
    """
    from dispatcher.storefronts import requests

    with door.transaction() as (_, connection):
        requests.settle(connection, number, by=door.actor())
    door.say(f"request {number} is done")


def erase(number: Number, yes: door.Yes = False) -> None:
    """Erase everybody who came only from the shop that a shop/redact is about.  Nobody can take that back.

    Who is also known by another id, from another feed or by consent given elsewhere stays.

    Example: dispatcher storefront erase 4
    """
    from dispatcher.storefronts import requests

    with door.transaction() as (_, connection):
        source, people = requests.about_shop(connection, number)
    if not yes:
        door.ask(f"{people:,} contacts are known only from {source}.  Erase them for good?")
    with door.open_engine() as runtime:
        erased = requests.erase_shop(runtime.database, runtime.key_ring, number, by=door.actor())
    door.say(f"{erased:,} contacts are being erased")
