"""Real PostgreSQL and real Valkey under HOME, for a laptop, a demo and the tests.

Whoever uses them shares `users.lock` for its life, so a killed user leaves no count behind.  Starting and stopping
happen under `start.lock`.  The last one to leave, who then gets `users.lock` for itself, stops both servers; if the
last one was killed, the next one finds them running, adopts them, and stops them at its end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dispatcher.embedded import locks, process
from dispatcher.embedded.places import Places, make_places, make_runtime
from dispatcher.embedded.postgres import Postgres
from dispatcher.embedded.process import Progress
from dispatcher.embedded.valkey import Valkey
from dispatcher.errors import Refused

__all__ = ["Servers", "are_alive", "remove", "revive", "servers", "stop_if_unused"]


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the two answer."""

    database_url: str
    broker_url: str


def _silently(_: str) -> None:
    pass


@contextmanager
def servers(
    home: Path, *, progress: Progress | None = None, database: bool = True, broker: bool = True
) -> Iterator[Servers]:
    """Use the servers of `home`: started, shared or adopted as needed; stopped at the end if nobody else uses them."""
    places = make_places(home)
    users = locks.open_lock(places.users_lock)
    try:
        with _deciding(places, progress):
            locks.share(users)
            running = _ensure(places, progress or _silently, database=database, broker=broker)
        yield running
    finally:
        os.close(users)
        stop_if_unused(home)


def revive(home: Path, *, progress: Progress | None = None, database: bool = True, broker: bool = True) -> None:
    """Start again what has died; for somebody who uses the servers already."""
    places = make_places(home)
    with _deciding(places, progress):
        _ensure(places, progress or _silently, database=database, broker=broker)


def are_alive(home: Path, *, database: bool = True, broker: bool = True) -> bool:
    """Return whether the servers asked for live; cheap enough to ask every second."""
    places = make_places(home)
    wanted = [Postgres(places)] * database + [Valkey(places)] * broker
    return all(locks.is_held(server.lock) for server in wanted)


def stop_if_unused(home: Path) -> None:
    """Stop both servers if nobody uses them; whoever starts meanwhile waits, and starts them again."""
    places = make_places(home)
    with _deciding(places, None), _alone(places) as alone:
        if alone:
            _stop(places)


def remove(home: Path) -> None:
    """Delete the servers' data for good, those outside HOME included; Refused while somebody uses them."""
    places = make_places(home)
    with _deciding(places, None), _alone(places) as alone:
        if not alone:
            raise Refused(f"the servers of {home} are in use: end the commands that use them first")
        _stop(places)
        Postgres(places).remove()
        shutil.rmtree(Valkey(places).folder, ignore_errors=True)


@contextmanager
def _alone(places: Places) -> Iterator[bool]:
    """Yield whether nobody uses the servers.  Asked, and let go, under the start lock: who only looks is no user."""
    users = locks.open_lock(places.users_lock)
    try:
        yield locks.try_exclusive(users)
    finally:
        os.close(users)


@contextmanager
def _deciding(places: Places, progress: Progress | None) -> Iterator[None]:
    with locks.exclusive(
        places.start_lock, on_wait=lambda: (progress or _silently)("waiting for another command to start the servers")
    ):
        yield


def _ensure(places: Places, progress: Progress, *, database: bool, broker: bool) -> Servers:
    make_runtime(places)
    postgres, valkey = Postgres(places), Valkey(places)
    if database:
        process.ensure(postgres, progress)
    if broker:
        process.ensure(valkey, progress)
    return Servers(postgres.url, valkey.url)


def _stop(places: Places) -> None:
    for server in (Valkey(places), Postgres(places)):
        process.stop(server)
    shutil.rmtree(places.runtime, ignore_errors=True)
