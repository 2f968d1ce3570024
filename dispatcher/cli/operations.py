"""verify, doctor, stop-all, go-on, lost: is everything right, the brakes, and a machine that is gone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli import door

if TYPE_CHECKING:
    from dispatcher.verify import Report


def add_to(app: typer.Typer) -> None:
    app.command("verify")(verify)
    app.command("doctor")(doctor)
    app.command("stop-all")(stop_all)
    app.command("go-on")(go_on)
    app.command("lost")(lost)


def verify(
    provider_log: Annotated[
        Path | None,
        typer.Option("--provider-log", metavar="FILE", help="Compare with what the provider accepted."),
    ] = None,
    as_json: door.AsJson = False,
) -> None:
    """Check every promise against the ledger: nobody twice, nobody forgotten, nobody after goodbye.

    Example: dispatcher verify --provider-log .dispatcher/sandbox/outbox.jsonl
    """
    from dispatcher.verify import verify as verify_ledger

    with door.open_engine() as runtime, runtime.database.connect() as connection:
        connection.execution_options(isolation_level="REPEATABLE READ")  # every check sees the same instant
        progress = door.say if sys.stderr.isatty() else None
        report = verify_ledger(connection, runtime.key_ring, provider_log, progress=progress)
        connection.rollback()
    if as_json:
        door.print_json(report.as_json())
    else:
        print_verification(report)
    if not report.ok:
        raise typer.Exit(1)


def print_verification(report: Report) -> None:
    """Print every invariant with what was found; broken ones with their first findings."""
    rows = [(result.name, result.status, result.checked, result.statement) for result in report.results]
    door.print_table(("", "", "looked at", "invariant"), rows, numbers=("looked at",))
    for result in report.results:
        for finding in result.findings:
            print(f"{result.name}: {finding}")
        if result.total > len(result.findings):
            print(f"{result.name}: and {result.total - len(result.findings):,} more")
        if result.note:
            door.say(f"{result.name}: {result.note}")


def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Leave out what is asked over the network.")] = False,
    mail: Annotated[
        Path | None,
        typer.Option("--mail", metavar="FILE", help="Look at a mail you received instead (.eml): is it signed right?"),
    ] = None,
    nameserver: Annotated[
        str | None, typer.Option("--nameserver", metavar="ADDRESS[:PORT]", help="Ask this one instead of your own.")
    ] = None,
    as_json: door.AsJson = False,
) -> None:
    """Look at everything this house needs, and say what to do about what is not right.

    Here: servers, keys, clocks, rooms, places.  As the world sees it: SPF, DKIM, DMARC and MX of the sender, the public
    address over TLS, providers' accounts.

    Example: dispatcher doctor

    A mail you received: dispatcher doctor --mail received.eml
    """
    from dataclasses import asdict

    from dispatcher.doctor import examine, examine_mail

    if mail is not None:
        checks = examine_mail(mail, offline=offline, nameserver=nameserver)
    else:
        checks = examine(offline=offline, nameserver=nameserver)
    if as_json:
        door.print_json([asdict(check) for check in checks])
    else:
        rows = [(one.verdict, one.name, f"{one.detail} → {one.to_do}" if one.to_do else one.detail) for one in checks]
        door.print_table(("", "check", "found"), rows)
    if any(check.verdict == "wrong" for check in checks):
        raise typer.Exit(1)


def stop_all() -> None:
    """The emergency brake: nothing of any class leaves until dispatcher go-on.

    Example: dispatcher stop-all
    """
    from dispatcher import runs

    with door.transaction() as (_, connection):
        runs.stop_all(connection, by=door.actor())
    door.say("stopped: nothing more is authorised; dispatcher go-on lifts it")


def go_on() -> None:
    """Lift the emergency brake; what it held back is due at once.

    Example: dispatcher go-on
    """
    from dispatcher import runs

    with door.transaction() as (_, connection):
        runs.go_on(connection, by=door.actor())
    door.say("going on")


def lost(
    machine: Annotated[str, typer.Argument(metavar="MACHINE", help="As dispatcher doctor names it.")],
    yes: door.Yes = False,
) -> None:
    """Say that a machine is switched off for good, so that what it held is settled.

    What its workers may have sent becomes unknown, the rest goes on.

    Only you can know: from here a machine that is gone looks like one that is slow, which may still send what it has
    authorised.

    Example: dispatcher lost mail-2.1f0c5a9be077
    """
    from dispatcher import rescue

    with door.open_engine() as runtime:
        if not yes:
            door.ask(f"{machine} must be switched off and never send again. Is it?")
        workers, batches = rescue.bury_host(runtime.database, machine, by=door.actor())
    door.say(f"{workers} workers of {machine} are given up, with {batches} batches")
