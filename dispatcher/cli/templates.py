"""template check, preview, send."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dispatcher.cli import door

if TYPE_CHECKING:
    from dispatcher.providers.protocol import Envelope

Name = Annotated[str, typer.Argument(metavar="NAME", help="A template of the applied workspace.")]
Channel = Annotated[str | None, typer.Option("--channel", metavar="CHANNEL", help="email or sms, if it is on both.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="What a message says: check, preview, send a test.", no_args_is_help=True)
    group.command("check")(check)
    group.command("preview")(preview)
    group.command("send")(send)
    app.add_typer(group, name="template")


def check(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this template; else all.")] = None,
    folder: Annotated[Path, typer.Option("--workspace", metavar="DIR", help="Else this folder.")] = Path(),
    as_json: door.AsJson = False,
) -> None:
    """Look for what must not be sent: no way out, no postal address, unknown names, mails that are too large.

    Reads the folder, not the database.  Ends with exit code 1 if there is an error; warnings may stay.

    Example: dispatcher template check christmas --workspace my-shop
    """
    from dispatcher.workspace import check_templates

    errors, warnings = check_templates(folder, name)
    if as_json:
        door.print_json({"errors": errors, "warnings": warnings})
    else:
        for finding in [*errors, *warnings]:
            print(finding)
        counts = [
            f"{len(some)} {what}{'' if len(some) == 1 else 's'}"
            for some, what in ((errors, "error"), (warnings, "warning"))
        ]
        door.say(", ".join(counts))
    if errors:
        raise typer.Exit(1)


def preview(
    name: Name,
    contact: door.ContactArgument,
    channel: Channel = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE.json", help="What the shop would send along with it.")
    ] = None,
    campaign: Annotated[
        str | None, typer.Option("--campaign", metavar="NAME", help="With the links as this campaign writes them.")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="Print the HTML part and nothing else.")] = False,
    as_json: door.AsJson = False,
) -> None:
    """Show a template as one contact would get it.  Nothing is sent; that you looked is audited.

    Example: dispatcher template preview christmas 12348 --channel email --html > mail.html
    """
    from dispatcher import audit, previews
    from dispatcher.contacts import find_contact
    from dispatcher.rendering import sender_of

    values = _read_json(data) if data else {}
    with door.transaction() as (runtime, connection):
        on = previews.channel_of(connection, name, channel)
        contact_id = find_contact(connection, runtime.key_ring, contact)
        envelope = previews.preview(connection, sender_of(runtime), on, name, contact_id, values, campaign=campaign)
        audit.record(connection, door.actor(), "template.preview", f"{on}/{name}", {"contact": envelope.contact})
    _print_envelope(envelope, html=html, as_json=as_json)


def _print_envelope(envelope: Envelope, *, html: bool, as_json: bool) -> None:
    content = envelope.content
    if as_json:
        door.print_json(
            {
                "contact": envelope.contact,
                "locale": content.locale,
                "subject": content.subject,
                "preheader": content.preheader,
                "headers": [list(pair) for pair in envelope.headers],
                "text": content.text,
                "html": content.html,
            }
        )
    elif html:
        print(content.html or content.text)
    else:
        for name, value in (("Subject", content.subject), ("Preheader", content.preheader), *envelope.headers):
            if value:
                print(f"{name}: {value}")
        print(f"\n{content.text}" if envelope.headers or content.subject else content.text)


def send(
    name: Name,
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="An address of your own.")],
    channel: Channel = None,
) -> None:
    """Send a test message through the real provider, filled with sample data, to an address of your own.

    Example: dispatcher template send christmas --channel email --to me@shop.example
    """
    from dispatcher import previews, testmail

    with door.open_engine() as runtime:
        with runtime.database.begin() as connection:
            on = previews.channel_of(connection, name, channel)
        reference = testmail.send(runtime, on, name, to, by=door.actor())
    door.say(f"sent{f', the provider calls it {reference}' if reference else ''}")


def _read_json(path: Path) -> dict[str, Any]:
    import orjson

    from dispatcher.errors import Refused

    try:
        values = orjson.loads(path.read_bytes())
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise Refused(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise Refused(f"{path} must hold one JSON object")
    return values
