"""contact show, and the group that everything about one person is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dispatcher.cli import data_rights, door

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dispatcher.keys import KeyRing


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

    Example: dispatcher contact show 17850
    """
    from dispatcher import audit
    from dispatcher.contacts import find_contact

    with door.transaction() as (runtime, connection):
        contact_id = find_contact(connection, runtime.key_ring, contact)
        found = _read(connection, runtime.key_ring, contact_id, reveal)
        if reveal:
            audit.record(connection, door.actor(), "contact.reveal", f"contact {contact_id}")
    if as_json:
        door.print_json(found)
        return
    for name, value in found.items():
        if not isinstance(value, list):
            print(f"{name:<13} {door.shown(value)}")
    _print_list("consent", ("channel", "topic", "state", "effective_at", "source"), found["consent"])
    _print_list("suppressions", ("channel", "reason", "scope", "source", "created_at"), found["suppressions"])
    _print_list("messages", ("campaign", "channel", "status", "reason", "due_at", "authorised_at"), found["messages"])


def _print_list(title: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}: {len(rows) or 'none'}")
    if rows:
        door.print_table(columns, [[door.shown(row[column]) for column in columns] for row in rows])


def _read(connection: Connection, key_ring: KeyRing, contact_id: int, reveal: bool) -> dict[str, Any]:
    """Return everything `contact show` shows, as JSON takes it."""
    from sqlalchemy import text

    from dispatcher import consent, reports, rights, suppression
    from dispatcher.contacts import open_personal

    row = connection.execute(text("SELECT * FROM contact WHERE id = :id"), {"id": contact_id}).one()
    aliases = connection.scalars(
        text("SELECT external_id FROM contact_alias WHERE contact_id = :id ORDER BY external_id"), {"id": contact_id}
    )
    addresses = [address for address in (row.email_address_id, row.sms_address_id) if address is not None]
    return {
        "contact": row.external_id,
        "also_known_as": ", ".join(alias for alias in aliases if alias != row.external_id) or None,
        **_personal(open_personal(key_ring, row.data_key, row.sealed), reveal),
        "locale": row.locale,
        "country": row.country,
        "subdivision": row.subdivision,
        "zone": row.zone,
        "attributes": row.attributes,
        "paused_until": row.paused_until,
        "quiet_hours": _own_hours(row.quiet_hours),
        "erased_at": row.erased_at,
        "erasure": data_rights.shown_erasure(rights.erasure_state(connection, contact_id)),
        "consent": [held._asdict() for held in consent.state_of(connection, contact_id)],
        "suppressions": [
            {"channel": s.channel, "reason": s.reason, "scope": s.scope, "source": s.source, "created_at": s.created_at}
            for address in addresses
            for s in suppression.suppressions_of(connection, address)
        ],
        "messages": reports.messages_of(connection, contact_id, most=20),
    }


def _own_hours(stored: list[dict[str, Any]] | None) -> str | None:
    """Return the person's own quiet hours as dispatcher.toml would write them, like `22:00-08:00 daily`."""
    from dispatcher.definitions import Silence

    return "; ".join(str(Silence.model_validate(one)) for one in stored or ()) or None


def _personal(personal: Any, reveal: bool) -> dict[str, str | None]:
    """Return the personal fields, masked unless they are to be revealed."""
    from dispatcher.web.masking import masked_address

    shown: dict[str, str | None] = {}
    for name in ("email", "phone", "first_name", "last_name", "postal_code"):
        value: str | None = getattr(personal, name)
        if value and not reveal:
            is_address = name in ("email", "phone")
            value = masked_address("email" if name == "email" else "sms", value) if is_address else f"{value[:1]}•••"
        shown[name] = value
    return shown
