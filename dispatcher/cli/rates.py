"""rate list: how fast everything may go now, and what keeps it back."""

from __future__ import annotations

from typing import Any

import typer

from dispatcher.cli import door


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="How fast everything may go: rates, circuits, warm-up.", no_args_is_help=True)
    group.command("list")(list_rates)
    app.add_typer(group, name="rate")


def list_rates(as_json: door.AsJson = False) -> None:
    """Show every lane, account and domain with its rate, what is in force of it now, and its circuit.

    Example: dispatcher rate list
    """
    from dispatcher.rates import overview

    with door.transaction() as (_, connection):
        found = overview.read(connection)
    if as_json:
        door.print_json(found)
        return
    rows: list[tuple[Any, ...]] = []
    for lane in found["lanes"]:
        state = f"rests until {door.shown(lane['rests_until'])}" if lane["rests_until"] else ""
        unit = "mails" if lane["name"].startswith("email.") else "parts"
        rows.append(("lane", lane["name"], _rate(lane["rate"], unit), "", state or " then ".join(lane["accounts"])))
    for account in found["accounts"]:
        rows.append(
            (
                "account",
                account["name"],
                _rate(account["rate"], account["unit"]),
                _rate(account["in_force"], account["unit"]) if account["in_force"] != account["rate"] else "",
                _circuit(account),
            )
        )
    for domain in found["domains"]:
        rows.append(("domain", domain["name"], _rate(domain["rate"], "mails"), "", ""))
    if warm_up := found["warm_up"]:
        allowed = "no limit any more" if warm_up["allowance"] is None else f"{warm_up['allowance']:,}"
        state = f"{warm_up['authorised']:,} of {allowed} on {warm_up['day']}, warm on {warm_up['ends_on']}"
        rows.append(("warm-up", warm_up["sender"], "", "", state))
    door.print_table(("", "name", "rate", "in force", "state"), rows)


def _rate(per_second: float | None, unit: str) -> str:
    return "as it goes" if per_second is None else f"{per_second:.4g} {unit}/s"


def _circuit(account: dict[str, Any]) -> str:
    if account["circuit"] == "closed":
        return "closed" if not account["failures"] else f"closed, {account['failures']} failures in a row"
    until = f" until {door.shown(account['open_until'])}" if account["circuit"] == "open" else ": a probe is under way"
    return f"{account['circuit'].replace('_', '-')}{until} ({account['because']})"
