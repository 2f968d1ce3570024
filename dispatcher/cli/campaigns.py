"""campaign list, simulate, start, pause, resume, cancel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dispatcher.cli import door

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

Name = Annotated[str, typer.Argument(metavar="NAME", help="A campaign of the applied workspace.")]
NameOrRun = Annotated[str, typer.Argument(metavar="NAME|RUN", help="A campaign (all its open runs), or one run's id.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="What is sent to whom: look, simulate, start, pause, cancel.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("simulate")(simulate)
    group.command("start")(start)
    group.command("pause")(pause)
    group.command("resume")(resume)
    group.command("cancel")(cancel)
    app.add_typer(group, name="campaign")


def list_(as_json: door.AsJson = False) -> None:
    """List the campaigns that are applied, and when each fires next.

    Example: dispatcher campaign list
    """
    from dispatcher import reports

    with door.transaction() as (_, connection):
        campaigns = reports.list_campaigns(connection)
    if as_json:
        door.print_json(campaigns)
        return
    columns = ("campaign", "channel", "segment", "schedule", "next_fire_at", "last_run_at", "last_run_state")
    door.print_table(columns, [[campaign[column] for column in columns] for campaign in campaigns])
    for campaign in campaigns:
        if campaign["not_fired_because"]:
            since = f"{campaign['not_fired_since']:%Y-%m-%d %H:%M} UTC"
            print(f"{campaign['campaign']} is due and cannot be fired since {since}: {campaign['not_fired_because']}")


def simulate(
    name: Name,
    as_of: door.AsOf = None,
    by_hand: Annotated[
        bool, typer.Option("--by-hand", help="As campaign start would do it, also where the schedule is local.")
    ] = False,
    as_json: door.AsJson = False,
) -> None:
    """Ask for everybody in the audience what would happen, and when; nothing is written.

    A campaign that fires where each contact is (local: true) is simulated at its next occurrence, any other as if it
    started now.  --as-of judges at another instant, by what is known today.

    Example: dispatcher campaign simulate christmas
    """
    from dispatcher import db
    from dispatcher.cli.simulations import print_simulation
    from dispatcher.simulate import simulate as simulate_campaign

    with (
        door.open_engine() as runtime,
        db.reading(runtime.database) as connection,
        door.progress_bar("asking every gate") as progress,
    ):
        found = simulate_campaign(connection, name, as_of=as_of, by_hand=by_hand, progress=progress)
    if as_json:
        door.print_json(found.as_json())
    else:
        print_simulation(found)


def start(
    name: Name,
    yes: door.Yes = False,
    again: Annotated[bool, typer.Option("--again", help="Even if it ran within the last 24 hours.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until nothing is pending any more; deferred ones included.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="With --wait: give up after so long, with exit code 1."),
    ] = None,
    even_unfinished: Annotated[
        bool,
        typer.Option("--even-unfinished", help="Even if its lane is too slow to carry everybody in time."),
    ] = False,
) -> None:
    """Start a campaign now, after showing how many people it means; prints the run's id.

    Refused if the rate of its lane cannot carry everybody before expiry and quiet hours; campaign simulate shows it.

    Example: dispatcher campaign start christmas --wait

    In a script: dispatcher campaign start christmas --yes
    """
    from dispatcher import db, runs
    from dispatcher.simulate import refuse_unfinished

    with door.open_engine(needs_broker=wait) as runtime:
        if not even_unfinished:
            with db.reading(runtime.database) as connection, door.progress_bar("asking every gate") as progress:
                refuse_unfinished(connection, name, progress)
        if not yes:
            with runtime.database.begin() as connection:
                question = _question(connection, name)
            door.ask(question)
        with runtime.database.begin() as connection:
            run_id = runs.start(connection, name, started_by=door.actor(), again=again)
        print(run_id, flush=True)
        if wait:
            from dispatcher.cli.waiting import wait_until_done

            wait_until_done(runtime, run_id, timeout)


def _question(connection: Connection, name: str) -> str:
    """Return what to ask before starting: how many people it means, and by which channel."""
    from dispatcher import audience, clock, runs

    _, campaign = runs.load_campaign(connection, name)
    segment = audience.load_segment(connection, campaign.segment)
    people = audience.count(connection, segment, clock.read_now(connection))
    kind = {"email": "an e-mail", "sms": "a text message"}[campaign.channel]
    return f"{name} means {people:,} contacts of {campaign.segment}; those the rules allow get {kind}. Start it?"


def pause(which: NameOrRun) -> None:
    """Let nothing more of a campaign's open runs leave, for now.  What waits goes on ageing until it expires.

    Example: dispatcher campaign pause christmas
    """
    from dispatcher import runs

    _move(which, ("planning", "running"), runs.pause, "paused")


def resume(which: NameOrRun) -> None:
    """Let a campaign's paused runs go on where they stopped.

    Example: dispatcher campaign resume christmas
    """
    from dispatcher import runs

    _move(which, ("paused",), runs.resume, "resumed")


def cancel(which: NameOrRun, yes: door.Yes = False) -> None:
    """Never send what has not left yet, of a campaign's open runs.  It cannot be undone.

    Example: dispatcher campaign cancel christmas --yes
    """
    from dispatcher import runs

    if not yes:
        door.ask(f"what has not left yet of {which} will never be sent. Cancel it?")
    _move(which, ("planning", "running", "paused"), runs.cancel, "cancelled")


def _move(which: str, states: tuple[str, ...], move: Callable[..., None], done: str) -> None:
    with door.transaction() as (_, connection):
        moved = _chosen_runs(connection, which, states)
        for run_id in moved:
            move(connection, run_id, by=door.actor())
    for run_id in moved:
        door.say(f"run {run_id} is {done}")


def _chosen_runs(connection: Connection, which: str, states: tuple[str, ...]) -> list[UUID]:
    """Return the runs that `which` names: those of a campaign in one of these states, or the one with that id."""
    from sqlalchemy import text

    from dispatcher import reports
    from dispatcher.errors import NotFound, Refused

    known: Any = connection.scalar(text("SELECT id FROM campaign WHERE name = :name"), {"name": which})
    if known is None:
        try:
            return [reports.find_run(connection, which)]
        except NotFound:
            raise NotFound(f"there is no campaign or run {which}; see: dispatcher campaign list") from None
    found = connection.scalars(
        text("SELECT id FROM run WHERE campaign_id = :id AND state = ANY(:states) ORDER BY created_at, id"),
        {"id": known, "states": list(states)},
    ).all()
    if not found:
        raise Refused(f"campaign {which} has no run that is {' or '.join(states)}; see: dispatcher run list")
    return list(found)
