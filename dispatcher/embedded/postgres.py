"""The embedded PostgreSQL: real, on a socket only, safe against kill -9 and power cuts."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg

from dispatcher.embedded.binaries import SYSTEM_FOLDER, Binaries, find_binaries
from dispatcher.embedded.identity import can_enter, identity_for
from dispatcher.embedded.places import Places
from dispatcher.embedded.process import Command, Identity, Progress, read_pid, run
from dispatcher.errors import Refused

_SUPERUSER = "dispatcher"
_DATABASE = "dispatcher"
_PORT = 5432  # names the socket file; no port is opened
_ANSWER_SECONDS = 2
_ROOMY_SHARED_MEMORY_BYTES = 256 * 2**20
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "fsync": "on",
    "synchronous_commit": "on",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    # What clients do wrong is told to the clients.  In the log it could show personal data: no errors of statements,
    # no statements, no parameters, no DETAIL lines ("Failing row contains ...").
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "log_autovacuum_min_duration": "-1",
}


class Postgres:
    """How the supervisor drives PostgreSQL."""

    name = "PostgreSQL"
    stop_signals = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 15.0), (signal.SIGKILL, 10.0))

    def __init__(self, places: Places) -> None:
        self._places = places
        self.log = places.logs / "postgres.log"
        self._link = places.servers / "postgres"
        self._sockets = places.runtime / "postgres"
        self._identity: Identity | None = None
        self._binaries: Binaries | None = None

    @property
    def url(self) -> str:
        return self._url(_DATABASE)

    def _url(self, database: str) -> str:
        return f"postgresql://{_SUPERUSER}@/{database}?host={quote(str(self._sockets), safe='')}&port={_PORT}"

    @property
    def _room(self) -> Path:
        """The folder that holds the data and the lock: in HOME, or where the link there leads."""
        return self._link.resolve()

    @property
    def folder(self) -> Path:
        return self._room / "data"

    @property
    def lock(self) -> Path:
        return self._room / "lock"

    def make_room(self) -> None:
        """Make the folder in HOME, or a link to one that the server's user can enter."""
        if self._link.is_symlink() and not self._link.exists():
            raise Refused(
                f"PostgreSQL's data of this HOME are gone from {os.readlink(self._link)}: put them back, "
                f"or remove {self._link} to begin anew"
            )
        if self._link.exists():
            return
        if can_enter(identity_for(self._link / "data"), self._places.servers):
            self._link.mkdir(mode=0o711)
        else:
            self._link.symlink_to(_room_elsewhere(self._places))

    def prepare(self, lock: int, progress: Progress) -> None:
        """Make the data folder if there is none, and clear away what a killed server left."""
        self._identity = identity_for(self.folder)
        if not can_enter(self._identity, self._room):
            user = self._identity.name if self._identity else "you"
            raise Refused(f"user {user} cannot enter {self._room}: give back the permissions it had")
        self._binaries = find_binaries(self._identity, self.folder)
        for left_over in (*self._room.glob("new-*"), self._sockets):
            shutil.rmtree(left_over, ignore_errors=True)
        self._sockets.mkdir(mode=0o700)
        self._give(self._sockets)
        if not self.folder.is_dir():
            progress("making the database files, once")
            self._make_data(self._binaries, lock)
        # We hold the lock, so no process of this server lives: a pid in this file is another process's by now.
        (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def _give(self, folder: Path) -> None:
        if self._identity is not None:
            os.chown(folder, self._identity.uid, self._identity.gid)

    def _make_data(self, binaries: Binaries, lock: int) -> None:
        """Make the data folder beside its place, then move it there: one killed half-way is made again."""
        new = Path(tempfile.mkdtemp(prefix="new-", dir=self._room))
        self._give(new)
        # Sorting by code point, the same on every system and for ever; indexes survive an upgrade of the C library.
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        arguments: list[str | Path] = [binaries.initdb, "-D", new, "-U", _SUPERUSER, "--auth=trust", "--encoding=UTF8"]
        arguments += ["--data-checksums", *(locale if binaries.version >= 17 else ["--locale=C.UTF-8"])]
        run(Command(arguments, self._room, self._identity), lock=lock, what="making the database files")
        new.rename(self.folder)
        _sync(self._room)

    def command(self) -> Command:
        assert self._binaries is not None, "prepare comes first"
        settings = {**_SETTINGS, "unix_socket_directories": str(self._sockets), "port": str(_PORT)}
        settings["dynamic_shared_memory_type"] = _shared_memory_type()
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Command([self._binaries.postgres, "-D", self.folder, *flags], self.folder, self._identity)

    def answers(self) -> bool:
        """Return whether our PostgreSQL is ready; Refused if another one sits at our socket."""
        if not (self._sockets / f".s.PGSQL.{_PORT}").exists():
            return False
        try:
            with psycopg.connect(self._url("postgres"), connect_timeout=_ANSWER_SECONDS) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError:  # not there yet, or still recovering
            return False
        if row is None or Path(row[0]).resolve() != self.folder.resolve():
            raise Refused(f"another PostgreSQL answers in {self._sockets}: stop it first")
        return True

    def after_start(self) -> None:
        """Make the database, unless it is there."""
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", (_DATABASE,)).fetchone() is None:
                connection.execute(f"CREATE DATABASE {_DATABASE}")

    def pid(self) -> int | None:
        return read_pid(self.folder / "postmaster.pid")

    def remove(self) -> None:
        """Delete the data for good, wherever they are; nothing of the server may live."""
        room, link = self._room, self._link
        shutil.rmtree(room, ignore_errors=True)
        if link.is_symlink():
            link.unlink()


def _room_elsewhere(places: Places) -> Path:
    """Return a new folder outside HOME, which the server's user cannot enter; a note in it says whose it is.

    The name is new each time: data of an earlier HOME at the same path must not come back under other keys.
    """
    try:
        SYSTEM_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=f"{places.home_hash}-", dir=SYSTEM_FOLDER))
        room.chmod(0o711)
        (room / "home").write_text(f"{places.home}\n", encoding="utf-8")
    except OSError as error:
        raise Refused(
            f"PostgreSQL's user cannot enter {places.home}, and {SYSTEM_FOLDER} cannot be written "
            f"({error.strerror}): choose a DISPATCHER_HOME that others may pass through"
        ) from error
    return room


def _shared_memory_type() -> str:
    """Return mmap where /dev/shm is small, as containers have it: parallel queries would fail there."""
    try:
        shared = os.statvfs("/dev/shm")  # noqa: S108 - looked at, not written to
    except OSError:
        return "posix"
    return "posix" if shared.f_bavail * shared.f_frsize >= _ROOMY_SHARED_MEMORY_BYTES else "mmap"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
