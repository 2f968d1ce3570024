"""A shop whose events start messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from flows import Flows, make_flows
from people import add_person
from sqlalchemy import Engine

from dispatcher.keys import KeyRing


@pytest.fixture
def flows(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Flows:
    flows = make_flows(database, key_ring, tmp_path)
    with database.begin() as connection:
        add_person(connection, key_ring, "ana", phone="+447700900001")
        add_person(connection, key_ring, "ben")
    return flows
