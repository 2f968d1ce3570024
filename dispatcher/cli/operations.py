"""verify, doctor, stop-all, go-on: is everything right, and the brakes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dispatcher.cli import door


def add_to(app: typer.Typer) -> None:
    app.command("verify")(verify)
    app.command("doctor")(doctor)
    app.command("stop-all")(stop_all)
    app.command("go-on")(go_on)


def verify(
    provider_log: Annotated[
        Path | None,
        typer.Option("--provider-log", metavar="FILE", help="Compare with what the provider accepted."),
    ] = None,
    as_json: door.AsJson = False,
) -> None:
    """Check every promise against the ledger: nobody twice, nobody forgotten, no byte after an unsubscribe.

    Example: dispatcher verify --provider-log .dispatcher/sandbox/outbox.jsonl
    """
    from dispatcher.verify import verify as verify_ledger

    with door.transaction() as (runtime, connection):
        findings = verify_ledger(connection, runtime.key_ring, provider_log)
    if as_json:
        door.print_json(findings)
    else:
        door.print_table(("invariant", "", "found"), [])


def doctor(as_json: door.AsJson = False) -> None:
    """Look at everything this installation needs, and say what to do about what is missing.

    Example: dispatcher doctor
    """
    from dataclasses import asdict

    from dispatcher.doctor import examine

    checks = examine()
    if as_json:
        door.print_json([asdict(check) for check in checks])
    else:
        door.print_table(("", "check", "found"), [(check.verdict, check.name, check.detail) for check in checks])
    if any(check.verdict == "wrong" for check in checks):
        raise typer.Exit(1)


def stop_all() -> None:
    """The emergency brake: from now on nothing is authorised to leave, of any class.  dispatcher go-on lifts it.

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
