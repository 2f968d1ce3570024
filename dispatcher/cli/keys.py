"""key create, list, rotate, revoke: the shop's own programs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from dispatcher.cli import door

Name = Annotated[str, typer.Argument(metavar="NAME", help="What uses the key, like shop-backend.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="API keys of the shop's own programs: make, rotate, revoke.", no_args_is_help=True)
    group.command("create")(create)
    group.command("list")(list_)
    group.command("rotate")(rotate)
    group.command("revoke")(revoke)
    app.add_typer(group, name="key")


def create(
    name: Name,
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="What it may do; repeat it. Left out: everything."),
    ] = None,
    rate: Annotated[int, typer.Option("--rate", metavar="N", min=1, help="Its most requests in a minute.")] = 6_000,
    expires_after: Annotated[
        str | None,
        typer.Option("--expires-after", metavar="TIME", help="How long it opens, like 90d. Left out: always."),
    ] = None,
) -> None:
    """Make an API key and print it: this is the only time it can be read.

    Example: dispatcher key create shop-backend --scope messages:write --scope messages:read
    """
    from dispatcher import api_keys

    lifetime = _length(expires_after, "--expires-after") if expires_after else None
    with door.transaction() as (_, connection):
        key = api_keys.create(
            connection, name, scopes or list(api_keys.SCOPES), actor=door.actor(), requests_per_minute=rate,
            expires_after=lifetime,
        )  # fmt: skip
    print(key)
    door.say("keep it now: only its hash is stored")


def list_(as_json: door.AsJson = False) -> None:
    """List the API keys, the revoked ones too.

    Example: dispatcher key list
    """
    from dispatcher import api_keys
    from dispatcher.instants import show_instant

    with door.transaction() as (_, connection):
        keys = api_keys.list_keys(connection)
    if as_json:
        rows = [asdict(key) for key in keys]
        for row in rows:
            row |= {name: show_instant(value) for name, value in row.items() if name.endswith("_at")}
        door.print_json(rows)
        return
    columns = ("name", "scopes", "a minute", "created", "last used", "expires", "revoked")
    lines = [
        (k.name, ", ".join(k.scopes), k.requests_per_minute, k.created_at, k.last_used_at, k.expires_at, k.revoked_at)
        for k in keys
    ]
    door.print_table(columns, lines, numbers=("a minute",))


def rotate(
    name: Name,
    grace: Annotated[
        str, typer.Option("--grace", metavar="TIME", help="How long the old secret still opens; 0s ends it at once.")
    ] = "24h",
) -> None:
    """Give an API key a new secret and print it; the old one still opens for a while.

    Example: dispatcher key rotate shop-backend --grace 2h
    """
    from dispatcher import api_keys

    length = _length(grace, "--grace")
    with door.transaction() as (_, connection):
        key = api_keys.rotate(connection, name, grace=length, actor=door.actor())
    print(key)
    door.say(f"keep it now: only its hash is stored; the old secret opens for {grace} more")


def _length(value: str, option: str) -> timedelta:
    from segments.durations import parse_duration

    try:
        return parse_duration(value)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def revoke(name: Name) -> None:
    """Make an API key useless, from now on and for good.

    Example: dispatcher key revoke shop-backend
    """
    from dispatcher import api_keys

    with door.transaction() as (_, connection):
        api_keys.revoke(connection, name, actor=door.actor())
    door.say(f"key {name} is revoked")
