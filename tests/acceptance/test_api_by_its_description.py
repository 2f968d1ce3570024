"""schemathesis calls the API by its own description: nothing breaks it, and it keeps every word of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from people import add_person
from small_workspace import write_workspace
from sqlalchemy import Engine
from web_process import web_process

from dispatcher import api_keys
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.workspace import read_workspace

SEED = 20261125
#: One check is left out: it holds that whatever fits the schema is accepted, and no schema can say that a template of
#: this name is there, that a cron expression means something, or that an instant is not in the future.
LEFT_OUT = "positive_data_acceptance"


@pytest.fixture
def served(database: Engine, key_ring: KeyRing, broker_url: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The room with people and campaigns: its address, and a key with every scope and no limit to speak of."""
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace")), by="test")
        for number in range(20):
            add_person(connection, key_ring, f"c{number}")
        key = api_keys.create(connection, "fuzz", api_keys.SCOPES, requests_per_minute=10_000_000)
    url = database.url.render_as_string(hide_password=False)
    with web_process(url, broker_url, tmp_path / "home") as address:
        yield address, key


def call(served: tuple[str, str], folder: Path, *, examples: int, seed: int) -> dict[str, Any]:
    """Return schemathesis' report after so many examples of each operation."""
    address, key = served
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--header",
        f"Authorization: Bearer {key}", "--seed", str(seed), "--max-examples", str(examples), "--checks", "all",
        "--exclude-checks", LEFT_OUT, "--continue-on-failure", "--suppress-health-check", "all",
        "--report", "json", "--report-dir", str(folder),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    [report] = folder.glob("*.json")
    told: dict[str, Any] = json.loads(report.read_text())
    assert done.returncode == 0, done.stdout[-15_000:]
    assert (told["failures"], told["errors"], told["complete"]) == ([], [], True)
    return told


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_a_thousand_calls_find_nothing_that_breaks_or_breaches(served: tuple[str, str], tmp_path: Path) -> None:
    report = call(served, tmp_path, examples=2, seed=SEED)

    assert report["test_cases"]["generated"] >= 1_000


@pytest.mark.slow
@pytest.mark.timeout(5_400)
def test_twenty_thousand_calls_find_nothing_that_breaks_or_breaches(served: tuple[str, str], tmp_path: Path) -> None:
    report = call(served, tmp_path, examples=900, seed=SEED)

    assert report["test_cases"]["generated"] >= 20_000
