"""The command line alone, from an empty folder to a verified campaign: nothing configured, nothing running before."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from house import REPOSITORY, bare_environment, command, running

from dispatcher import embedded

pytestmark = pytest.mark.thorough

CONTRACT_COLUMNS = (
    "message_id", "contact", "channel", "topic", "status", "reason", "due_at", "authorised_at", "handed_over_at",
    "settled_at", "expires_at", "provider", "provider_ref", "address_hash",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder; what is made in it by the end goes away."""
    yield tmp_path
    embedded.remove(tmp_path / "shop" / ".dispatcher")


def test_a_campaign_from_an_empty_folder_to_its_verification(folder: Path) -> None:
    shop = folder / "shop"
    home = shop / ".dispatcher"

    def dispatcher(*arguments: str, where: Path = shop) -> str:
        done = command(arguments, bare_environment(), folder=where)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        assert running(home) == [], f"{arguments[0]} left something running"
        return done.stdout

    def answer(*arguments: str) -> Any:
        return json.loads(dispatcher(*arguments, "--json"))

    dispatcher("init", "shop", where=folder)
    assert {change["action"] for change in answer("apply")} == {"added"}
    _bring_in(answer)
    audience = answer("segment", "count", "christmas-fans")["count"]
    simulated = answer("campaign", "simulate", "christmas", "--by-hand")
    run_id = dispatcher("campaign", "start", "christmas", "--yes", "--wait", "--timeout", "120").strip()
    report = answer("run", "show", run_id)

    assert report["audience"] == simulated["audience"] == audience == sum(report["status"].values())
    assert report["state"] == "finished"
    assert report["status"] == {"sent": simulated["send"], "skipped": sum(simulated["skip"].values())}
    assert report["reasons"] == simulated["skip"]
    assert simulated["send"] > 100

    dispatcher("run", "export", run_id, "--to", "run.csv")
    rows = _rows(shop / "run.csv")
    assert set(CONTRACT_COLUMNS) <= set(rows[0])
    assert Counter(row["status"] for row in rows) == report["status"]
    assert Counter(row["reason"] for row in rows if row["reason"]) == report["reasons"]
    outbox = [json.loads(line) for line in (home / "sandbox" / "outbox.jsonl").read_text("utf-8").splitlines()]
    sent = [row for row in rows if row["status"] == "sent"]
    assert {mail["message_id"] for mail in outbox} == {row["message_id"] for row in sent}

    _explain(answer, next(row for row in rows if row["reason"] == "NO_CONSENT")["contact"], outbox[0])
    verified = answer("verify", "--provider-log", str(home / "sandbox" / "outbox.jsonl"))
    assert verified["ok"]
    unchecked = {one["name"] for one in verified["invariants"] if one["status"] == "not checked"}
    assert unchecked <= {"INV-17"}, "no lane has a rate, everything else can be checked"


def _bring_in(answer: Any) -> None:
    contacts = answer("import", "contacts", str(REPOSITORY / "examples/shop/contacts.csv"))
    assert contacts["read"] == contacts["created"] + contacts["merged"] > 400
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    orders = answer(
        "import", "events", str(REPOSITORY / "examples/shop/orders.csv.gz"),
        "--map", str(REPOSITORY / "examples/maps/online-retail.yaml"), "--rebase", yesterday,
    )  # fmt: skip
    assert orders["new"] > 1_000


def _explain(answer: Any, without_consent: str, mail: dict[str, Any]) -> None:
    refused = answer("explain", without_consent, "christmas")
    assert (refused["verdict"], refused["reason"]) == ("skip", "NO_CONSENT")
    assert answer("explain", mail["to"], "christmas")["reason"] == "CAPPED", "an address names its contact"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
