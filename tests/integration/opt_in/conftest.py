"""The shop that asks for a confirmation."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import WORKSPACE, House
from ledger import SmallShop, until_noon
from people import add_person
from small_workspace import write_workspace
from sqlalchemy import Engine

from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.workspace import read_workspace


@pytest.fixture
def house(database: Engine, key_ring: KeyRing, tmp_path: Path) -> House:
    home = tmp_path / "home"
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(home / "workspace", WORKSPACE)), by="test")
        anna = add_person(connection, key_ring, "anna", phone="+447700900001", granted=(("email", "offers"),))
    shop = SmallShop(database, key_ring, home)
    shop.wait(until_noon())
    return House(shop, anna)
