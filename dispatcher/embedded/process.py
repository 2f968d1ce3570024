"""One server's life: started detached, waited for, adopted, stopped.

The server inherits the descriptor of its lock file and holds that lock until its last process is gone.  So "does it
live?" is never a guess from a pid, which another process may have by now.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from dispatcher.embedded import locks
from dispatcher.errors import Refused

START_SECONDS = 60.0  # the recovery after a crash may take long
_POLL_SECONDS = 0.02
_LOGS_KEPT = 3  # the one written and two old ones
_LONG_LOG_BYTES = 1_000_000  # every command may start the servers: their log is put aside by size

Progress = Callable[[str], None]

#: Our children, kept so that a server we started is not collected (and complained about) while it runs.
_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class Identity:
    """The unprivileged user a server runs as when we are root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Command:
    argv: Sequence[str | Path]
    folder: Path
    identity: Identity | None = None  # None: ourselves


class Server(Protocol):
    """What postgres.py and valkey.py tell about their server."""

    name: str
    log: Path

    @property
    def stop_signals(self) -> Sequence[tuple[signal.Signals, float]]: ...  # gentle first, each with its patience
    @property
    def lock(self) -> Path: ...
    @property
    def folder(self) -> Path: ...  # its working folder, once it runs
    def make_room(self) -> None: ...  # the folder of lock and data
    def prepare(self, lock: int, progress: Progress) -> None: ...  # nothing of it lives; make what it needs
    def command(self) -> Command: ...
    def answers(self) -> bool: ...
    def after_start(self) -> None: ...
    def pid(self) -> int | None: ...


def ensure(server: Server, progress: Progress) -> None:
    """Return when the server answers: started by us, or adopted if one of ours still runs.  Holds the start lock."""
    server.make_room()
    deadline = time.monotonic() + START_SECONDS
    child: subprocess.Popen[bytes] | None = None
    while child is None or child.poll() is None:
        if child is None:
            child = _start_if_dead(server, progress)
            if child is not None:
                deadline = time.monotonic() + START_SECONDS  # what was made before took its own time
        if server.answers():
            server.after_start()
            return
        if time.monotonic() > deadline:
            raise Refused(_silent(server))
        time.sleep(_POLL_SECONDS)
    raise Refused(f"{server.name} did not start: {_last_line(server.log)} (more in {server.log})")


def _start_if_dead(server: Server, progress: Progress) -> subprocess.Popen[bytes] | None:
    lock = locks.open_lock(server.lock)
    try:
        if not locks.try_exclusive(lock):
            return None
        server.prepare(lock, progress)
        progress(f"starting {server.name}")
        return _start(server, lock)
    finally:
        os.close(lock)


def _start(server: Server, lock: int) -> subprocess.Popen[bytes]:
    rotate(server.log, over_bytes=_LONG_LOG_BYTES)
    with server.log.open("ab") as log:
        server.log.chmod(0o600)
        child = _spawn(server.command(), lock=lock, output=log, what=server.name)
    _started[:] = [known for known in _started if known.poll() is None]
    _started.append(child)
    return child


def run(command: Command, *, lock: int, what: str) -> None:
    """Run a command that ends by itself, holding the server's lock; Refused with its last words if it fails."""
    with _spawn(command, lock=lock, output=subprocess.PIPE, what=what) as child:
        output, _ = child.communicate()
    if child.returncode != 0:
        words = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
        raise Refused(f"{what} failed: {'; '.join(words[-3:]) or f'exit code {child.returncode}'}")


def _spawn(command: Command, *, lock: int, output: IO[bytes] | int, what: str) -> subprocess.Popen[bytes]:
    """Start it in a session of its own (Ctrl-C in our terminal is not for it), with nothing of our environment."""
    identity = command.identity
    try:
        return subprocess.Popen(
            [os.fspath(part) for part in command.argv],
            cwd=command.folder,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock,),
            user=identity.uid if identity else None,
            group=identity.gid if identity else None,
            extra_groups=[] if identity else None,
        )
    except OSError as error:
        as_whom = f" as user {identity.name}" if identity else ""
        raise Refused(f"{what} cannot be started{as_whom}: {error.strerror}") from error


def read_pid(path: Path) -> int | None:
    """Return the number a pid file begins with, or None if there is none (yet)."""
    try:
        return int(path.read_text(encoding="utf-8").split()[0])
    except (OSError, ValueError, IndexError):
        return None


def stop(server: Server) -> None:
    """Return when nothing of the server lives any more.  Holds the start lock."""
    for how, patience_seconds in server.stop_signals:
        signalled = False
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            if not locks.is_held(server.lock):
                _reap()
                return
            pid = server.pid()
            if not signalled and pid is not None and _works_in(pid, server.folder):
                signalled = True
                _signal(pid, how)
            time.sleep(_POLL_SECONDS)
    raise Refused(f"{server.name} (pid {server.pid()}) does not stop; it keeps {server.folder}")


def _reap() -> None:
    for child in list(_started):
        if child.poll() is not None:
            _started.remove(child)


def _signal(pid: int, how: signal.Signals) -> None:
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        pass  # it was quicker
    except PermissionError as error:
        raise Refused(f"process {pid} belongs to another user and cannot be stopped from here") from error


def _works_in(pid: int, folder: Path) -> bool:
    """Return whether the process works in that folder; where that cannot be seen, the pid file is believed."""
    if not Path("/proc/self/cwd").exists():
        return True
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True) == folder.resolve()
    except OSError:
        return False


def _silent(server: Server) -> str:
    pid = server.pid()
    if pid is None:
        return f"{server.name} does not answer after {START_SECONDS:.0f} s; see {server.log}"
    return (
        f"{server.name} (pid {pid}) keeps {server.folder} but does not answer here after {START_SECONDS:.0f} s: "
        f"stop it with `kill {pid}`, or use another DISPATCHER_HOME"
    )


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def rotate(log: Path, *, over_bytes: int = 0) -> None:
    """Put the log aside once it has more than `over_bytes`; LOG.1 is the newest of the old ones."""
    if not log.exists() or log.stat().st_size <= over_bytes:
        return
    for number in range(_LOGS_KEPT - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        newer = log.with_name(f"{log.name}.{number - 1}") if number > 1 else log
        if newer.exists():
            newer.replace(older)
