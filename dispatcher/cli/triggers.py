"""trigger list, pause, resume."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.cli import door

Name = Annotated[str, typer.Argument(metavar="NAME", help="A trigger of the applied workspace.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Messages that the shop's events start: look, pause, resume.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("pause")(pause)
    group.command("resume")(resume)
    app.add_typer(group, name="trigger")


def list_(as_json: door.AsJson = False) -> None:
    """List the triggers with what became of their messages; `run show` has more of each run.

    Example: dispatcher trigger list
    """
    from dispatcher.triggers import listing

    with door.transaction() as (_, connection):
        triggers = listing.list_triggers(connection)
    if as_json:
        door.print_json(triggers)
        return
    columns = ("trigger", "on", "after", "channel", "template", "version", "state", "messages")
    rows = [[*(trigger[column] for column in columns), _became(trigger["status"])] for trigger in triggers]
    door.print_table((*columns, "became"), rows, numbers=("messages",))


def _became(status: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(status.items()))


def pause(name: Name) -> None:
    """Let nothing of a trigger leave, for now.  Events go on starting messages, and these go on ageing.

    Example: dispatcher trigger pause abandoned-cart
    """
    from dispatcher.triggers import listing

    with door.transaction() as (_, connection):
        listing.pause(connection, name, by=door.actor())
    door.say(f"trigger {name} is paused")


def resume(name: Name) -> None:
    """Let a paused trigger's messages leave again, those that have not expired meanwhile.

    Example: dispatcher trigger resume abandoned-cart
    """
    from dispatcher.triggers import listing

    with door.transaction() as (_, connection):
        listing.resume(connection, name, by=door.actor())
    door.say(f"trigger {name} goes on")
