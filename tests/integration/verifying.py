"""A shop's ledger to break, and how it is looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import databases
from ledger import Ledger, make_ledger, tampered
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from dispatcher.db import engine_for
from dispatcher.keys import open_key_ring
from dispatcher.verify import INVARIANTS, Report, Result, look_at, verify
from dispatcher.verify.report import examine

Line = dict[str, Any]

SENT = "status = 'sent' AND class = 'marketing'"
ONE_SENT = f"id = (SELECT id FROM message WHERE {SENT} ORDER BY id LIMIT 1)"


@contextmanager
def a_shop(template_database: URL, server_url: str, home: Path) -> Iterator[Ledger]:
    """One ledger for all tests of a module: each breaks it in a transaction that is rolled back."""
    url = databases.copy(server_url, template_database)
    database = engine_for(url.render_as_string(hide_password=False))
    with database.begin() as connection:
        key_ring = open_key_ring(connection, home, None)
    yield make_ledger(database, key_ring, home)
    databases.drop(server_url, url)


def look(ledger: Ledger, *statements: str, log: Path | None = None) -> dict[str, Result]:
    """Break the ledger by these statements and return what is found, by the names of the invariants."""
    with tampered(ledger) as connection:
        change(connection, *statements)
        return by_name(verify(connection, ledger.key_ring, log))


def look_for(name: str, ledger: Ledger, *statements: str, log: Path | None = None) -> Result:
    """Break the ledger by these statements and return what is found of one invariant."""
    [invariant] = [each for each in INVARIANTS if each.name == name]
    with tampered(ledger) as connection:
        change(connection, *statements)
        return examine(invariant, look_at(connection, ledger.key_ring, log, lambda _: None))


def change(connection: Connection, *statements: str) -> None:
    for statement in statements:
        assert connection.execute(text(statement)).rowcount != 0, statement


def by_name(report: Report) -> dict[str, Result]:
    return {result.name: result for result in report.results}


def broken(results: dict[str, Result]) -> set[str]:
    return {name for name, result in results.items() if result.status == "broken"}


def written(tmp_path: Path, lines: list[Line], *more: bytes) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines) + b"".join(more))
    return path
