"""review list, settle: texts in free words that ask to stop."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.cli import door


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Texts in free words that were taken for a request to stop.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("settle")(settle)
    app.add_typer(group, name="review")


def list_(as_json: door.AsJson = False) -> None:
    """List the texts that wait for somebody to look at them.  Their senders get no SMS meanwhile.

    Example: dispatcher review list
    """
    from dataclasses import asdict

    from dispatcher.replies import reviews

    with door.transaction() as (runtime, connection):
        waiting = reviews.list_open(connection, runtime.key_ring)
    if as_json:
        door.print_json([asdict(one) for one in waiting])
        return
    door.print_table(("id", "received", "contact", "text"), [(r.id, r.received_at, r.contact, r.text) for r in waiting])


def settle(
    number: Annotated[int, typer.Argument(metavar="ID", help="As review list shows it.")],
    stop: Annotated[bool, typer.Option("--stop/--not-stop", help="Did the person ask to stop?", show_default=False)],
) -> None:
    """Say what a text meant.  --not-stop corrects our reading: what rested on this text alone is lifted.

    Example: dispatcher review settle 12 --stop
    """
    from dispatcher.replies import reviews

    with door.transaction() as (runtime, connection):
        reviews.settle(connection, runtime.key_ring, number, "stop" if stop else "not_stop", by=door.actor())
    door.say(f"reply {number}: {'they asked to stop' if stop else 'not a request to stop'}")
