"""run list, show, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dispatcher.cli import door

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, the beginning of one, or latest.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="What became of each execution of a campaign or trigger.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("export")(export)
    app.add_typer(group, name="run")


def list_(
    campaign: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this campaign.")] = None,
    most: Annotated[int, typer.Option("--limit", min=1, help="How many at most, newest first.")] = 50,
    as_json: door.AsJson = False,
) -> None:
    """List the newest runs.

    Example: dispatcher run list --campaign christmas
    """
    from dispatcher import reports

    with door.transaction() as (_, connection):
        runs = reports.list_runs(connection, campaign=campaign, most=most)
    if as_json:
        door.print_json(runs)
        return
    columns = ("run", "campaign", "channel", "state", "audience", "sent", "created_at")
    door.print_table(columns, [[run[column] for column in columns] for run in runs], numbers=("audience", "sent"))


def show(run: Run, as_json: door.AsJson = False) -> None:
    """Show a run as a funnel: its audience, then every reason somebody was left out, then what was sent.

    Example: dispatcher run show latest
    """
    from dispatcher import reports

    with door.transaction() as (_, connection):
        report = reports.run_report(connection, reports.find_run(connection, run))
    if as_json:
        door.print_json(report)
        return
    print_funnel(report)


def print_funnel(report: dict[str, Any]) -> None:
    """Print a run's funnel; its lines after the first add up to the first."""
    from dispatcher import reports

    print(f"{report['campaign']}  {report['state']}  run {report['run']}")
    lines = [(line.label, line.status, line.count) for line in reports.funnel(report)]
    door.print_table(("", "status", "messages"), lines, numbers=("messages",))
    for line in _remarks(report):
        print(line)
    if report["clicks"]:
        clicked = [
            (each["link"] or "links of each reader's own", each["people"], each["bots"]) for each in report["clicks"]
        ]
        door.print_table(("clicked", "by people", "only by bots"), clicked, numbers=("by people", "only by bots"))


def _remarks(report: dict[str, Any]) -> list[str]:
    """Return what the funnel does not say: reports beside the status, doubt, the brake."""
    from dispatcher.brake import explain_brake

    lines = []
    if report["feedback"]:
        lines.append("reported: " + ", ".join(f"{count:,} {kind}" for kind, count in report["feedback"].items()))
    doubt = report["unknown"]
    if doubt["open"] or doubt["for_good"] or doubt["sent_again"]:
        lines.append(
            f"in doubt: {doubt['open']:,} that evidence may settle, {doubt['for_good']:,} for good; "
            f"sent a second time because of it: {doubt['sent_again']:,}"
        )
    if report["brake"]:
        lines.append(explain_brake(report["brake"]))
    return lines


def export(
    run: Run,
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Write there instead of stdout.")] = None,
) -> None:
    """Write one CSV row for every contact in the audience: status, reason, instants (UTC), address hash.

    A text cell that a spreadsheet would take for a formula gets a quote in front.

    Example: dispatcher run export latest --to run.csv
    """
    import csv
    import sys

    from dispatcher import reports
    from dispatcher.errors import Refused

    with door.transaction() as (_, connection):
        rows = reports.export_run(connection, reports.find_run(connection, run))
        if to is None:
            csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
            return
        try:
            with to.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
        except OSError as error:
            raise Refused(f"{to} cannot be written: {error.strerror}") from error
    door.say(f"written to {to}")
