"""Real servers for the tests: embedded PostgreSQL and Valkey, or DISPATCHER_TEST_DATABASE_URL and _BROKER_URL."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import databases
import hypothesis
import pytest
import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL

from dispatcher.db import engine_for
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing, open_key_ring
from dispatcher.room_guard import is_running

# `make test` tries the same examples every time; `make check` looks for new ones, and for five times as many.
hypothesis.settings.register_profile("test", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.register_profile("check", deadline=None, max_examples=300, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))

_ROOM_BYTES = 4_000_000_000

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_finish() -> None:
    """What is loaded by now stays until the end: the collector of garbage need not walk through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _the_home_of_this_folder_is_not_touched() -> Iterator[None]:
    """A test that forgets its own HOME would stand in the way of the next `make demo`."""
    home = Path(__file__).resolve().parents[1] / ".dispatcher"
    was_there = home.exists()
    yield
    assert was_there or not home.exists(), f"a test has made {home}"


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Undo `logs.configure`: what one test set up must not swallow what the next one looks for."""
    yield
    structlog.reset_defaults()
    root = logging.getLogger()
    root.handlers[:] = [h for h in root.handlers if not isinstance(h.formatter, structlog.stdlib.ProcessorFormatter)]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=False)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The addresses of a real PostgreSQL and a real Valkey, for this session of tests."""
    database_url, broker_url = (os.environ.get(f"DISPATCHER_TEST_{kind}_URL") for kind in ("DATABASE", "BROKER"))
    if database_url and broker_url:
        yield database_url, broker_url
        return
    from dispatcher import embedded

    home = _home_in_memory() or tmp_path_factory.mktemp("servers")
    with embedded.servers(home) as running:
        _forget_the_disk(running.database_url)
        yield database_url or running.database_url, broker_url or running.broker_url
    _remove(home)


def _home_in_memory() -> Path | None:
    """Return a new folder in memory, where a database is made in a tenth of the time; None where there is no room.

    What a killed run of the tests left there is cleared away first.
    """
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < _ROOM_BYTES:
        return None
    for left in memory.glob(f"dispatcher-tests-{os.geteuid()}-*"):
        if not is_running(int(left.name.rpartition("-")[2])):
            _remove(left)
    home = memory / f"dispatcher-tests-{os.geteuid()}-{os.getpid()}"
    home.mkdir(mode=0o711)  # as root the server's own user passes through
    return home


def _remove(home: Path) -> None:
    from dispatcher import embedded

    with contextlib.suppress(Refused):  # another run of the tests is clearing it away as well
        embedded.remove(home)  # as root the data may not be under `home`
        shutil.rmtree(home, ignore_errors=True)


def _forget_the_disk(database_url: str) -> None:
    """Let this server leave writing to the system, and what a test leaves as it lies: rows in the order they came.

    What only a disk can show (recovery after a kill) is tested on servers of its own.
    """
    with engine_for(database_url).execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for setting in ("fsync", "full_page_writes", "autovacuum"):
            connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))


@pytest.fixture(scope="session")
def template_database(servers: tuple[str, str]) -> Iterator[URL]:
    """A migrated, empty database to copy."""
    with databases.template(servers[0]) as url:
        yield url


@pytest.fixture(scope="session")
def _lent(template_database: URL, servers: tuple[str, str]) -> Iterator[databases.Lent]:
    lent = databases.Lent(servers[0], template_database)
    yield lent
    lent.drop()


@pytest.fixture
def database_url(_lent: databases.Lent) -> Iterator[str]:
    """A database that is this test's alone, with the schema and nothing else."""
    yield _lent.take()
    _lent.give_back()


@pytest.fixture
def broker_url(servers: tuple[str, str]) -> str:
    return servers[1]


@pytest.fixture
def database(database_url: str) -> Engine:
    return engine_for(database_url)


@pytest.fixture
def connection(database: Engine) -> Iterator[Connection]:
    """A connection with an open transaction; what a test does not commit is gone with its database anyway."""
    with database.connect() as connection:
        yield connection


@pytest.fixture
def key_ring(database: Engine, tmp_path: Path) -> KeyRing:
    with database.begin() as connection:
        return open_key_ring(connection, tmp_path / "home", None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data, where it is present."""
    if not SHARED.is_dir():
        pytest.skip("the reference data is not on this machine (it is in CI)")
    return SHARED
