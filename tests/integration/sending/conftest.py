"""Thirty people who agreed, and a worker with a sandbox."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from people import add_person
from sent_off import PEOPLE, worker
from small_workspace import FILES, write_workspace
from sqlalchemy import Engine

from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.providers.sandbox import Sandbox
from dispatcher.rendering import Sender
from dispatcher.sending import Hands
from dispatcher.workspace import read_workspace


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Engine:
    """Thirty people who agreed, and a second campaign for the same audience."""
    more = {"campaigns/again.yaml": FILES["campaigns/hello.yaml"].replace("hello", "again")}
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", more)), by="test")
        for number in range(PEOPLE):
            add_person(connection, key_ring, f"p{number:02}")
    return database


@pytest.fixture
def hands(shop: Engine, key_ring: KeyRing, tmp_path: Path) -> Hands:
    registration = worker(shop, tmp_path)
    return Hands(
        shop,
        Sender(key_ring, "https://shop.example"),
        {"email": Sandbox(tmp_path / "sandbox", "email"), "sms": Sandbox(tmp_path / "sandbox", "sms")},
        registration.worker_id,
        threading.Event(),
    )
