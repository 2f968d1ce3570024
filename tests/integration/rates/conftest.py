"""A small shop that sends at noon, and twelve people."""

from __future__ import annotations

from pathlib import Path

import pytest
from at_work import AtWork, noon_ahead
from letting_go import PEOPLE
from people import add_person
from sqlalchemy import Engine

from dispatcher.keys import KeyRing


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> AtWork:
    at_work = AtWork(database, key_ring, tmp_path, {}, starts=noon_ahead())
    with database.begin() as connection:
        for number in range(PEOPLE):
            add_person(connection, key_ring, f"p{number:02}")
    return at_work
