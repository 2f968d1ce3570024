"""Setting up: init, apply, migrate, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dispatcher.cli import door


def add_to(app: typer.Typer) -> None:
    app.command("init")(init)
    app.command("demo")(demo)
    app.command("migrate")(migrate)
    app.command("apply")(apply)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The new folder.")],
) -> None:
    """Make a workspace: a folder with a shop's rules, segments, campaigns, triggers and templates.

    Example: dispatcher init my-shop && cd my-shop && dispatcher apply
    """
    import shutil

    from dispatcher.errors import Refused
    from dispatcher.resources import resource

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(f"{folder} is there already and not empty; choose a new folder")
    ignored = shutil.ignore_patterns(".*", "__pycache__")
    try:
        shutil.copytree(resource("examples", "workspace"), folder, dirs_exist_ok=True, ignore=ignored)
    except OSError as error:
        raise Refused(f"{folder} cannot be written: {error.strerror or error}") from error
    print(folder)
    door.say(f"next: cd {folder}, read dispatcher.toml, then run dispatcher apply")


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Serve on at the end, until Ctrl-C.")] = False,
) -> None:
    """Show everything at work on a real shop's orders; nothing leaves this machine.

    Example: dispatcher demo --keep
    """
    from dispatcher import demo as demonstration

    door.finish(demonstration.main(keep=keep))


def migrate() -> None:
    """Bring the database to the schema this version needs; safe to run twice, and at once.

    Example: dispatcher migrate
    """
    from dispatcher import schema

    with door.open_database() as database:
        before, after = schema.migrate(database)
    door.say(f"the schema is at {after}" + ("" if before == after else f", it was at {before or 'nothing'}"))


def apply(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The workspace.", show_default="this folder")] = Path(),
    as_json: door.AsJson = False,
) -> None:
    """Read a workspace into the database: all of it, or nothing if there is a single mistake.

    Prints what changed; runs that are under way keep what they began with.

    Example: dispatcher apply my-shop
    """
    from dataclasses import asdict

    from dispatcher.apply import apply as apply_workspace
    from dispatcher.workspace import read_workspace

    workspace = read_workspace(folder)
    if workspace.ignored:
        door.say(f"not part of the workspace, left alone: {', '.join(workspace.ignored)}")
    for warning in workspace.warnings:
        door.say(warning)
    with door.transaction() as (_, connection):
        changes = apply_workspace(connection, workspace, by=door.actor())
    if as_json:
        door.print_json([asdict(change) for change in changes])
        return
    rows = [(change.kind, change.name, change.action, change.note) for change in changes]
    door.print_table(("kind", "name", "", ""), rows)
    changed = sum(change.action != "unchanged" for change in changes)
    door.say(f"{changed} of {len(changes)} changed" if changed else "nothing changed")
