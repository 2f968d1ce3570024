"""The pages of a shop on a real port."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from own_pages import OwnPages, make_pages
from sqlalchemy import Engine
from web_server import Web, serving

from dispatcher.keys import KeyRing


@pytest.fixture
def pages(database: Engine, key_ring: KeyRing, tmp_path: Path) -> OwnPages:
    return make_pages(database, key_ring, tmp_path / "home")


@pytest.fixture
def web(pages: OwnPages, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    with serving(pages.database, key_ring, tmp_path / "home", wait=timedelta(milliseconds=200)) as web:
        yield web
