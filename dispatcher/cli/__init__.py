"""The command line: `dispatcher COMMAND`.  Each group of commands is one small module, each command one thin call.

Exit codes: 0 done, 1 refused or failed (one clear line on stderr), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import NoReturn

import typer
from typer.models import CommandInfo, TyperInfo

from dispatcher.cli import (
    audits,
    campaigns,
    consents,
    contacts,
    data_rights,
    explanations,
    imports,
    inbox,
    keys,
    operations,
    rates,
    reviews,
    rooms,
    runs,
    segments,
    storefronts,
    suppressions,
    templates,
    triggers,
    workspaces,
)
from dispatcher.errors import DispatcherError

#: The root of everything typer raises for wrong usage (it keeps the class itself to itself).
UsageError: type[typer.BadParameter] = typer.BadParameter.__bases__[0]

INTERRUPTED = 130

app = typer.Typer(
    name="dispatcher",
    help="A marketing dispatch engine that asks before it speaks.\n\n"
    "Every command explains itself: dispatcher campaign start --help.\n\nExample: dispatcher demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # fills lines to the terminal's width, and takes no [table] for markup
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
#: What `dispatcher --help` shows under which heading, in this order.
HEADINGS = (
    ("To begin", (workspaces, imports)),
    ("Running it", (rooms, operations, rates)),
    ("What is sent", (segments, templates, campaigns, triggers, runs, explanations)),
    ("People", (contacts, consents, suppressions, reviews, data_rights, audits)),
    ("The shop's programs", (keys, storefronts, inbox)),
)
for heading, groups in HEADINGS:
    for group in groups:
        group.add_to(app)
    added: list[CommandInfo | TyperInfo] = [*app.registered_commands, *app.registered_groups]
    for one in added:
        if not isinstance(one.rich_help_panel, str):
            one.rich_help_panel = heading


def main() -> NoReturn:
    """Run one command and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; return its exit code.  Whatever goes wrong, the user reads one line and never a traceback."""
    try:
        "".join(arguments).encode()
    except UnicodeEncodeError:
        print("an argument is not UTF-8; nothing was done", file=sys.stderr)
        return 2
    try:
        code = app(arguments, prog_name="dispatcher", standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        error.show()
        return 2
    except DispatcherError as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            return _unexpected(error)
        print(f"cannot write: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer goes nowhere
        return 1
    except Exception as error:  # the last net: one line for the user, the details in a file
        return _unexpected(error)
    if code == INTERRUPTED:  # typer turns a Ctrl-C into this code itself
        print("interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _unexpected(error: Exception) -> int:
    if os.environ.get("DISPATCHER_LOG_LEVEL") == "debug":
        traceback.print_exception(error)
        return 1
    kind = type(error).__name__
    try:
        print(f"unexpected {kind}; the details are in {_keep(error)}", file=sys.stderr)
    except (OSError, DispatcherError):
        print(f"unexpected {kind}; run again with DISPATCHER_LOG_LEVEL=debug for the details", file=sys.stderr)
    return 1


def _keep(error: Exception) -> str:
    """Append the traceback to HOME/logs/cli.log, readable by its owner only; return where that is."""
    from datetime import UTC, datetime

    from dispatcher.cli.door import read_settings
    from dispatcher.logs import masked

    path = read_settings().home / "logs" / "cli.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
        file.write(f"--- {datetime.now(UTC).isoformat()} dispatcher {sys.argv[1] if len(sys.argv) > 1 else ''}\n")
        file.write(masked("".join(traceback.format_exception(error))))
    return str(path)
