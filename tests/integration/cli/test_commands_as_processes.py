"""Commands as processes of their own: at once, into a pipe that closes, and interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from running import Run
from sqlalchemy import Engine, TextClause, text


def process(environment: dict[str, str], *arguments: str, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from dispatcher.cli import main; main()", *arguments]
    return subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def test_help_is_there_at_once() -> None:
    began = time.monotonic()
    imports = """import sys, dispatcher.cli
dispatcher.cli.run(["--help"])
print([name for name in ("sqlalchemy", "pydantic", "fastapi") if name in sys.modules])"""
    shown = subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, check=True)

    assert shown.stdout.rstrip().endswith("[]"), "help imports what only commands need"
    assert time.monotonic() - began < 10


def test_whoever_reads_only_the_beginning_leaves_no_traceback(shop: Run, environment: dict[str, str]) -> None:
    shop("campaign", "start", "hello", "--yes")
    running = process(environment, "run", "export", "latest")
    assert running.stdout is not None
    running.stdout.close()

    _, err = running.communicate(timeout=30)

    assert err == ""


def _holds(database: Engine, question: TextClause) -> bool:
    with database.connect() as connection:  # each transaction sees the activity as it was when it first looked
        return bool(connection.scalar(question))


def test_an_interrupt_ends_with_130(shop: Run, environment: dict[str, str], database: Engine) -> None:
    with database.begin() as connection:  # the command waits for this lock
        connection.execute(text("LOCK TABLE run"))
        running = process(environment, "run", "list")
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        deadline = time.monotonic() + 30
        while not _holds(database, waiting):
            assert time.monotonic() < deadline, "the command did not get as far as the lock"
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)

    assert running.returncode == 130
    assert err == "interrupted\n"
