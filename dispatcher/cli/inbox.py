"""inbox list, show, retry, drop: what was told to us by webhook, and nobody could make sense of."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.cli import door

Number = Annotated[int, typer.Argument(metavar="ID", help="As inbox list shows it.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Requests of storefronts that could not be understood.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("retry")(retry)
    group.command("drop")(drop)
    app.add_typer(group, name="inbox")


def list_(as_json: door.AsJson = False) -> None:
    """List what is kept because it was not understood, with the reason.  After 30 days it is thrown away.

    Example: dispatcher inbox list
    """
    from dataclasses import asdict

    from dispatcher.feedback import inbox

    with door.transaction() as (runtime, connection):
        kept = inbox.list_kept(connection, runtime.key_ring)
    if as_json:
        door.print_json([asdict(one) for one in kept])
        return
    rows = [(one.id, one.received_at, one.source, one.topic, one.reason) for one in kept]
    door.print_table(("id", "received", "from", "topic", "reason"), rows)


def show(number: Number, as_json: door.AsJson = False) -> None:
    """Print a request as it came.  It may be about somebody: who looked is in the audit.

    Example: dispatcher inbox show 12
    """
    import sys

    from dispatcher import audit
    from dispatcher.feedback import inbox

    with door.transaction() as (runtime, connection):
        mail = inbox.open_kept(connection, runtime.key_ring, number)
        audit.record(connection, door.actor(), "inbox.shown", f"request {number}")
    if as_json:
        said = {"source": mail.source, "received_at": mail.received_at, "headers": dict(mail.headers)}
        door.print_json(said | {"body": mail.body.decode("utf-8", "replace")})
        return
    sys.stdout.write(mail.body.decode("utf-8", "replace") + "\n")


def retry(number: Number) -> None:
    """Let a request be sorted once more, after an update or a change of the workspace.

    Example: dispatcher inbox retry 12
    """
    from dispatcher import audit
    from dispatcher.feedback import inbox

    with door.transaction() as (_, connection):
        inbox.try_again(connection, number)
        audit.record(connection, door.actor(), "inbox.retried", f"request {number}")
    door.say(f"request {number} is sorted again within a second or so")


def drop(number: Number) -> None:
    """Throw a request away.

    Example: dispatcher inbox drop 12
    """
    from dispatcher import audit
    from dispatcher.feedback import inbox

    with door.transaction() as (_, connection):
        inbox.drop(connection, number)
        audit.record(connection, door.actor(), "inbox.dropped", f"request {number}")
    door.say(f"request {number} is gone")
