"""The HTTP room, somebody who may click the link, and the maker of its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from unsubscribing import Person, add_person
from web_server import Web, serving

from dispatcher.keys import KeyRing
from dispatcher.tokens import UnsubscribeTokens


@pytest.fixture
def person(database: Engine, key_ring: KeyRing) -> Person:
    return add_person(database, key_ring)


@pytest.fixture
def web(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    with serving(database, key_ring, tmp_path / "home") as web:
        yield web


@pytest.fixture
def tokens(key_ring: KeyRing) -> UnsubscribeTokens:
    return UnsubscribeTokens(key_ring)
