"""The supervisor with real processes: nothing stays dead, nothing stays behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from dispatcher import embedded, room_guard, rooms
from dispatcher.errors import Refused
from dispatcher.registration import register, unregister
from dispatcher.room_guard import is_running
from dispatcher.settings import Settings, load_settings
from dispatcher.up import Room, require_free_port, rooms_running, wait_until_ready

REPOSITORY = Path(__file__).parents[2]
SLEEPER = ["sleep", "600"]
PARENT = ["sh", "-c", "sleep 600 & echo child $!; wait"]
DEAF = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf'); time.sleep(600)"]

SUPERVISOR = """
import sys
from pathlib import Path
from dispatcher import embedded
from dispatcher.settings import load_settings
from dispatcher.up import Room, rooms_running
settings = load_settings(home=Path(sys.argv[1]))
with embedded.servers(settings.home), rooms_running(settings, [Room("sleeper", ["sleep", "600"])]) as house:
    while not house.pids():
        pass
    print(house.pids()["sleeper"], flush=True)
    sys.stdin.read()
"""

COMMAND = """
import signal, sys
from pathlib import Path
from dispatcher.runtime import open_runtime
from dispatcher.settings import load_settings
with open_runtime(load_settings(home=Path(sys.argv[1]), database_url=None, broker_url=None)):
    print("ready", flush=True)
    signal.pause()
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home", database_url="postgresql://unused", broker_url="redis://unused")


def eventually(what: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_killed_room_is_started_again_and_all_end_at_the_end(settings: Settings) -> None:
    said: list[str] = []
    with rooms_running(settings, [Room("a", SLEEPER), Room("b", SLEEPER)], say=said.append) as house:
        eventually(lambda: len(house.pids()) == 2)
        before = house.pids()
        os.kill(before["a"], signal.SIGKILL)
        eventually(lambda: house.pids().get("a", before["a"]) != before["a"])
        after = house.pids()

        assert after["b"] == before["b"]
        assert house.deaths() == {"a": 1, "b": 0}
    assert not any(map(is_running, (*before.values(), *after.values())))
    assert "a died (SIGKILL); it is started again in 0.5 s" in said


def test_what_a_room_started_goes_with_it(settings: Settings) -> None:
    with rooms_running(settings, [Room("parent", PARENT)]) as house:
        eventually(lambda: "child" in house.last_words("parent"))
        child = int(house.last_words("parent").split()[1])
        assert is_running(child)
    assert not is_running(child)


def test_a_room_that_does_not_listen_is_killed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "PATIENCE_SECONDS", 0.2)
    with rooms_running(settings, [Room("deaf", DEAF)]) as house:
        eventually(lambda: house.last_words("deaf") == "deaf")
        pids = house.pids()
    assert not is_running(pids["deaf"])


def test_a_room_that_cannot_start_is_named_at_once_with_its_last_words(
    settings: Settings, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "_FIRST_PAUSE_SECONDS", 0.01)
    broken = Room("broken", [sys.executable, "-m", "no_such_room"], registers=True)
    with (
        rooms_running(settings, [broken]) as house,
        pytest.raises(Refused, match=r"broken keeps dying: .*no_such_room"),
    ):
        wait_until_ready(database, house)


def test_a_room_is_ready_once_it_is_at_work_with_a_row_and_a_lock(settings: Settings, database: Engine) -> None:
    with rooms_running(settings, [Room("hand", SLEEPER, registers=True)]) as house:
        with pytest.raises(Refused, match=r"not ready after 0 s: hand; see"):
            wait_until_ready(database, house, timeout_seconds=0.3)
        registration = register(database, settings.home, kind="marketing", queues=[], slots=1)
        with database.begin() as connection:
            connection.execute(text("UPDATE worker SET pid = :pid"), {"pid": house.pids()["hand"]})
        wait_until_ready(database, house, timeout_seconds=10)
        unregister(database, registration)


