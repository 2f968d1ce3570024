"""The database goes away while a slice is out: what only the worker knows is kept until it is back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import pytest
from lost_commits import lossy_network
from people import add_person
from small_workspace import write_workspace
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from dispatcher import db, release, rescue, runs
from dispatcher.apply import apply
from dispatcher.db import engine_for
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page
from dispatcher.providers.protocol import Envelope, Moment, Receipt
from dispatcher.providers.sandbox import Sandbox
from dispatcher.rates import accounts
from dispatcher.registration import Registration, register
from dispatcher.rendering import Sender
from dispatcher.sending import Hands, send_batch
from dispatcher.workspace import read_workspace

PEOPLE = 5


@pytest.fixture
def batch(database: Engine, key_ring: KeyRing, tmp_path: Path) -> int:
    """A batch that is ready, of a run for five people."""
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace")), by="test")
        for number in range(PEOPLE):
            add_person(connection, key_ring, f"p{number}")
        run_id = runs.start(connection, "hello", started_by="test")
    while plan_page(database, run_id):
        pass
    [ticket] = release.release(database)
    return ticket.batch_id


class Interrupted(Sandbox):
    """A sandbox with which something happens once a slice is accepted, before anybody can write that down."""

    def __init__(self, folder: Path, happens: Callable[[], None]) -> None:
        super().__init__(folder, "email")
        self._happens = happens

    def hand_over(self, slice_: Sequence[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        receipts = super().hand_over(slice_, moment, deadline)
        self._happens()
        return receipts


def hands_of(database: Engine, key_ring: KeyRing, provider: Sandbox, registration: Registration) -> Hands:
    sender = Sender(key_ring, "https://shop.example")
    return Hands(database, sender, {"email": provider}, registration.worker_id, threading.Event())


def statuses(database: Engine) -> dict[str, int]:
    with database.connect() as connection:
        rows = connection.execute(text("SELECT status, count(*) FROM message GROUP BY 1"))
        return {row[0]: row[1] for row in rows}


@pytest.mark.parametrize(
    ("away", "back"),
    [
        ("ALLOW_CONNECTIONS false", "ALLOW_CONNECTIONS true"),
        ("SET default_transaction_read_only = on", "RESET default_transaction_read_only"),  # a full disk, a standby
    ],
)
def test_receipts_are_kept_until_the_database_is_back(
    batch: int, database: Engine, key_ring: KeyRing, servers: tuple[str, str], tmp_path: Path, away: str, back: str
) -> None:
    administrator = engine_for(servers[0]).execution_options(isolation_level="AUTOCOMMIT")
    name = database.url.database
    gone, waited = threading.Event(), threading.Event()

    def become(how: str) -> None:
        with administrator.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} {how}"))
            connection.execute(
                text("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = :name"),
                {"name": name},
            )

    def go_away() -> None:
        become(away)
        gone.set()

    registration = register(database, tmp_path, kind="marketing", queues=["email.marketing"], slots=1)
    hands = hands_of(database, key_ring, Interrupted(tmp_path / "sandbox", go_away), registration)
    sender = threading.Thread(target=lambda: (send_batch(hands, batch), waited.set()))
    sender.start()
    assert gone.wait(20)
    assert not waited.wait(0.5), "it must wait for the database"
    become(back)
    assert waited.wait(20)
    sender.join()

    assert statuses(database) == {"sent": PEOPLE}
    with database.connect() as connection:
        assert connection.scalar(text("SELECT state FROM batch WHERE id = :id"), {"id": batch}) == "done"


@pytest.mark.parametrize("arrives", [True, False])
def test_what_must_be_written_once_is_whether_or_not_the_lost_commit_arrived(database: Engine, arrives: bool) -> None:
    day = date(2026, 1, 1)
    with database.begin() as connection:
        accounts.authorised_on(connection, "hello@shop.example", day, lock=True)
    with lossy_network(database) as (network, engine):
        network.lose, network.arrives = b"warm_up_day", arrives
        db.once(engine, lambda connection: accounts.count_on(connection, "hello@shop.example", day, 3))

    assert network.lost == 1
    with database.connect() as connection:
        assert accounts.authorised_on(connection, "hello@shop.example", day) == 3


@pytest.mark.parametrize("arrives", [True, False])
def test_a_batch_whose_claim_lost_its_answer_is_let_go_at_once(
    batch: int, database: Engine, key_ring: KeyRing, tmp_path: Path, arrives: bool
) -> None:
    registration = register(database, tmp_path, kind="marketing", queues=["email.marketing"], slots=1)
    sandbox = Sandbox(tmp_path / "sandbox", "email")
    with lossy_network(database) as (network, engine):
        network.lose, network.arrives = b"UPDATE batch SET state = 'claimed'", arrives
        with pytest.raises(OperationalError):
            send_batch(hands_of(engine, key_ring, sandbox, registration), batch)
    assert network.lost == 1
    with database.begin() as connection:
        connection.execute(text("UPDATE batch SET ticketed_at = NULL"))
    [ticket] = release.release(database)  # nobody works at it, so nobody must be killed for it

    assert send_batch(hands_of(database, key_ring, sandbox, registration), ticket.batch_id) == PEOPLE


def test_what_could_never_be_settled_is_in_doubt_once_its_worker_is_dead(
    batch: int, database: Engine, key_ring: KeyRing, tmp_path: Path
) -> None:
    registration = register(database, tmp_path, kind="marketing", queues=["email.marketing"], slots=1)
    with database.begin() as connection:
        connection.execute(text("ALTER TABLE message ADD CHECK (status <> 'sent')"))  # no receipt can be written
    with pytest.raises(IntegrityError):
        send_batch(hands_of(database, key_ring, Sandbox(tmp_path / "sandbox", "email"), registration), batch)
    os.close(registration.descriptor)  # as its death does
    rescue.rescue(database)

    assert statuses(database) == {"unknown": PEOPLE}
