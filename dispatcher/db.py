"""The ledger's door: one engine per process and URL, short transactions, COPY."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from threading import Event
from typing import Any, TypeVar

import orjson
import psycopg
import structlog
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from dispatcher.errors import Refused

log = structlog.get_logger()

Result = TypeVar("Result")

_BEAT_SECONDS = 2.0


@lru_cache
def engine_for(database_url: str) -> Engine:
    """Return this process's engine for `database_url` (any `postgresql://` form; psycopg 3 underneath)."""
    url = make_url(database_url)
    if not url.drivername.startswith("postgres"):
        raise Refused(f"DISPATCHER_DATABASE_URL must be a postgresql:// address, not {url.drivername}://")
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        hide_parameters=True,  # an error's text goes to logs, and parameters are personal
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=25,
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
        connect_args={"application_name": "dispatcher", "options": "-c timezone=UTC -c jit=off -c lock_timeout=30s"},
    )


@contextmanager
def reading(database: Engine) -> Iterator[Connection]:
    """Yield a connection that sees one snapshot of the ledger, however long it looks, and that cannot write."""
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with database.connect().execution_options(**options) as connection:
        yield connection


def copy_rows(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write `rows` into `table` by COPY, inside the connection's transaction."""
    cursor = connection.connection.cursor()
    with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def notify(connection: Connection, topic: str) -> None:
    """Tell the clock, at commit, that something is due; the tick a second later would find it too."""
    connection.exec_driver_sql("SELECT pg_notify('dispatcher', %s)", (topic,))


def insist(work: Callable[[], Result], **facts: Any) -> Result:
    """Return what `work`, a transaction of its own, returns; while the database is away, try for ever.

    For what must be written because only this process knows it.  A server that is starting or only reads, a lock that
    is not free and a deadlock count as away, too.  The answer of a commit may be lost: what would do harm twice is for
    `once`.
    """
    wait = 0.1
    while True:
        try:
            return work()
        except DBAPIError as error:
            if not _is_away(error):
                raise
            log.warning("database.waiting", error=type(error.orig).__name__, wait_seconds=wait, **facts)
            time.sleep(wait)
            wait = min(wait * 2, 5.0)


def _is_away(error: DBAPIError) -> bool:
    """Whether trying again later can help; a standby, and a server whose disk is full, only read."""
    return isinstance(error, (OperationalError, InterfaceError)) or isinstance(
        error.orig, psycopg.errors.ReadOnlySqlTransaction
    )


def once(database: Engine, write: Callable[[Connection], None], **facts: Any) -> None:
    """Write, in a transaction of its own, exactly once; while the database is away, try for ever as `insist` does.

    Where the answer of the commit was lost, the database is asked what became of that transaction.
    """
    last_try: str | None = None

    def work() -> None:
        nonlocal last_try
        with database.begin() as connection:
            if last_try is not None and _was_committed(connection, last_try):
                return
            last_try = connection.scalar(text("SELECT CAST(pg_current_xact_id() AS text)"))
            write(connection)

    insist(work, **facts)


def _was_committed(connection: Connection, transaction: str) -> bool:
    status = text("SELECT pg_xact_status(CAST(:transaction AS xid8))")
    while (became := connection.scalar(status, {"transaction": transaction})) == "in progress":
        time.sleep(0.05)  # its connection is gone, and it has not heard of that yet
    return bool(became == "committed")


def listen(engine: Engine, stopping: Event, *, beat: Callable[[], None]) -> Iterator[str]:
    """Yield the topics of `notify` as they come, until `stopping`; call `beat` every two seconds between."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.execute("LISTEN dispatcher")
        while not stopping.is_set():
            beat()
            until = time.monotonic() + _BEAT_SECONDS
            while not stopping.is_set() and (left := until - time.monotonic()) > 0:
                for note in driver.notifies(timeout=min(left, 0.25)):
                    yield note.payload