def test_three_logs_are_kept_for_each_room(settings: Settings) -> None:
    for number in range(5):
        with rooms_running(settings, [Room("talker", ["sh", "-c", f"echo life {number}; sleep 600"])]) as house:
            eventually(lambda: "life" in house.last_words("talker"))
    logs = sorted((settings.home / "logs").glob("talker.log*"))

    assert [log.read_text() for log in logs] == ["life 4\n", "life 3\n", "life 2\n"]


def test_a_taken_port_is_refused_before_anything_starts(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = settings.model_copy(update={"port": taken.getsockname()[1]})
        with pytest.raises(Refused, match="set DISPATCHER_PORT"):
            require_free_port(settings)
    require_free_port(settings)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    embedded.remove(tmp_path / "home")


def test_nothing_is_left_running_when_the_supervisor_is_killed(home: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(home)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=REPOSITORY,
    )  # fmt: skip
    with supervisor:
        assert supervisor.stdout is not None
        room = int(supervisor.stdout.readline())
        assert is_running(room)
        assert embedded.are_alive(home)
        supervisor.kill()
    eventually(lambda: not is_running(room))
    eventually(lambda: not embedded.are_alive(home, broker=False) and not embedded.are_alive(home, database=False))


def test_a_command_told_to_end_stops_the_servers_it_started(home: Path) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(home)], stdout=subprocess.PIPE, cwd=REPOSITORY, text=True
    )
    with ended_at_last(command):
        assert command.stdout is not None
        assert command.stdout.readline() == "ready\n"
        command.terminate()
    assert command.returncode == 128 + signal.SIGTERM
    assert not embedded.are_alive(home, broker=False)
    assert not embedded.are_alive(home, database=False)


def test_a_killed_server_is_started_again_while_rooms_run(home: Path) -> None:
    settings = load_settings(home=home, database_url=None, broker_url=None)
    said: list[str] = []
    with embedded.servers(home), rooms_running(settings, [Room("a", SLEEPER)], say=said.append):
        pid = int((home / "servers/valkey/valkey.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: any("server died" in line for line in said))  # a child of it may outlive it for a moment
        eventually(lambda: embedded.are_alive(home))


def test_the_whole_house_starts_survives_a_killed_hand_and_stops_when_asked(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    environment |= {"DISPATCHER_HOME": str(home), "DISPATCHER_PORT": str(port)}
    up = subprocess.Popen(
        [sys.executable, "-c", "from dispatcher.cli import main; main()", "up", "--workers", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, cwd=REPOSITORY, text=True,
    )  # fmt: skip
    with ended_at_last(up):
        assert up.stdout is not None
        said = list(until(up.stdout, "Ctrl-C"))
        started = dict(re.findall(r"^(\S+) started \(pid (\d+)\)", "".join(said), flags=re.MULTILINE))
        assert set(started) == {"clock", "marketing-1", "transactional", "control", "web"}, "".join(said)
        os.kill(int(started["control"]), signal.SIGKILL)
        *_, again = until(up.stdout, "control started again")
        up.terminate()
        assert up.stdout.read().endswith("stopped\n")
    assert up.returncode == 0
    pids = [int(pid) for pid in (*started.values(), re.findall(r"\d+", again)[0])]
    assert not any(map(is_running, pids))
    assert not embedded.are_alive(home, broker=False)


def until(lines: Iterable[str], mark: str) -> Iterator[str]:
    """Yield the lines up to the one with `mark`."""
    for line in lines:
        yield line
        if mark in line:
            return


@contextmanager
def ended_at_last(process: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever a test finds, its process does not outlive it."""
    with process:
        try:
            yield
            process.wait(60)
        finally:
            process.kill()


def test_the_guard_leaves_rooms_alone_that_ended_before(monkeypatch: pytest.MonkeyPatch) -> None:
    assert room_guard._read_until_the_end([b"+10\n", b"+11\n", b"-10\n"]) == {11}
