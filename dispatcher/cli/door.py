"""What every command shares: how it opens the engine, what it prints where, and how it ends.

Results go to stdout; progress, questions and hints go to stderr, so that a result can always be piped.  This module is
imported by `dispatcher --help`: whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from sqlalchemy import Connection, Engine

    from dispatcher.runtime import Runtime
    from dispatcher.settings import Settings

WIDTH_IN_A_PIPE = 120


# --- options that several commands take


def instant(value: str) -> datetime:
    from dispatcher.instants import parse_instant

    try:
        return parse_instant(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
AsOf = Annotated[
    datetime | None,
    typer.Option(
        "--as-of",
        parser=instant,
        metavar="INSTANT",
        help="As seen at this instant, like 2011-12-01T10:00:00Z; else now.",
    ),
]
Rebase = Annotated[
    datetime | None,
    typer.Option(
        parser=instant, metavar="INSTANT", help="Shift all times so that the newest event is at this instant."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ContactArgument = Annotated[str, typer.Argument(metavar="CONTACT", help="An external id, else an e-mail address.")]


# --- opening the engine


@contextmanager
def open_engine(*, needs_broker: bool = False) -> Iterator[Runtime]:
    """Yield the running engine; embedded servers are started if nothing is configured, and said so on stderr."""
    from dispatcher.runtime import open_runtime

    settings = read_settings()
    configure_logging(settings)
    with open_runtime(settings, progress=say, needs_broker=needs_broker) as runtime:
        yield runtime


@contextmanager
def transaction(*, needs_broker: bool = False) -> Iterator[tuple[Runtime, Connection]]:
    """Yield the engine and a connection whose transaction is committed at the end."""
    with open_engine(needs_broker=needs_broker) as runtime, runtime.database.begin() as connection:
        yield runtime, connection


@contextmanager
def open_database() -> Iterator[Engine]:
    """Yield the database as it is, whatever its schema: for `migrate` alone."""
    from dispatcher import embedded
    from dispatcher.db import engine_for
    from dispatcher.embedded.places import make_home
    from dispatcher.runtime import check_database

    settings = read_settings()
    configure_logging(settings)
    if settings.database_url:
        check_database(settings.database_url)
        yield engine_for(settings.database_url)
        return
    make_home(settings.home)
    with embedded.servers(settings.home, progress=say, broker=False) as running:
        yield engine_for(running.database_url)


def read_settings() -> Settings:
    from dispatcher.settings import load_settings

    return load_settings()


def configure_logging(settings: Settings) -> None:
    """Send log events to stderr; a command shows warnings only, unless DISPATCHER_LOG_LEVEL says otherwise."""
    from dispatcher import logs

    logs.configure(settings.log_level if "DISPATCHER_LOG_LEVEL" in os.environ else "warning")


def actor() -> str:
    """Return who is at the keyboard, as the audit names them."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # no such user in this container
        return f"cli:{os.getuid()}"


# --- printing


def say(line: str) -> None:
    """Tell the human something that is not a result."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS  # keys may be members of our enumerations
    options |= orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
    sys.stdout.write(orjson.dumps(value, default=_as_json, option=options).decode() + "\n")


def write_privately(path: Path, content: str) -> None:
    """Write a file that only its owner can read; Refused if it cannot be written."""
    from dispatcher.errors import Refused

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)


def _as_json(value: Any) -> Any:
    from dispatcher.instants import show_instant

    if isinstance(value, datetime):
        return show_instant(value)
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Set):
        return sorted(value)
    return str(value)


def shown(value: object) -> str:
    """Return a value as a human reads it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={shown(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list | tuple | Set):
        return "; ".join(map(shown, value)) or "none"
    return str(value)


def console(*, errors: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if errors else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else WIDTH_IN_A_PIPE, highlight=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table; columns named in `numbers` stand to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    console().print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else shown(value)


def ask(question: str) -> None:
    """Ask on stderr; leave with exit code 1 unless the answer is yes.  Without a terminal, say how to do without."""
    from dispatcher.errors import Refused

    if not sys.stdin.isatty():
        raise Refused(f"{question} Nobody is at a terminal to answer; say --yes")
    if not typer.confirm(question, err=True):
        say("nothing was done")
        raise typer.Exit(1)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that takes (done, whole) and moves a bar on stderr; silent where stderr is no terminal."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(errors=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)


# --- rooms


def finish(code: int) -> None:
    """Leave with the exit code of what ran, unless it is 0."""
    if code:
        raise typer.Exit(code)


def become(*arguments: str) -> NoReturn:
    """Become another room: this process goes on as `python -m ...`, with the same id, so signals reach it."""
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: the folder we stand in (a workspace has a folder `segments`) must not hide our own packages
    os.execv(sys.executable, [sys.executable, "-P", "-m", *arguments])  # noqa: S606 - no shell wanted
