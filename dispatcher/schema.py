"""Bring a database to the schema this code needs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from dispatcher.errors import Refused

_LOCK = 0x64697370  # "disp": two processes that start at once migrate one after the other


def _config(connection: Connection | None = None) -> Config:
    spec = importlib.util.find_spec("migrations")
    if spec is None or not spec.submodule_search_locations:
        raise Refused("the migrations are not installed; reinstall dispatcher")
    config = Config()
    config.set_main_option("script_location", str(Path(spec.submodule_search_locations[0])))
    config.attributes["connection"] = connection
    return config


def newest_revision() -> str:
    """Return the revision this code was written for."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def migrate(engine: Engine) -> tuple[str | None, str]:
    """Bring the schema up to date; return the revisions before and after.  Safe to run twice and at once."""
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        try:
            before = MigrationContext.configure(connection).get_current_revision()
            command.upgrade(_config(connection), "head")
            connection.commit()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
    return before, newest_revision()


def require_current(engine: Engine, *, may_migrate: bool) -> None:
    """Make sure the schema fits: an empty database is always set up, an older one only if `may_migrate`."""
    with engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    if revision == newest_revision():
        return
    if revision is None or may_migrate:
        migrate(engine)
        return
    raise Refused(
        f"the database is at schema {revision}, this version needs {newest_revision()}: run dispatcher migrate"
    )
