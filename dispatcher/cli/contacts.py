"""contact show, and the group that everything about one person is in."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dispatcher.cli import data_rights, door

#: What is printed as a table, and which of its columns.
_LISTS = {
    "consent": ("channel", "topic", "state", "effective_at", "source"),
    "suppressions": ("channel", "reason", "scope", "source", "created_at"),
    "messages": ("campaign", "channel", "status", "reason", "due_at", "authorised_at"),
}


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="One person we know of: show, export, correct, erase.", no_args_is_help=True)
    group.command("show")(show)
    group.command("export")(data_rights.export)
    group.command("correct")(data_rights.correct)
    group.command("erase")(data_rights.erase)
    group.command("erase-again")(data_rights.erase_again)
    app.add_typer(group, name="contact")


def show(
    contact: door.ContactArgument,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show personal data in full; this is audited.")] = False,
    as_json: door.AsJson = False,
) -> None:
    """Show what is known of a contact: consent, suppressions, recent messages.  Personal data is masked.

    Example: dispatcher contact show 12348
    """
    from dispatcher import audit, reports
    from dispatcher.contacts import find_contact
    from dispatcher.contacts.telling import tell

    with door.transaction() as (runtime, connection):
        contact_id = find_contact(connection, runtime.key_ring, contact)
        found = tell(connection, runtime.key_ring, contact_id, reveal=reveal)
        found["messages"] = reports.messages_of(connection, contact_id, most=20)
        if reveal:
            audit.record(connection, door.actor(), "contact.reveal", f"contact {contact_id}")
    if as_json:
        door.print_json(found)
        return
    for name, value in found.items():
        if name not in _LISTS:
            print(f"{name:<13} {door.shown(value)}")
    for name, columns in _LISTS.items():
        _print_list(name, columns, found[name])


def _print_list(title: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}: {len(rows) or 'none'}")
    if rows:
        door.print_table(columns, [[door.shown(row[column]) for column in columns] for row in rows])
