"""A small shop, and a question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from asked import FILES_HERE, NOON
from crowd import set_clock
from people import add_person
from small_workspace import write_workspace
from sqlalchemy import Engine

from dispatcher import db
from dispatcher.apply import apply
from dispatcher.explain import explain
from dispatcher.keys import KeyRing
from dispatcher.workspace import read_workspace


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Engine:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", FILES_HERE)), by="test")
        set_clock(connection, NOON)
        add_person(connection, key_ring, "agreed")
    return database


@pytest.fixture
def ask(shop: Engine, key_ring: KeyRing) -> Any:
    """Explain one contact and campaign, in a transaction that cannot write."""

    def ask(contact: str, campaign: str = "hello", **more: Any) -> dict[str, Any]:
        with db.reading(shop) as connection:
            return explain(connection, key_ring, contact, campaign, **more)

    return ask
