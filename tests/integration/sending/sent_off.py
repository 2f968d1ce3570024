"""Steps of the tests of sending: thirty people, planned and sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from dispatcher import runs
from dispatcher.plan import plan_page
from dispatcher.providers.protocol import Envelope, Moment, Receipt
from dispatcher.providers.sandbox import Sandbox
from dispatcher.registration import Registration, register
from dispatcher.sending import Hands, send_batch

PEOPLE = 30


class Says(Sandbox):
    """Gives everybody the same answer, and takes nothing."""

    def __init__(self, tmp_path: Path, receipt: Receipt) -> None:
        super().__init__(tmp_path / "sandbox", "email")
        self.receipt = receipt
        self.seen: list[Envelope] = []

    def hand_over(self, slice_: Any, moment: Moment, deadline: float) -> list[Receipt]:
        self.seen += slice_
        return [self.receipt for _ in slice_]


def worker(database: Engine, home: Path) -> Registration:
    return register(database, home, kind="marketing", queues=["email.marketing"], slots=2)


def planned(database: Engine, name: str = "hello") -> UUID:
    with database.begin() as connection:
        run_id = runs.start(connection, name, started_by="test", again=True)
    while plan_page(database, run_id):
        pass
    return run_id


def batches(connection: Connection) -> list[int]:
    return list(connection.scalars(text("SELECT id FROM batch WHERE state = 'ready' ORDER BY id")))


def send_all(hands: Hands) -> int:
    with hands.database.connect() as connection:
        waiting = batches(connection)
    return sum(send_batch(hands, batch_id) for batch_id in waiting)


def outbox(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "sandbox" / "outbox.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def statuses(database: Engine) -> dict[str, int]:
    with database.connect() as connection:
        rows = connection.execute(text("SELECT status, count(*) FROM message GROUP BY 1"))
        return dict(tuple(row) for row in rows)


def faults(tmp_path: Path, **what: Any) -> None:
    (tmp_path / "sandbox" / "faults.json").write_text(json.dumps(what))
