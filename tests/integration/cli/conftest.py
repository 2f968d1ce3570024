"""The settings of the commands, a runner, and a small shop for them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from people import add_person
from running import Ended, Run
from small_workspace import write_workspace
from sqlalchemy import Engine

from dispatcher import cli
from dispatcher.keys import KeyRing


@pytest.fixture
def environment(
    database_url: str, tmp_path: Path, key_ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """The settings of these commands: this test's database and home, in a workspace folder of its own."""
    for name in [name for name in os.environ if name.startswith("DISPATCHER_")]:
        monkeypatch.delenv(name)
    settings = {
        "DISPATCHER_DATABASE_URL": database_url,
        "DISPATCHER_BROKER_URL": "redis://127.0.0.1:1",  # nobody is there: no command here needs it
        "DISPATCHER_HOME": str(tmp_path / "home"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(write_workspace(tmp_path / "workspace"))
    handlers = list(logging.getLogger().handlers)
    yield settings
    logging.captureWarnings(capture=False)
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def run(environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command in this process; what it raises would be a traceback for the user."""

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        code = cli.run(list(arguments))
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def shop(run: Run, database: Engine, key_ring: KeyRing) -> Run:
    """The small workspace, applied, and three people: one agreed, one did not, one has no address."""
    assert run("apply").code == 0
    with database.begin() as connection:
        add_person(connection, key_ring, "agreed")
        add_person(connection, key_ring, "silent", granted=())
        add_person(connection, key_ring, "mailless", email=None)
    return run
