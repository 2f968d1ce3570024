"""A shop that counts clicks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clicking import PEOPLE, WORKSPACE
from ledger import SmallShop, make_noon
from people import add_person
from small_workspace import write_workspace
from sqlalchemy import Engine
from web_server import Web, serving

from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.workspace import read_workspace


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> SmallShop:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", WORKSPACE)), by="test")
        make_noon(connection)
        for number in range(PEOPLE):
            add_person(
                connection, key_ring, f"p{number}", phone=f"+44770090000{number}",
                granted=(("email", "offers"), ("sms", "offers")),
            )  # fmt: skip
    return SmallShop(database, key_ring, tmp_path / "home")


@pytest.fixture
def web(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    with serving(database, key_ring, tmp_path / "home") as web:
        yield web
