"""audit list, audit verify: who did what, and that nobody has touched the record of it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from dispatcher.cli import door


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Who did what, by which way; nobody can change it.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("verify")(verify)
    app.add_typer(group, name="audit")


def list_(
    contact: Annotated[
        str | None, typer.Option("--contact", metavar="CONTACT", help="Only what concerns this contact.")
    ] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="ACTION", help="Only this, like contact.export or erasure.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option("--since", parser=door.instant, metavar="INSTANT", help="Not what was before.")
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="The newest so many.")] = 100,
    as_json: door.AsJson = False,
) -> None:
    """List who did what, the newest last.  An action ends where you end it: `erasure` is every erasure.*.

    Example: dispatcher audit list --action erasure
    """
    from dispatcher import audit
    from dispatcher.contacts import find_contact

    with door.transaction() as (runtime, connection):
        contact_id = None if contact is None else find_contact(connection, runtime.key_ring, contact, suggest=True)
        entries = audit.entries(connection, contact_id=contact_id, action=action, since=since, most=most)
    if as_json:
        door.print_json([entry._asdict() for entry in entries])
        return
    door.print_table(
        ("", "at", "who", "did", "to", "details"),
        [(entry.id, entry.at, entry.actor, entry.action, entry.subject, entry.details) for entry in entries],
    )


def verify(as_json: door.AsJson = False) -> None:
    """Check that every entry is as it was written, and that none is missing; exit code 1 if not.

    Keep the hash it prints elsewhere: with it, whoever rewrote entries and chain together is found as well.

    Example: dispatcher audit verify
    """
    from dispatcher import audit_chain
    from dispatcher.db import reading

    with door.open_engine() as runtime:
        audit_chain.link_new(runtime.database)
        with reading(runtime.database) as connection:
            chain = audit_chain.verify_chain(connection)
    if as_json:
        door.print_json({"ok": chain.ok, **asdict(chain)})
    else:
        for finding in chain.findings:
            print(finding)
        if chain.ok:
            print(f"{chain.links:,} entries, each as it was written; the newest link is {chain.newest}")
    if not chain.ok:
        raise typer.Exit(1)
