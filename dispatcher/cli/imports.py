"""import contacts, events, bounces: what others already know, from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from dispatcher.cli import door

if TYPE_CHECKING:
    from dispatcher.imports.bounces import BounceReport
    from dispatcher.imports.contacts import ContactReport
    from dispatcher.imports.events import EventReport
    from dispatcher.mailboxes import MailboxReport
    from dispatcher.runtime import Runtime

    Report = BounceReport | ContactReport | EventReport

File = Annotated[Path, typer.Argument(metavar="FILE", help="The file; gzip is unpacked.")]
RejectsTo = Annotated[
    Path | None, typer.Option("--rejects", metavar="FILE", help="Where rejected rows go; else NAME.rejected.csv, here.")
]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Bring in contacts, events and bounces.", no_args_is_help=True)
    group.command("contacts")(contacts)
    group.command("events")(events)
    group.command("bounces")(bounces)
    app.add_typer(group, name="import")


def contacts(
    file: File,
    columns: Annotated[
        list[str] | None, typer.Option("--map", metavar="COLUMN=FIELD", help="What a column of yours is; repeat.")
    ] = None,
    rejects: RejectsTo = None,
    as_json: door.AsJson = False,
) -> None:
    """Bring in contacts from a CSV file.  The same file twice changes nothing; a withdrawal is never undone.

    Example: dispatcher import contacts contacts.csv --map "E-Mail=email" --map "Kunde=contact_id"
    """
    from dispatcher.imports.contacts import bases_by_topic, import_contacts, topics_by_channel
    from dispatcher.shop import load_shop

    mapping = _pairs(columns or [])
    with door.open_engine() as runtime, door.progress_bar(file.name) as progress:
        with runtime.database.connect() as connection:
            shop = load_shop(connection)
        report = import_contacts(
            runtime.database,
            runtime.key_ring,
            file,
            topics=topics_by_channel(shop),
            bases=bases_by_topic(shop),
            mapping=mapping,
            rejects=rejects or _rejects_of(file),
            progress=progress,
        )
        _audit(runtime, "contacts.import", file, report)
    _tell(report, as_json)


def events(
    file: File,
    mapping_file: Annotated[
        Path | None, typer.Option("--map", metavar="FILE.yaml", help="How order lines in a CSV file become events.")
    ] = None,
    rebase: door.Rebase = None,
    rejects: RejectsTo = None,
    triggers: Annotated[
        bool, typer.Option(help="Let triggers start messages for what happened just now; never for older events.")
    ] = True,
    as_json: door.AsJson = False,
) -> None:
    """Bring in events: JSON lines, or order lines as CSV with a map.  The same file twice changes nothing.

    Example: dispatcher import events orders.csv.gz --map maps/online-retail.yaml
    """
    from dispatcher.imports.events import import_events
    from dispatcher.imports.mapping import read_mapping

    mapping = read_mapping(mapping_file) if mapping_file else None
    with door.open_engine() as runtime, door.progress_bar(file.name) as progress:
        report = import_events(
            runtime.database,
            runtime.key_ring,
            file,
            mapping=mapping,
            rebase=rebase,
            rejects=rejects or _rejects_of(file),
            progress=progress,
            triggers=triggers,
        )
        _audit(runtime, "events.import", file, report)
    _tell(report, as_json)


def bounces(
    where: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A mail, an mbox, a maildir, a folder of mails, or imaps://user@host/INBOX; none: the mailbox set.",
        ),
    ] = "",
    rejects: RejectsTo = None,
    as_json: door.AsJson = False,
) -> None:
    """Bring in bounce and complaint mail.  A mail counts only if a message of ours came back in it.

    Example: dispatcher import bounces Maildir/
    """
    from dispatcher.imports.bounces import import_bounces

    if not where or "://" in where:
        _tell(_read_mailbox(where), as_json)
        return
    path = Path(where)
    with door.open_engine() as runtime, door.progress_bar(path.name) as progress:
        report = import_bounces(
            runtime.database, runtime.key_ring, path, rejects=rejects or _rejects_of(path), progress=progress
        )
        _audit(runtime, "bounces.import", path, report)
    _tell(report, as_json)


def _read_mailbox(url: str) -> MailboxReport:
    """Read the mailbox at this address, else the configured one; a password that is not in it is asked for."""
    from dispatcher.errors import Refused
    from dispatcher.mailboxes import read_mailbox
    from dispatcher.mailboxes.imap import mailbox_at
    from dispatcher.settings import load_settings

    if url and "@" in url and ":" not in url.partition("://")[2].rpartition("@")[0]:
        password = typer.prompt("password", hide_input=True, err=True)
        scheme, _, rest = url.partition("://")
        user, _, place = rest.rpartition("@")
        url = f"{scheme}://{user}:{quote(password, safe='')}@{place}"
    configured = load_settings(bounce_mailbox_url=url) if url else door.read_settings()
    if configured.bounce_mailbox_url is None:
        raise Refused("say where the mails are, or set DISPATCHER_BOUNCE_MAILBOX_URL")
    mailbox = mailbox_at(configured.bounce_mailbox_url.get_secret_value())
    with door.open_engine() as runtime, door.progress_bar(mailbox.folder) as progress:
        report = read_mailbox(runtime.database, runtime.key_ring, mailbox, progress=progress)
        _audit(runtime, "bounces.import", Path(mailbox.name), report)
    return report


def _pairs(columns: list[str]) -> dict[str, str]:
    """Return column -> field of `column=field` texts."""
    pairs = {}
    for text in columns:
        column, equals, field = text.rpartition("=")
        if not equals or not column.strip() or not field.strip():
            raise typer.BadParameter(f"{text!r} is not COLUMN=FIELD; write it like E-Mail=email", param_hint="--map")
        pairs[column.strip()] = field.strip()
    return pairs


def _rejects_of(file: Path) -> Path:
    """Return where rejected rows go: into this folder, for the file's own may not be ours to write."""
    name = file.name.removesuffix(".gz")
    return Path(f"{name.rpartition('.')[0] or name}.rejected.csv")


def _audit(runtime: Runtime, action: str, file: Path, report: Report) -> None:
    from dispatcher import audit
    from dispatcher.imports.counts import numbers_of

    with runtime.database.begin() as connection:
        audit.record(connection, door.actor(), action, file.name, numbers_of(report))


def _tell(report: Report, as_json: bool) -> None:
    """Print what became of the rows; say on stderr where the rejected ones are."""
    from dispatcher.imports.counts import numbers_of

    numbers = numbers_of(report)
    if as_json:
        door.print_json({name: str(value) if isinstance(value, Path) else value for name, value in numbers.items()})
    else:
        for name, value in numbers.items():
            label = name.replace("_", " ")
            if isinstance(value, dict):
                for reason, number in sorted(value.items(), key=lambda item: -item[1]):
                    print(f"{f'{label}: {reason}':<40} {number:>12,}")
            elif isinstance(value, int):
                print(f"{label:<40} {value:>12,}")
            elif isinstance(value, list) and value:
                print(f"{label:<40} {', '.join(value)}")
    if report.rejects_file:
        door.say(f"set aside, with line and reason: {report.rejects_file}")
        if report.read <= report.rejected:
            door.say("not one line could be taken in")
            raise typer.Exit(1)
