"""What the tests stand on: the database that one test after the other is given is always as the migrations leave it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import databases
import psycopg
import pytest
from ledger import make_ledger
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL

from dispatcher.db import engine_for
from dispatcher.keys import open_key_ring


@pytest.fixture
def lent(servers: tuple[str, str], template_database: URL) -> Iterator[databases.Lent]:
    lent = databases.Lent(servers[0], template_database)
    yield lent
    lent.drop()


def everything(url: str) -> dict[str, str]:
    """Return the rows of every table, and the last number of every sequence."""
    with engine_for(url).connect() as connection:
        tables = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        sequences = connection.scalars(text("SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'")).all()
        assert len(tables) > 40
        found = {table: connection.scalar(text(f"SELECT json_agg(t)::text FROM {table} t")) for table in tables}
        for name in sequences:
            found[name] = str(connection.execute(text(f"SELECT last_value, is_called FROM {name}")).one())
        return found


@pytest.mark.parametrize("rows_more", [0, 500], ids=["little", "much"])
def test_of_what_a_test_has_written_nothing_is_left(lent: databases.Lent, tmp_path: Path, rows_more: int) -> None:
    url = lent.take()
    fresh = everything(url)
    with engine_for(url).begin() as connection:
        key_ring = open_key_ring(connection, tmp_path, None)
    make_ledger(engine_for(url), key_ring, tmp_path)
    with engine_for(url).begin() as connection:
        connection.execute(
            text("INSERT INTO address (channel, hash) SELECT 'email', sha256(n::text::bytea) "
                 "FROM generate_series(1, :rows) n"), {"rows": rows_more}
        )  # fmt: skip
    written = everything(url)
    assert all(written[table] != fresh[table] for table in ("consent_event", "audit", "engine", "message", "address"))

    lent.give_back()

    assert lent.take() == url
    assert everything(url) == fresh


def _alters(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE message ADD CHECK (status <> 'sent')"))


def _renames(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE consent RENAME COLUMN state TO was"))


def _disables(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE audit DISABLE TRIGGER audit_append_only"))


def _drops(connection: Connection) -> None:
    connection.execute(text("DROP INDEX message_once_per_contact"))


def _makes(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE copied AS SELECT 1 AS one"))


def _sets(connection: Connection) -> None:
    connection.execute(text(f"ALTER DATABASE {connection.engine.url.database} SET work_mem = '1MB'"))


def _goes_back(connection: Connection) -> None:
    connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))


@pytest.mark.parametrize("what", [_alters, _renames, _disables, _drops, _makes, _sets, _goes_back])
def test_whoever_changes_more_than_rows_has_had_it_alone(
    lent: databases.Lent, what: Callable[[Connection], None]
) -> None:
    url = lent.take()
    with engine_for(url).begin() as connection:
        what(connection)

    lent.give_back()

    assert lent.take() != url


def test_a_transaction_that_is_still_open_does_not_reach_the_next_test(lent: databases.Lent) -> None:
    url = lent.take()
    with engine_for(url).connect() as connection:
        connection.execute(text("UPDATE engine SET id = id"))

        lent.give_back()

        assert lent.take() != url
        connection.invalidate()  # it was cut off


def test_somebody_who_is_still_connected_does_not_reach_the_next_test(lent: databases.Lent) -> None:
    url = lent.take()
    with psycopg.connect(url, autocommit=True) as left_behind:
        left_behind.execute("SELECT 1")

        lent.give_back()

        assert lent.take() != url


def test_a_lock_that_a_connection_still_holds_does_not_reach_the_next_test(lent: databases.Lent) -> None:
    url = lent.take()
    with engine_for(url).begin() as connection:
        connection.execute(text("SELECT pg_advisory_lock(1)"))

    lent.give_back()

    assert lent.take() != url


def test_connections_that_were_used_are_used_again(lent: databases.Lent) -> None:
    url = lent.take()
    database: Engine = engine_for(url)
    with database.connect() as one, database.connect() as another:
        first = {one.scalar(text("SELECT pg_backend_pid()")), another.scalar(text("SELECT pg_backend_pid()"))}

    lent.give_back()

    assert lent.take() == url
    with database.connect() as one:
        assert one.scalar(text("SELECT pg_backend_pid()")) in first
