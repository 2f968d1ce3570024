"""A shop whose every step a test takes itself: fire, plan, release, send, and the clock moved in between."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from small_workspace import FILES, write_workspace
from sqlalchemy import Engine, text

from dispatcher import clock, release, runs
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page
from dispatcher.providers.sandbox import Sandbox
from dispatcher.registration import register
from dispatcher.rendering import Sender
from dispatcher.sending import Hands, send_batch
from dispatcher.workspace import read_workspace

HELLO = FILES["campaigns/hello.yaml"]


def campaign(name: str, more: str = "") -> dict[str, str]:
    """Return the file of a campaign to everybody, with lines of its own."""
    return {f"campaigns/{name}.yaml": HELLO.replace("hello", name) + more}


class AtWork:
    def __init__(
        self, database: Engine, key_ring: KeyRing, home: Path, workspace: Mapping[str, str | None], *, starts: datetime
    ) -> None:
        self.database, self.key_ring, self.home = database, key_ring, home
        self.move_to(starts)
        self.apply(workspace)
        registration = register(database, home, kind="marketing", queues=["email.marketing"], slots=2)
        provider = {channel: Sandbox(home / "sandbox", channel) for channel in ("email", "sms")}
        sender = Sender(key_ring, "https://shop.example")
        self.hands = Hands(database, sender, provider, registration.worker_id, threading.Event())

    def apply(self, workspace: Mapping[str, str | None]) -> None:
        with self.database.begin() as connection:
            apply(connection, read_workspace(write_workspace(self.home / "workspace", dict(workspace))), by="test")

    # --- the clock

    def move_to(self, moment: datetime) -> None:
        """Set the engine's clock to `moment`; it goes on from there."""
        with self.database.begin() as connection:
            clock.shift(connection, moment - datetime.now(UTC), sandbox_only=True)

    def now(self) -> datetime:
        with self.database.connect() as connection:
            return clock.read_now(connection)

    # --- steps

    def start(self, name: str) -> UUID:
        with self.database.begin() as connection:
            return runs.start(connection, name, started_by="test", again=True)

    def fire(self, name: str, nominal_at: datetime) -> UUID:
        """Fire an occurrence as the clock would, now."""
        with self.database.begin() as connection:
            run_id = runs.fire(
                connection, name, occurrence_key=f"{nominal_at:%Y-%m-%dT%H:%M} UTC", nominal_at=nominal_at,
                now=clock.read_now(connection), started_by="schedule",
            )  # fmt: skip
        assert run_id is not None
        return run_id

    def plan(self, run_id: UUID) -> UUID:
        while plan_page(self.database, run_id):
            pass
        return run_id

    def pages_of(self, run_id: UUID, size: int) -> int:
        """Cut the run's audience into pages of so many; return how many."""
        with self.database.begin() as connection:
            everybody = connection.scalar(
                text("""SELECT array_agg(c ORDER BY c) FROM audience_page p, unnest(p.contact_ids) c
                        WHERE p.run_id = :run"""), {"run": run_id}
            )  # fmt: skip
            connection.execute(text("DELETE FROM audience_page WHERE run_id = :run"), {"run": run_id})
            pages = [everybody[start : start + size] for start in range(0, len(everybody), size)]
            for page, ids in enumerate(pages):
                connection.execute(
                    text("INSERT INTO audience_page (run_id, page, contact_ids) VALUES (:run, :page, :ids)"),
                    {"run": run_id, "page": page, "ids": ids},
                )
        return len(pages)

    def release(self) -> list[int]:
        """Release what is due, and return the batches that are ready."""
        release.release(self.database)
        with self.database.connect() as connection:
            return list(connection.scalars(text("SELECT id FROM batch WHERE state = 'ready' ORDER BY id")))

    def send(self) -> None:
        """Send until nothing is due any more."""
        while batches := self.release():
            for batch_id in batches:
                send_batch(self.hands, batch_id)

    def do(self, statement: str, **parameters: Any) -> None:
        with self.database.begin() as connection:
            connection.execute(text(statement), parameters)

    # --- what is seen

    def rows(self, run_id: UUID) -> dict[str, Any]:
        """Return the run's rows by external id; `became` is the reason of a row, else its status."""
        with self.database.connect() as connection:
            found = connection.execute(
                text("""SELECT c.external_id, COALESCE(m.reason, m.deferred_reason, m.status) AS became, m.*
                        FROM message m JOIN contact c ON c.id = m.contact_id WHERE m.run_id = :run"""), {"run": run_id}
            )  # fmt: skip
            return {row.external_id: row for row in found}

    def became(self, run_id: UUID) -> dict[str, int]:
        return dict(Counter(row.became for row in self.rows(run_id).values()))

    def sent(self) -> set[tuple[str, str]]:
        """Return who was sent what: (external id, campaign)."""
        with self.database.connect() as connection:
            found = connection.execute(
                text("""SELECT c.external_id, r.name FROM message m JOIN contact c ON c.id = m.contact_id
                        JOIN run r ON r.id = m.run_id WHERE m.status = 'sent'""")
            )
            return {(row.external_id, row.name) for row in found}


def noon_ahead() -> datetime:
    """Return noon in London (and in UTC) of a Wednesday in winter, later than any real clock the tests run by."""
    day = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) + timedelta(days=1)
    while day.weekday() != 2 or day.month not in (1, 12):
        day += timedelta(days=1)
    return day
