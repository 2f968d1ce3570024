"""A shop's first campaign by the command line alone, with real servers and real rooms."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_workspace import write_workspace

CONTACTS = """\
contact_id,email,first_name,country,timezone,email_consent,email_consent_at
k1,k1@people.example,Ana,GB,Europe/London,subscribed,2026-01-02T03:04:05Z
k2,k2@people.example,Ben,FR,Europe/Paris,unsubscribed,2026-01-02T03:04:05Z
k3,k3@people.example,Cem,GB,Europe/London,subscribed,2026-01-02T03:04:05Z
k4,,Dan,GB,Europe/London,,
"""


@pytest.fixture
def environment(database_url: str, broker_url: str, tmp_path: Path) -> dict[str, str]:
    """Settings of this test's own; where no real broker is at hand, the embedded one is started under its home."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    settings |= {"DISPATCHER_DATABASE_URL": database_url, "DISPATCHER_HOME": str(tmp_path / "home")}
    if broker_url != "redis://unused":
        settings["DISPATCHER_BROKER_URL"] = broker_url
    return settings


def test_a_campaign_from_an_empty_folder_to_its_export(environment: dict[str, str], tmp_path: Path) -> None:
    folder = write_workspace(tmp_path / "workspace")
    (tmp_path / "contacts.csv").write_text(CONTACTS)

    def dispatcher(*arguments: str) -> str:
        command = [sys.executable, "-c", "from dispatcher.cli import main; main()", *arguments]
        ended = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def reading(*arguments: str) -> Any:
        return json.loads(dispatcher(*arguments, "--json"))

    dispatcher("apply")
    dispatcher("import", "contacts", str(tmp_path / "contacts.csv"))
    simulated = reading("campaign", "simulate", "hello")

    run_id = dispatcher("campaign", "start", "hello", "--yes", "--wait", "--timeout", "60").strip()

    report = reading("run", "show", run_id)
    assert (report["state"], report["audience"], report["not_yet_planned"]) == ("finished", 4, 0)
    assert report["status"] == {"sent": 2, "skipped": 2}
    assert report["reasons"] == simulated["skip"] == {"NO_CONSENT": 1, "NO_ADDRESS": 1}
    assert simulated["send"] == report["status"]["sent"]
    exported = list(csv.DictReader(io.StringIO(dispatcher("run", "export", "latest"))))
    assert {row["contact"]: row["status"] for row in exported} == {
        "k1": "sent",
        "k2": "skipped",
        "k3": "sent",
        "k4": "skipped",
    }
    outbox = tmp_path / "home" / "sandbox" / "outbox.jsonl"
    assert {json.loads(line)["contact"] for line in outbox.read_text().splitlines()} == {"k1", "k3"}
    assert reading("verify", "--provider-log", str(outbox))["ok"]
    assert reading("explain", "k1", "hello")["reason"] == "CAPPED"
