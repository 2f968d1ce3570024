"""Where the embedded servers keep their things.

HOME/servers/start.lock   held while somebody decides to start or stop
HOME/servers/users.lock   shared by everybody who uses the servers
HOME/servers/postgres/    data, and the server's own lock (a link if HOME cannot be entered by the server's user)
HOME/servers/valkey/      likewise
HOME/logs/                what the servers say
/tmp/dispatcher-UID-HASH/ their sockets: a socket's path may have 107 bytes at most, and HOME may be longer
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dispatcher.errors import Refused

_SOCKET_PATH_BYTES = 103  # 107 on Linux, 103 on macOS
_LONGEST_SOCKET = "postgres/.s.PGSQL.5432"


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of one HOME."""

    home: Path
    servers: Path
    logs: Path
    runtime: Path
    home_hash: str

    @property
    def start_lock(self) -> Path:
        return self.servers / "start.lock"

    @property
    def users_lock(self) -> Path:
        return self.servers / "users.lock"


def i_am_root() -> bool:
    return os.geteuid() == 0


def make_home(home: Path) -> Path:
    """Return `home`, made if need be so that only its owner can list it: the sandbox keeps what it was sent there."""
    if not home.is_dir():
        try:
            home.mkdir(parents=True, exist_ok=True)
            home.chmod(_private())
        except OSError as error:
            raise Refused(f"DISPATCHER_HOME {home} cannot be made: {error.strerror}") from error
    return home


def _private() -> int:
    """Return the mode of our folders: as root the server's own user must be able to pass through."""
    return 0o711 if i_am_root() else 0o700


def make_places(home: Path) -> Places:
    """Return the places under `home`, ready to use; Refused if they belong to somebody else."""
    make_home(home)
    owner = home.stat().st_uid
    if owner != os.geteuid():
        raise Refused(
            f"DISPATCHER_HOME {home} belongs to user {owner}: run as that user, or choose another DISPATCHER_HOME"
        )
    real = home.resolve()
    home_hash = hashlib.sha256(os.fsencode(real)).hexdigest()[:10]
    places = Places(
        real, real / "servers", real / "logs", _sockets_root() / f"dispatcher-{os.geteuid()}-{home_hash}", home_hash
    )
    try:
        places.servers.mkdir(mode=_private(), exist_ok=True)
        places.logs.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Refused(f"DISPATCHER_HOME {home} cannot be written: {error.strerror}") from error
    return places


def _sockets_root() -> Path:
    """Return a short folder, the same for every process whatever its TMPDIR."""
    short = Path("/tmp")  # noqa: S108 - the folder made in it is ours alone, and checked
    return short if os.access(short, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def make_runtime(places: Places) -> None:
    """Make the folder of the sockets; Refused if somebody else put something in its place."""
    runtime = places.runtime
    if len(os.fsencode(runtime / _LONGEST_SOCKET)) > _SOCKET_PATH_BYTES:
        raise Refused(f"{runtime} is too long a path for a socket: make /tmp writable or set a shorter TMPDIR")
    try:
        runtime.mkdir(mode=0o700, exist_ok=True)
        found = runtime.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise Refused(f"{runtime} belongs to somebody else: ask its owner to remove it")
        runtime.chmod(_private())
    except OSError as error:
        raise Refused(f"{runtime} cannot be made: {error.strerror}") from error
