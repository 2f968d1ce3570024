"""The HTTP room of a small shop, and a key to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_rows import add_contact, add_template
from sqlalchemy import Engine
from web_server import Web, serving

from dispatcher import api_keys
from dispatcher.keys import KeyRing


@pytest.fixture
def web(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    with database.begin() as connection:
        add_contact(connection, key_ring, "c1", email="ana@shop.example")
        add_template(connection, "order-confirmation", "email", "class: transactional\n")
        add_template(connection, "christmas", "email", "class: marketing\ntopic: offers\n")
    with serving(database, key_ring, tmp_path / "home") as web:
        yield web


@pytest.fixture
def key(database: Engine) -> str:
    with database.begin() as connection:
        return api_keys.create(connection, "shop", api_keys.SCOPES)
