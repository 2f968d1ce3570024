"""A small shop, a worker of it, and its hands."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from people import add_person
from racing import IMPORTANT, PEOPLE
from small_workspace import FILES, write_workspace
from sqlalchemy import Engine

from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.providers.sandbox import Sandbox
from dispatcher.registration import Registration, register
from dispatcher.rendering import Sender
from dispatcher.sending import Hands
from dispatcher.workspace import read_workspace


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Engine:
    """Six people who agreed, and campaigns for all of them; one mail a day at most."""
    more = {
        "campaigns/again.yaml": FILES["campaigns/hello.yaml"].replace("hello", "again"),
        "campaigns/important.yaml": IMPORTANT,
    }
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", more)), by="test")
        for number in range(PEOPLE):
            add_person(connection, key_ring, f"p{number}")
    return database


@pytest.fixture
def worker(shop: Engine, tmp_path: Path) -> Registration:
    return register(shop, tmp_path, kind="marketing", queues=["email.marketing", "email.transactional"], slots=2)


@pytest.fixture
def hands(shop: Engine, key_ring: KeyRing, worker: Registration, tmp_path: Path) -> Hands:
    sandbox = Sandbox(tmp_path / "sandbox", "email")
    return Hands(
        shop, Sender(key_ring, "https://shop.example"), {"email": sandbox}, worker.worker_id, threading.Event()
    )
