"""Everything in one terminal: the servers, and every room as a process of its own, restarted when it dies."""

from __future__ import annotations

import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from dispatcher.embedded import locks
from dispatcher.embedded.places import make_home
from dispatcher.errors import Refused
from dispatcher.rooms import House, Room
from dispatcher.runtime import open_runtime
from dispatcher.settings import Settings

__all__ = [
    "House",
    "Room",
    "healthz_of",
    "require_free_port",
    "rooms_of",
    "rooms_running",
    "run_up",
    "wait_until_ready",
]

READY_SECONDS = 60.0
_POLL_SECONDS = 0.1
_HOPELESS_DEATHS = 3


def rooms_of(workers: int = 1, *, web: bool = True) -> list[Room]:
    """Return the rooms of a whole house: the clock, `workers` hands for marketing, one each for what may not wait."""
    hands = [(f"marketing-{number}", "marketing") for number in range(1, workers + 1)]
    hands += [("transactional", "transactional"), ("control", "control")]
    rooms = [Room("clock", [sys.executable, "-P", "-m", "scheduler"], registers=True)]
    rooms += [Room(name, [sys.executable, "-P", "-m", "workers", kind], registers=True) for name, kind in hands]
    return [*rooms, Room("web", [sys.executable, "-P", "-m", "dispatcher.web"])] if web else rooms


def run_up(settings: Settings, *, workers: int = 1, say: Callable[[str], None] = print) -> int:
    """Run the whole house until SIGINT, SIGTERM or SIGHUP; return the exit code, with nothing left running."""
    with _one_per_home(settings.home), _stop_signals():
        require_free_port(settings)
        try:
            with (
                open_runtime(settings, progress=say, needs_broker=True) as runtime,
                rooms_running(settings, rooms_of(workers), say=say) as house,
            ):
                wait_until_ready(runtime.database, house, healthz=healthz_of(settings))
                for line in _where(settings):
                    say(line)
                while True:
                    signal.pause()
        except KeyboardInterrupt:
            say("stopped")
    return 0


@contextmanager
def rooms_running(
    settings: Settings, rooms: Sequence[Room], *, say: Callable[[str], None] | None = None
) -> Iterator[House]:
    """Run `rooms` for a while: each restarted when it dies, all ended at the end, whatever the end is."""
    house = House(settings, rooms, say or (lambda _: None))
    try:
        house.open()
        yield house
    finally:
        house.close()


def wait_until_ready(
    database: Engine, house: House, *, healthz: str | None = None, timeout_seconds: float = READY_SECONDS
) -> None:
    """Return when every room is at work and `healthz` answers; else Refused with who is late, or who keeps dying."""
    deadline = time.monotonic() + timeout_seconds
    late = _late(database, house, healthz)
    while late:
        for name, deaths in house.deaths().items():
            if deaths >= _HOPELESS_DEATHS:
                raise Refused(f"{name} keeps dying: {house.last_words(name)} (more in {house.log_of(name)})")
        if time.monotonic() > deadline:
            raise Refused(f"not ready after {timeout_seconds:.0f} s: {', '.join(late)}; see {house.logs}")
        time.sleep(_POLL_SECONDS)
        late = _late(database, house, healthz)


def _late(database: Engine, house: House, healthz: str | None) -> list[str]:
    """Return what is not ready yet."""
    pids = house.pids()
    at_work = _pids_at_work(database) if any(room.registers for room in house.rooms) else set()
    late = [
        room.name
        for room in house.rooms
        if room.name not in pids or (room.registers and pids[room.name] not in at_work)
    ]
    if healthz is not None and not _answers(healthz):
        late.append(healthz)
    return late


def _pids_at_work(database: Engine) -> set[int]:
    """Return the processes with an open worker row whose lock is held: no clock is asked, the demo's is shifted."""
    try:
        with database.connect() as connection:
            rows = connection.execute(text("SELECT pid, lock_path FROM worker WHERE ended_at IS NULL")).all()
    except OperationalError:  # the database is being started again
        return set()
    return {row.pid for row in rows if locks.is_held(Path(row.lock_path))}


def require_free_port(settings: Settings) -> None:
    """Refused if something else listens where the web room is to: its answers would be taken for ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise Refused(
            f"cannot listen on {settings.host} port {settings.port} ({error.strerror}): set DISPATCHER_PORT to another"
        ) from error


def healthz_of(settings: Settings) -> str:
    """Return where the web room can be asked from this machine, whatever address it listens on."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/healthz"


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _where(settings: Settings) -> Iterator[str]:
    here = healthz_of(settings).removesuffix("/healthz")
    yield f"ready at {here} (what the API offers: {here}/openapi.json)"
    if settings.public_url != here:
        yield f"links in messages lead to {settings.public_url} (DISPATCHER_PUBLIC_URL)"
    if settings.sandbox_only:
        yield f"what was sent: {here}/sandbox"
    yield f"logs in {settings.home / 'logs'}; Ctrl-C stops everything"


@contextmanager
def _one_per_home(home: Path) -> Iterator[None]:
    lock = locks.open_lock(make_home(home) / "up.lock")
    with open(lock, "rb"):  # closes the descriptor at the end
        if not locks.try_exclusive(lock):
            raise Refused(f"dispatcher up already runs for {home}: stop it, or set another DISPATCHER_HOME")
        yield


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Turn the first signal to stop into KeyboardInterrupt; later ones do nothing: the stopping has a limit."""
    before = {kind: signal.getsignal(kind) or signal.SIG_DFL for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] == signal.SIG_IGN:  # nohup
        del before[signal.SIGHUP]

    def stop(_number: int, _frame: FrameType | None) -> None:
        for kind in before:
            signal.signal(kind, signal.SIG_IGN)
        raise KeyboardInterrupt

    for kind in before:
        signal.signal(kind, stop)
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
