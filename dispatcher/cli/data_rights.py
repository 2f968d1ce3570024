"""contact export, correct, erase: what a person may ask of us; retention: what is kept no longer."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dispatcher.cli import door

if TYPE_CHECKING:
    from dispatcher.rights import ErasureState


def add_to(app: typer.Typer) -> None:
    app.command("retention")(retention)


class Format(StrEnum):
    JSON = "json"
    HTML = "html"


def export(
    contact: door.ContactArgument,
    form: Annotated[Format, typer.Option("--format", help="For a machine to read, or for a person.")] = Format.JSON,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here, readable by you only.")
    ] = None,
) -> None:
    """Give out everything there is about a contact, personal data opened; this is audited.

    Example: dispatcher contact export 12348 --format html -o 12348.html
    """
    from dispatcher.contacts import find_contact
    from dispatcher.rights import export_contact, readable

    with door.transaction() as (runtime, connection):
        contact_id = find_contact(connection, runtime.key_ring, contact, suggest=True)
        told = export_contact(connection, runtime.key_ring, contact_id, by=door.actor())
    content = readable.to_html(told) if form is Format.HTML else _as_json(told)
    if output is None:
        print(content)
        return
    door.write_privately(output, content)
    door.say(f"{output}: {', '.join(_sizes(told))}")


def _as_json(told: dict[str, Any]) -> str:
    import orjson

    return orjson.dumps(told, option=orjson.OPT_INDENT_2).decode()


def _sizes(told: dict[str, Any]) -> list[str]:
    return [f"{len(told[name])} {name.replace('_', ' ')}" for name in ("messages", "events", "consent_evidence")]


def correct(
    contact: door.ContactArgument,
    values: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="As an import has it, like phone=+447700900123; phone= forgets it."
        ),
    ],
) -> None:
    """Correct what is known of a contact; the audit says which fields, never the values.

    A new address voids the consent for the old one.

    Example: dispatcher contact correct 12348 --set locale=pt-BR
    """
    from dispatcher.contacts import find_contact
    from dispatcher.rights import correct_contact

    fields = {}
    for one in values:
        name, equals, value = one.partition("=")
        if not equals:
            raise typer.BadParameter(f"{one!r} is not FIELD=VALUE", param_hint="--set")
        fields[name.strip()] = value.strip()
    with door.transaction() as (runtime, connection):
        contact_id = find_contact(connection, runtime.key_ring, contact, suggest=True)
        saved = correct_contact(connection, runtime.key_ring, contact_id, fields, by=door.actor())
    door.say(f"{saved.outcome}: {', '.join(sorted(fields))}")


def erase(
    contact: door.ContactArgument,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until nothing to them is in flight, however long that takes.")
    ] = False,
    yes: door.Yes = False,
    as_json: door.AsJson = False,
) -> None:
    """Erase a person for good: nothing is sent to them any more, and what we hold of them is destroyed.

    It cannot be undone.  What is in flight is waited for 5 seconds, then the workers finish it; dispatcher contact show
    says how far it is.

    Example: dispatcher contact erase 12348
    """
    from datetime import timedelta

    from dispatcher import rights
    from dispatcher.contacts import find_contact
    from dispatcher.rights.finishing import LONGEST_WAIT

    with door.open_engine() as runtime:
        with runtime.database.connect() as connection:
            contact_id = find_contact(connection, runtime.key_ring, contact, suggest=True)
            known = rights.erasure_state(connection, contact_id)
        if not yes and known is None:
            door.ask("Everything personal about them is destroyed, for good. Erase them?")
        patience = timedelta.max if wait else LONGEST_WAIT
        state = rights.erase(runtime.database, runtime.key_ring, contact_id, by=door.actor(), wait=patience)
    if as_json:
        door.print_json(asdict(state))
    else:
        door.say(_told(state))


def erase_again(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What audit list --action erasure.done --json printed.")],
    as_json: door.AsJson = False,
) -> None:
    """After a restore: erase again who was erased since the backup, by the proofs that were kept elsewhere.

    Example: dispatcher contact erase-again erasures.json
    """
    import orjson

    from dispatcher.errors import Refused
    from dispatcher.rights.again import erase_again as erase_them_again

    try:
        entries = orjson.loads(file.read_bytes())
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise Refused(f"{file} is not the JSON that audit list printed: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Refused(f"{file} is not a list of entries of the audit")
    with door.open_engine() as runtime:
        done = erase_them_again(runtime.database, runtime.key_ring, entries, by=door.actor())
    if as_json:
        door.print_json(asdict(done))
        return
    door.say(f"{done.proofs} proofs: {done.erased} contacts erased again, {done.suppressed} addresses suppressed again")
    if done.in_progress:
        door.say(f"{done.in_progress} of them have something in flight; the workers finish them")


def _told(state: ErasureState) -> str:
    if state.state == "done":
        return (
            f"erased at {door.shown(state.done_at)}; the proof is in the audit: dispatcher audit list --action erasure"
        )
    return (
        "in progress: a message to them is just leaving or has no worker; nothing more will, and the workers finish it"
    )


def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go; nothing is changed.")] = False,
    as_json: door.AsJson = False,
) -> None:
    """Take away what is older than its term in dispatcher.toml; the workers do so once a day.

    Example: dispatcher retention --dry-run
    """
    from dispatcher.db import reading
    from dispatcher.rights import retention as keeping

    with door.open_engine() as runtime:
        if dry_run:
            with reading(runtime.database) as connection:
                swept = keeping.preview(connection)
        else:
            swept = keeping.sweep(runtime.database, by=door.actor())
    if as_json:
        door.print_json({"dry_run": dry_run, "rules": [line.to_json() for line in swept.lines]})
        return
    title = "would go" if dry_run else "gone"
    door.print_table(
        ("", "what goes", "kept", "before", title),
        [
            (one.name, one.goes, "for good" if one.term is None else f"{one.term.days} days", one.before, one.gone)
            for one in swept.lines
        ],
        numbers=(title,),
    )
