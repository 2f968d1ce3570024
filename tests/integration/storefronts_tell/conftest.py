"""A small shop, and the same on a real port, with secrets for both storefronts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flows import Flows, make_flows
from sqlalchemy import Engine
from telling import NEW, OLD, Shop
from web_server import serving

from dispatcher.keys import KeyRing


@pytest.fixture
def flows(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Flows:
    return make_flows(database, key_ring, tmp_path)


@pytest.fixture
def shop(flows: Flows, key_ring: KeyRing, tmp_path: Path) -> Iterator[Shop]:
    secrets = {"shopify_secret": f"{NEW},{OLD}", "woocommerce_secret": f"{NEW},{OLD}"}
    with serving(flows.database, key_ring, tmp_path / "home", **secrets) as web:
        yield Shop(web, flows, flows.database, key_ring)
