"""A small shop whose runs are started and sent by the test itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from small_workspace import FILES
from sqlalchemy import Connection, Engine, text

from dispatcher import release, runs, sending
from dispatcher.plan import plan_page
from dispatcher.providers.sandbox import Sandbox
from dispatcher.rates import taking
from dispatcher.sending import Hands, send_batch

PEOPLE = 6
SANDBOX = taking.Offer("sandbox", Sandbox.slice_size)
IMPORTANT = FILES["campaigns/hello.yaml"].replace("hello", "important") + "priority: 90\nexpires_after: 2h\n"


def started(database: Engine, name: str = "hello") -> UUID:
    with database.begin() as connection:
        run_id = runs.start(connection, name, started_by="test", again=True)
    while plan_page(database, run_id):
        pass
    return run_id


def send_all(hands: Hands) -> None:
    release.release(hands.database)
    for batch_id in ready(hands.database):
        send_batch(hands, batch_id)


def ready(database: Engine) -> list[int]:
    with database.connect() as connection:
        return list(connection.scalars(text("SELECT id FROM batch WHERE state = 'ready' ORDER BY id")))


def statuses(database: Engine, run_id: UUID | None = None) -> dict[str, int]:
    with database.connect() as connection:
        rows = connection.execute(
            text("""SELECT COALESCE(reason, deferred_reason, status), count(*) FROM message
                    WHERE CAST(:run AS uuid) IS NULL OR run_id = :run GROUP BY 1"""),
            {"run": run_id},
        )
        return {row[0]: row[1] for row in rows}


def contact(connection: Connection, external_id: str) -> int:
    return int(
        connection.scalar(text("SELECT contact_id FROM contact_alias WHERE external_id = :x"), {"x": external_id})
    )


def before_authorise(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Let something happen once, after a batch was rendered and before its first slice is authorised."""
    authorise = sending.authorise
    pending = [happens]

    def meddled(*args: Any, **kwargs: Any) -> Any:
        if pending:
            pending.pop()()
        return authorise(*args, **kwargs)

    monkeypatch.setattr(sending, "authorise", meddled)
