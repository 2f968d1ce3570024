"""segment list, count, sample."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.cli import door

Name = Annotated[str, typer.Argument(metavar="NAME", help="A segment of the applied workspace.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Who is meant: list, count, sample.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("count")(count)
    group.command("sample")(sample)
    app.add_typer(group, name="segment")


def list_(as_json: door.AsJson = False) -> None:
    """List the segments that are applied.

    Example: dispatcher segment list
    """
    from dispatcher import reports

    with door.transaction() as (_, connection):
        segments = reports.list_segments(connection)
    if as_json:
        door.print_json(segments)
        return
    rows = [(one["segment"], one["version"], ", ".join(one["campaigns"])) for one in segments]
    door.print_table(("segment", "version", "campaigns"), rows, numbers=("version",))


def count(name: Name, as_of: door.AsOf = None, as_json: door.AsJson = False) -> None:
    """Count the contacts that a segment selects.

    Example: dispatcher segment count christmas-fans --as-of 2011-12-01T10:00:00Z
    """
    from dispatcher import audience, clock
    from dispatcher.instants import show_instant

    with door.transaction() as (_, connection):
        at = as_of or clock.read_now(connection)
        people = audience.count(connection, audience.load_segment(connection, name), at)
    if as_json:
        door.print_json({"segment": name, "as_of": show_instant(at), "count": people})
        return
    print(people)


def sample(
    name: Name,
    most: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")] = 10,
    as_of: door.AsOf = None,
    as_json: door.AsJson = False,
) -> None:
    """Show some of the contacts that a segment selects, by external id.

    Example: dispatcher segment sample christmas-fans --limit 5
    """
    from dispatcher import audience, clock
    from dispatcher.instants import show_instant

    with door.transaction() as (_, connection):
        at = as_of or clock.read_now(connection)
        found = audience.sample(connection, audience.load_segment(connection, name), at, most)
    contacts = [external_id for _, external_id in found]
    if as_json:
        door.print_json({"segment": name, "as_of": show_instant(at), "contacts": contacts})
        return
    for contact in contacts:
        print(contact)
