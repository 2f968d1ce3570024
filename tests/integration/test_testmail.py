"""A test mail reaches an address of one's own, and leaves no trace where people's messages are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from people import add_address
from small_workspace import write_workspace
from sqlalchemy import Engine, text

from dispatcher import suppression, testmail
from dispatcher.apply import apply
from dispatcher.errors import NotFound, Refused
from dispatcher.keys import KeyRing
from dispatcher.runtime import Runtime
from dispatcher.settings import load_settings
from dispatcher.verify import verify
from dispatcher.workspace import read_workspace

MINE = "me@shop.example"


@pytest.fixture
def runtime(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Runtime:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace")), by="test")
    return Runtime(load_settings(home=tmp_path), database, "unused", "unused", key_ring)


def test_a_test_mail_is_whole_and_belongs_to_no_run(runtime: Runtime, tmp_path: Path) -> None:
    testmail.send(runtime, "email", "christmas", MINE, by="test")

    [mail] = [json.loads(line) for line in (tmp_path / "sandbox" / "outbox.jsonl").read_text().splitlines()]
    assert (mail["to"], mail["run"], mail["subject"]) == (MINE, None, "For you")
    assert "List-Unsubscribe" in dict(mail["headers"])
    with runtime.database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message")) == 0
        assert connection.scalar(text("SELECT count(*) FROM audit WHERE action = 'template.send'")) == 1


def test_a_test_mail_in_the_provider_s_log_breaks_no_invariant(runtime: Runtime, tmp_path: Path) -> None:
    testmail.send(runtime, "email", "christmas", MINE, by="test")

    with runtime.database.connect() as connection:
        assert verify(connection, runtime.key_ring, tmp_path / "sandbox" / "outbox.jsonl").ok


def test_a_suppressed_address_gets_no_test_mail_either(runtime: Runtime) -> None:
    with runtime.database.begin() as connection:
        address_id = add_address(connection, runtime.key_ring, "email", MINE)
        assert address_id is not None
        suppression.add(connection, address_id, "complaint", source="test")

    with pytest.raises(Refused, match="suppressed"):
        testmail.send(runtime, "email", "christmas", MINE.upper(), by="test")


def test_what_is_no_address_or_no_template_is_said_in_one_line(runtime: Runtime) -> None:
    with pytest.raises(Refused, match="cannot be used"):
        testmail.send(runtime, "email", "christmas", "nobody", by="test")
    with pytest.raises(NotFound, match="no email template nonsense"):
        testmail.send(runtime, "email", "nonsense", MINE, by="test")
