"""The schema: migrations and tables agree, and the database refuses what it must."""

from __future__ import annotations

import itertools

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from dispatcher import schema
from dispatcher.lifecycle import MOVES, Status
from dispatcher.tables import metadata


def test_migrations_make_the_tables_we_declare(connection: Connection) -> None:
    assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_migrating_twice_changes_nothing(database: Engine) -> None:
    assert schema.migrate(database) == (schema.newest_revision(), schema.newest_revision())


def test_the_database_knows_the_same_moves_as_the_code(connection: Connection) -> None:
    for old, new in itertools.permutations(Status, 2):
        legal = connection.scalar(
            text("SELECT message_move_is_legal(:old, :new)"), {"old": old.value, "new": new.value}
        )

        assert legal == (new in MOVES[old]), f"{old} -> {new}"


@pytest.mark.parametrize("statement", ["UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
@pytest.mark.parametrize("table", ["consent_event", "audit"])
def test_evidence_is_append_only(connection: Connection, table: str, statement: str) -> None:
    with pytest.raises(DBAPIError, match="append-only"):
        connection.execute(text(statement.format(table)))
