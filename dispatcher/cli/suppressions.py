"""suppression list, add, remove, mirror, differences."""

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
    group = typer.Typer(help="Addresses that are never sent to, here and at the provider.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("add")(add)
    group.command("remove")(remove)
    group.command("mirror")(mirror)
    group.command("differences")(differences)
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


def mirror(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count; change nothing, here or there.")] = False,
    as_json: door.AsJson = False,
) -> None:
    """Compare the provider's own suppression lists with ours now: take in theirs, push ours.  It is done daily, too.

    Example: dispatcher suppression mirror --dry-run
    """
    from dispatcher import mirrors
    from dispatcher.errors import Refused
    from dispatcher.providers import providers_for

    with door.open_engine() as runtime, door.progress_bar("lists") as progress:
        providers = providers_for(runtime.settings)
        try:
            found = mirrors.mirrors_of(providers.values())
            if not found:
                raise Refused("no provider that is configured has suppression lists of its own to compare with")
            compared = [
                (one.name, mirrors.mirror_now(runtime.database, runtime.key_ring, one, dry_run=dry_run,
                                              progress=progress))
                for one in found
            ]  # fmt: skip
        finally:
            for provider in providers.values():
                provider.close()
    figures = {name: {list_: dict(counted) for list_, counted in one.figures.items()} for name, one in compared}
    if as_json:
        door.print_json(figures)
        return
    rows = [
        (name, list_, what, number)
        for name, lists in figures.items()
        for list_, counted in lists.items()
        for what, number in sorted(counted.items())
    ]
    door.print_table(("provider", "list", "what", "addresses"), rows, numbers=("addresses",))
    if dry_run:
        door.say("nothing was changed")


def differences(as_json: door.AsJson = False) -> None:
    """Show what the last comparison with the provider's lists found to be different, address by address.

    Example: dispatcher suppression differences --json
    """
    from dataclasses import asdict

    from dispatcher import mirrors

    with door.transaction() as (_, connection):
        report = mirrors.last_report(connection)
        found = [] if report is None else mirrors.differences_of(connection, report.id)
    if as_json:
        door.print_json(None if report is None else {**asdict(report), "differences": [asdict(one) for one in found]})
        return
    if report is None:
        door.say("nothing was compared yet")
        return
    state = "complete" if report.complete else f"not complete: {report.flaw or 'it is under way'}"
    print(f"{report.provider}, {door.shown(report.started_at)}, {state}")
    for list_, counted in report.figures.items():
        print(f"{list_}: {door.shown(counted)}")
    rows = [(one.list, one.what, one.contact, one.address_hash[:16]) for one in found]
    door.print_table(("list", "what", "contact", "address hash"), rows)


def _row_of(connection: Connection, key_ring: KeyRing, address: str, *, make: bool) -> int:
    """Return the address's row; one is made for an address we never saw, if `make`."""
    from sqlalchemy import text

    from dispatcher.addresses import BadAddress, ensure_addresses, normal_email, normal_phone
    from dispatcher.errors import NotFound

    channel = "email" if "@" in address else "sms"
    try:
        normal = normal_email(address.strip()) if channel == "email" else normal_phone(address.strip(), None)
    except BadAddress as error:
        neither = "" if channel == "email" else "has no @, and "
        raise typer.BadParameter(f"it {neither}{error}", param_hint="ADDRESS") from None
    if make:
        return ensure_addresses(connection, key_ring, [(channel, normal)])[channel, normal]
    found = connection.scalar(
        text("SELECT id FROM address WHERE channel = :channel AND hash = :hash"),
        {"channel": channel, "hash": key_ring.address_hash(channel, normal)},
    )
    if found is None:
        raise NotFound("this address is not suppressed")
    return int(found)
