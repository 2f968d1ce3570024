"""suppression list, add, remove."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli import door

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dispatcher.keys import KeyRing

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="An e-mail address, or a number like +447700900123.")]


class Reason(StrEnum):
    """Why an address is suppressed."""

    HARD_BOUNCE = "hard_bounce"
    INVALID = "invalid"
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    STOP = "stop"
    OPERATOR = "operator"
    ERASURE = "erasure"


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Addresses that are never sent to.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("add")(add)
    group.command("remove")(remove)
    app.add_typer(group, name="suppression")


def list_(
    reason: Annotated[Reason | None, typer.Option(help="Only those for this reason.")] = None,
    as_json: door.AsJson = False,
) -> None:
    """List the suppressed addresses.  They are kept as hashes only: nobody can read them back.

    Example: dispatcher suppression list --reason complaint
    """
    from dataclasses import asdict

    from dispatcher import suppression

    with door.transaction() as (_, connection):
        found = list(suppression.list_suppressions(connection, reason=reason.value if reason else None))
    if as_json:
        door.print_json([asdict(one) for one in found])
        return
    rows = [(s.channel, s.address_hash[:16], s.reason, s.scope, s.source, s.created_at) for s in found]
    door.print_table(("channel", "address hash", "reason", "scope", "source", "since"), rows)


def add(
    address: Address,
    marketing_only: Annotated[bool, typer.Option("--marketing-only", help="Transactional ones still go.")] = False,
) -> None:
    """Never send to this address again, whoever it belongs to now or later.

    Example: dispatcher suppression add jane@shop.example
    """
    from dispatcher import suppression

    with door.transaction() as (runtime, connection):
        address_id = _row_of(connection, runtime.key_ring, address, make=True)
        scope: suppression.Scope = "marketing" if marketing_only else "all"
        added = suppression.add(connection, address_id, "operator", source=door.actor(), scope=scope)
    door.say("suppressed" if added else "it was suppressed already")


def remove(
    address: Address,
    reason: Annotated[Reason, typer.Option(help="Which suppression to lift.")] = Reason.OPERATOR,
) -> None:
    """Lift a suppression.  What the person asked for themselves cannot be lifted here.

    Example: dispatcher suppression remove jane@shop.example --reason hard_bounce
    """
    from dispatcher import suppression

    with door.transaction() as (runtime, connection):
        address_id = _row_of(connection, runtime.key_ring, address, make=False)
        suppression.remove(connection, address_id, reason.value, by=door.actor())
    door.say("lifted")


def _row_of(connection: Connection, key_ring: KeyRing, address: str, *, make: bool) -> int:
    """Return the address's row; one is made for an address we never saw, if `make`."""
    from sqlalchemy import text

    from dispatcher.addresses import BadAddress, ensure_addresses, normal_email, normal_phone
    from dispatcher.errors import NotFound

    channel = "email" if "@" in address else "sms"
    try:
        normal = normal_email(address.strip()) if channel == "email" else normal_phone(address.strip(), None)
    except BadAddress as error:
        raise typer.BadParameter(f"it {error}", param_hint="ADDRESS") from None
    if make:
        return ensure_addresses(connection, key_ring, [(channel, normal)])[channel, normal]
    found = connection.scalar(
        text("SELECT id FROM address WHERE channel = :channel AND hash = :hash"),
        {"channel": channel, "hash": key_ring.address_hash(channel, normal)},
    )
    if found is None:
        raise NotFound("this address is not suppressed")
    return int(found)
