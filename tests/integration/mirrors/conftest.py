"""A ledger and SendGrid's suppression lists, held against each other over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mirroring import House, house_of
from sqlalchemy import Engine
from standins import StandIn, stand_in

from dispatcher.keys import KeyRing


@pytest.fixture(scope="module")
def api() -> Iterator[StandIn]:
    with stand_in() as api:
        yield api


@pytest.fixture
def house(database: Engine, key_ring: KeyRing, api: StandIn) -> Iterator[House]:
    with house_of(database, key_ring, api) as house:
        yield house
