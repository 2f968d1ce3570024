"""The rooms as processes: up, serve, worker, schedule."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dispatcher.cli import door


def add_to(app: typer.Typer) -> None:
    app.command("up")(up)
    app.command("serve")(serve)
    app.command("worker")(worker)
    app.command("schedule")(schedule)


def up(
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many processes send marketing messages.")] = 2,
) -> None:
    """Run everything in one terminal: servers, clock, workers, web.  Ctrl-C stops it all.

    Example: dispatcher up --workers 4
    """
    from dispatcher.up import run_up

    door.finish(run_up(door.read_settings(), workers=workers, say=door.say))


def serve() -> None:
    """Run the web room alone: people's pages, webhooks, the API, health.

    DISPATCHER_HOST and DISPATCHER_PORT say where it listens.

    Example: DISPATCHER_PORT=8080 dispatcher serve
    """
    door.become("dispatcher.web")


class Group(StrEnum):
    """What a worker process works for."""

    MARKETING = "marketing"
    TRANSACTIONAL = "transactional"
    CONTROL = "control"


def worker(
    group: Annotated[Group, typer.Argument(metavar="GROUP", help="What it works for.")] = Group.MARKETING,
) -> None:
    """Run one worker process, for marketing, transactional or control.

    The first two send.  control does everything else: it plans, releases, rescues, sorts feedback, erases, sweeps.

    Example: dispatcher worker transactional
    """
    door.become("workers", group.value)


def schedule() -> None:
    """Run the clock: it wakes the workers when something is due.

    Several may run; each thing happens once.

    Example: dispatcher schedule
    """
    door.become("scheduler")
