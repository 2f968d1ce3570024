"""The door every command and every room comes in by: settings, servers, schema, keys."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from dispatcher import embedded, schema, zone_data
from dispatcher.contact_windows import load_rows
from dispatcher.db import engine_for
from dispatcher.embedded.places import make_home
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing, open_key_ring
from dispatcher.settings import Settings, load_settings

_ANSWER_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Runtime:
    """What is open while a command or a room runs."""

    settings: Settings = field(repr=False)  # passwords may be in these four
    database: Engine = field(repr=False)
    database_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    key_ring: KeyRing


@contextmanager
def open_runtime(
    settings: Settings | None = None, *, progress: Callable[[str], None] | None = None, needs_broker: bool = False
) -> Iterator[Runtime]:
    """Open everything, the embedded servers where no URL is configured; Refused with one clear line otherwise.

    `needs_broker`: refuse also if a configured broker does not answer; only the clock and the hands need it.  They are
    also who takes a new secret key into use.
    """
    settings = settings or load_settings()
    make_home(settings.home)
    with _ended_by_signals(), _addresses(settings, progress) as (database_url, broker_url):
        check_database(database_url)
        if needs_broker:
            check_broker(broker_url)
        engine = engine_for(database_url)
        try:
            schema.require_current(engine, may_migrate=settings.database_url is None)
            key_ring = _open_keys(engine, settings, adopt=needs_broker)
            zone_data.heed(engine)
            if needs_broker:  # who decides all day long: what they decide by is read, and checked, before they begin
                load_rows()
            yield Runtime(settings, engine, database_url, broker_url, key_ring)
        finally:
            engine.dispose()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the command in order, as Ctrl-C does: the last to leave stops the embedded servers.

    A room that handles them itself is left alone.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    taken = []
    if threading.current_thread() is threading.main_thread():
        taken = [kind for kind in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(kind) == signal.SIG_DFL]
    for kind in taken:
        signal.signal(kind, end)
    try:
        yield
    finally:
        for kind in taken:
            if signal.getsignal(kind) is end:
                signal.signal(kind, signal.SIG_DFL)


@contextmanager
def _addresses(settings: Settings, progress: Callable[[str], None] | None) -> Iterator[tuple[str, str]]:
    """Yield where database and broker answer; only what is not configured is started here."""
    if settings.database_url and settings.broker_url:
        yield settings.database_url, settings.broker_url
        return
    with embedded.servers(
        settings.home, progress=progress, database=not settings.database_url, broker=not settings.broker_url
    ) as running:
        yield settings.database_url or running.database_url, settings.broker_url or running.broker_url


def _open_keys(engine: Engine, settings: Settings, *, adopt: bool) -> KeyRing:
    secret_keys = settings.secret_keys.get_secret_value() if settings.secret_keys else None
    with engine.begin() as connection:
        if (
            not settings.sandbox_only
            and connection.execute(text("SELECT clock_offset <> interval '0' FROM engine")).scalar_one()
        ):
            raise Refused(
                "this database's clock is shifted, as the demo does it, and a real provider is configured: "
                "use another database, or make every provider the sandbox"
            )
        return open_key_ring(connection, settings.home, secret_keys, adopt=adopt)


def check_database(database_url: str) -> None:
    """Refused, naming the setting and the place but never the password, if the database does not answer."""
    url = _parsed("DISPATCHER_DATABASE_URL", database_url)
    if not url.drivername.startswith("postgres"):
        raise Refused(f"DISPATCHER_DATABASE_URL must be a postgresql:// address, not {url.drivername}://")
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        psycopg.connect(plain, connect_timeout=_ANSWER_SECONDS).close()
    except psycopg.Error as error:
        raise Refused(f"DISPATCHER_DATABASE_URL: {_shown(url)} cannot be used: {_reason(error, url)}") from None


def check_broker(broker_url: str) -> None:
    """Refused, naming the setting and the place but never the password, if the broker does not answer."""
    url = _parsed("DISPATCHER_BROKER_URL", broker_url)
    try:
        client = redis.Redis.from_url(
            broker_url,
            socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        with client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise Refused(f"DISPATCHER_BROKER_URL: {_shown(url)} cannot be used: {_reason(error, url)}") from None


def _parsed(setting: str, address: str) -> URL:
    try:
        return make_url(address)
    except (ArgumentError, ValueError):  # a port that is not a number is the latter
        raise Refused(f"{setting} is not an address like scheme://host:port/name") from None


def _shown(url: URL) -> str:
    """Return the address without anything secret: no password, no query."""
    return url.set(query={}).render_as_string(hide_password=True)


def _reason(error: Exception, url: URL) -> str:
    """Return the first line of what the driver said, without the password should it be in there."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line.replace(url.password, "***") if url.password else line
