"""Databases for the tests: copies of one that is migrated and empty, and one that is lent to test after test."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from dispatcher import schema
from dispatcher.db import engine_for

_PATIENCE_SECONDS = 0.25
_LOOK_EVERY_SECONDS = 0.002

_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_LOCKS = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND locktype = 'advisory'"""

# What is made, altered or dropped writes or removes a row of these.
_SHAPE = """
SELECT (SELECT array_agg(ROW(relname, relkind, relnatts, relchecks) ORDER BY oid)::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace),
       (SELECT ROW(count(*), max(xmin::text::bigint))::text FROM pg_attribute),
       (SELECT ROW(count(*), max(xmin::text::bigint))::text FROM pg_constraint),
       (SELECT ROW(count(*), max(xmin::text::bigint))::text FROM pg_trigger),
       (SELECT ROW(count(*), max(xmin::text::bigint))::text FROM pg_proc),
       (SELECT datallowconn::text FROM pg_database WHERE datname = current_database()),
       (SELECT count(*)::text FROM pg_db_role_setting),
       (SELECT version_num FROM alembic_version)"""

# Every row goes, and every number starts anew.  For the few rows of a test DELETE takes a tenth of TRUNCATE's time; a
# table past its first page is truncated, so that rows always lie in the order in which they were written.
_EMPTY = """
DO $$
DECLARE used record; large text;
BEGIN
    SET LOCAL session_replication_role = replica;  -- neither foreign keys nor what keeps evidence from being changed
    FOR used IN SELECT oid::regclass AS name, pg_relation_size(oid) > 8192 AS is_large FROM pg_class
                WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
                  AND pg_relation_size(oid) > 0
    LOOP
        IF used.is_large THEN
            large := concat_ws(', ', large, used.name);
        ELSE
            EXECUTE 'DELETE FROM ' || used.name;
        END IF;
    END LOOP;
    IF large IS NOT NULL THEN
        EXECUTE 'TRUNCATE ' || large || ' CASCADE';
    END IF;
    PERFORM setval(seqrelid, seqstart, false) FROM pg_sequence;
END $$"""


def copy(server_url: str, original: URL) -> URL:
    """Return the URL of a new database, a copy of the one that nobody is connected to."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with _administrator(server_url).connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {original.database} STRATEGY file_copy"))
    return original.set(database=name)


def drop(server_url: str, url: URL) -> None:
    """Drop the database; whoever is connected to it no longer is."""
    _engine(url).dispose()
    with _administrator(server_url).connect() as connection:
        others = text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = :name")
        _soon(lambda: connection.scalar(others, {"name": url.database}) == 0)  # DROP waits for a tenth of a second
        connection.execute(text(f"DROP DATABASE {url.database} WITH (FORCE)"))


@contextmanager
def template(server_url: str) -> Iterator[URL]:
    """Yield the URL of a migrated, empty database to copy."""
    url = make_url(server_url).set(database=f"template_{uuid.uuid4().hex[:8]}")
    with _administrator(server_url).connect() as connection:
        connection.execute(text(f"CREATE DATABASE {url.database}"))
    schema.migrate(_engine(url))
    _engine(url).dispose()
    yield url
    drop(server_url, url)


class Lent:
    """A database as the migrations leave it, for one test after the other.

    It is emptied in between.  If a test has changed more than rows, or left somebody who may still write, the next one
    is given a new copy.
    """

    def __init__(self, server_url: str, original: URL) -> None:
        self._server_url, self._original = server_url, original
        self._url: URL | None = None
        self._shape: object = None
        self._first_rows: list[str] = []

    def take(self) -> str:
        """Return its URL."""
        if self._url is None:
            self._url = copy(self._server_url, self._original)
            with _engine(self._url).connect() as connection:
                self._shape = connection.execute(text(_SHAPE)).one()
                self._first_rows = list(_inserts(connection))
        return _address(self._url)

    def give_back(self) -> None:
        assert self._url is not None
        try:
            with _engine(self._url).begin() as connection:
                is_as_it_was = self._nobody_else(connection) and connection.execute(text(_SHAPE)).one() == self._shape
                if is_as_it_was:
                    for statement in (_EMPTY, *self._first_rows):
                        connection.exec_driver_sql(statement)
        except DBAPIError:  # nobody is let in, or a table is gone
            is_as_it_was = False
        if not is_as_it_was:
            self.drop()

    def drop(self) -> None:
        if self._url is not None:
            drop(self._server_url, self._url)
            self._url = None

    def _nobody_else(self, connection: Connection) -> bool:
        """Return whether nobody is connected but this process's idle connections, and none of them holds a lock."""
        idle = connection.engine.pool.checkedin  # type: ignore[attr-defined]  # the default pool
        return connection.scalar(text(_LOCKS)) == 0 and _soon(lambda: connection.scalar(text(_OTHERS)) == idle())


def _inserts(connection: Connection) -> Iterator[str]:
    """Yield a statement for each table that the migrations have put rows into."""
    tables = connection.scalars(
        text("""SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                AND relname <> 'alembic_version' AND pg_relation_size(oid) > 0""")
    )
    for table in tables:
        rows = connection.scalar(text(f"SELECT quote_literal(json_agg(t)::text) FROM {table} t"))
        yield f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, {rows})".replace("%", "%%")


def _soon(what: Callable[[], bool]) -> bool:
    """Return whether it is so soon: a process of the server ends after its client has gone."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while not (is_so := what()) and time.monotonic() < until:
        time.sleep(_LOOK_EVERY_SECONDS)
    return is_so


def _administrator(server_url: str) -> Engine:
    return engine_for(server_url).execution_options(isolation_level="AUTOCOMMIT")


def _engine(url: URL) -> Engine:
    return engine_for(_address(url))


def _address(url: URL) -> str:
    return url.render_as_string(hide_password=False)
