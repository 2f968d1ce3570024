"""Rooms that run: each a process of its own, watched by one thread, restarted when it dies, ended with us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from pydantic import SecretStr

from dispatcher import embedded
from dispatcher.embedded.places import make_home
from dispatcher.embedded.process import rotate
from dispatcher.errors import DispatcherError
from dispatcher.room_guard import PATIENCE_SECONDS, signal_group
from dispatcher.settings import Settings

_TICK_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0
_LIVED_LONG_SECONDS = 10.0
_LOOK_AT_SERVERS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Room:
    """A process to keep running."""

    name: str
    argv: Sequence[str]
    registers: bool = False  # once at work it has a row in the table of workers


@dataclass(slots=True)
class _Life:
    """One room's processes, one after the other."""

    room: Room
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0  # not before
    failures: int = 0  # in a row; a long life makes them forgotten
    deaths: int = 0


def pause_seconds(failures: int) -> float:
    """Return how long to wait before the next start, after so many failures in a row."""
    return min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** max(0, failures - 1))


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment in which another process reads exactly these settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    environment["PYTHONUNBUFFERED"] = "1"
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if isinstance(value, list | tuple | dict):
            value = orjson.dumps(value).decode()
        if value is not None:
            environment[f"DISPATCHER_{name.upper()}"] = str(value)
    return environment


@dataclass(slots=True)
class House:
    """The rooms of one HOME while they run."""

    settings: Settings
    rooms: Sequence[Room]
    say: Callable[[str], None]
    logs: Path = field(init=False)
    _lives: dict[str, _Life] = field(init=False)
    _guard: subprocess.Popen[bytes] | None = None
    _watch: threading.Thread | None = None
    _closing: threading.Event = field(default_factory=threading.Event)
    _servers: dict[str, bool] = field(default_factory=dict)  # which embedded ones ran when we opened
    _servers_looked_at: float = 0.0

    def __post_init__(self) -> None:
        self.logs = self.settings.home / "logs"
        self._lives = {room.name: _Life(room, self.logs / f"{room.name}.log") for room in self.rooms}

    def open(self) -> None:
        """Start the guard, then the rooms, then watch over them."""
        make_home(self.settings.home)
        self.logs.mkdir(mode=0o700, exist_ok=True)
        for life in self._lives.values():
            rotate(life.log)
        self._servers = self._embedded_in_use()
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "dispatcher.room_guard", str(self.settings.home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._watch = threading.Thread(target=self._watch_over, name="rooms", daemon=True)
        self._watch.start()

    def close(self) -> None:
        """End every room and the guard; nothing of them runs any more."""
        self._closing.set()
        if self._watch is not None:
            self._watch.join()
        running = [life.process for life in self._lives.values() if life.process is not None]
        if running:
            self.say("stopping the rooms")
        for process in running:
            signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_SECONDS
        for process in running:
            self._end(process, deadline)
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()

    def _end(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.say(f"process {process.pid} does not end when asked; it is killed")
        signal_group(process.pid, signal.SIGKILL)  # what it started goes with it
        process.wait()
        self._tell_guard("-", process.pid)

    def pids(self) -> dict[str, int]:
        """Return the process of each room that runs now."""
        return {
            name: life.process.pid
            for name, life in self._lives.items()
            if life.process is not None and life.process.returncode is None
        }

    def deaths(self) -> dict[str, int]:
        """Return how often each room has died."""
        return {name: life.deaths for name, life in self._lives.items()}

    def log_of(self, name: str) -> Path:
        return self._lives[name].log

    def last_words(self, name: str) -> str:
        """Return the last line of a room's log."""
        log = self._lives[name].log
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

    def _watch_over(self) -> None:
        while not self._closing.is_set():
            for life in self._lives.values():
                self._look_after(life, time.monotonic())
            self._look_after_servers(time.monotonic())
            self._closing.wait(_TICK_SECONDS)

    def _look_after(self, life: _Life, now: float) -> None:
        if life.process is None:
            if now >= life.start_at:
                self._start(life, now)
            return
        code = life.process.poll()
        if code is None:
            return
        signal_group(life.process.pid, signal.SIGKILL)  # what it started does not outlive it
        self._tell_guard("-", life.process.pid)
        self._put_off(life, now, f"{life.room.name} died ({_how(code)})")

    def _start(self, life: _Life, now: float) -> None:
        try:
            with life.log.open("ab") as log:
                life.log.chmod(0o600)
                life.process = subprocess.Popen(
                    life.room.argv,
                    env=environment_of(self.settings),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the supervisor, which ends the rooms in order
                )
        except OSError as error:
            self._put_off(life, now, f"{life.room.name} cannot be started ({error.strerror})")
            return
        self._tell_guard("+", life.process.pid)
        life.started_at = now
        self.say(f"{life.room.name} {'started again' if life.deaths else 'started'} (pid {life.process.pid})")

    def _put_off(self, life: _Life, now: float, what: str) -> None:
        lived_long = life.process is not None and now - life.started_at >= _LIVED_LONG_SECONDS
        life.failures = 1 if lived_long else life.failures + 1
        life.deaths += 1
        life.process = None
        pause = pause_seconds(life.failures)
        life.start_at = now + pause
        self.say(f"{what}; it is started again in {pause:g} s")

    def _embedded_in_use(self) -> dict[str, bool]:
        wanted = {"database": not self.settings.database_url, "broker": not self.settings.broker_url}
        in_use = any(wanted.values()) and embedded.are_alive(self.settings.home, **wanted)
        return wanted if in_use else {}

    def _look_after_servers(self, now: float) -> None:
        """Start an embedded server again that was killed; the rooms find their way back to it."""
        if not self._servers or now - self._servers_looked_at < _LOOK_AT_SERVERS_SECONDS:
            return
        home = self.settings.home
        try:
            if not embedded.are_alive(home, **self._servers):
                self.say("an embedded server died; it is started again")
                embedded.revive(home, progress=self.say, **self._servers)
        except (DispatcherError, OSError) as error:
            self.say(str(error))
        self._servers_looked_at = time.monotonic()

    def _tell_guard(self, sign: str, pid: int) -> None:
        if self._guard is None or self._guard.stdin is None:
            return
        try:
            self._guard.stdin.write(f"{sign}{pid}\n".encode())
            self._guard.stdin.flush()
        except BrokenPipeError:  # somebody killed the guard: the rooms still end with us, unless we are killed too
            self._guard.stdin = None


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
