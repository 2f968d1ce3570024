"""A ledger that was at work, and its HTTP room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger import Ledger, make_ledger
from sqlalchemy import Engine
from web_server import Web, serving

from dispatcher.keys import KeyRing


@pytest.fixture
def ledger(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Ledger:
    return make_ledger(database, key_ring, tmp_path / "home")


@pytest.fixture
def web(ledger: Ledger) -> Iterator[Web]:
    with serving(ledger.database, ledger.key_ring, ledger.home) as web:
        yield web
