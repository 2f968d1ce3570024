"""A run that goes wrong pauses itself once, says why, and goes on when somebody has looked."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from feedback_rows import SPAM, add_left, report
from ledger_rows import add_contact, add_run
from sqlalchemy import Engine, text

from dispatcher import brake, reports, runs
from dispatcher.cli.runs import _remarks
from dispatcher.feedback.recording import record
from dispatcher.feedback.report import Kind
from dispatcher.keys import KeyRing

PEOPLE = 60


@pytest.fixture
def run_id(database: Engine, key_ring: KeyRing) -> UUID:
    """A run of sixty people, all of them sent to."""
    with database.begin() as connection:
        run_id = add_run(connection)
        definition = '{"name": "hello", "channel": "email", "segment": "everybody", "template": "hello"}'
        connection.execute(
            text("UPDATE run SET audience = :n, definition = CAST(:definition AS jsonb)"),
            {"n": PEOPLE, "definition": definition},
        )
        send(connection, key_ring, run_id, "first")
    return run_id


def send(connection: Any, key_ring: KeyRing, run_id: UUID, name: str) -> None:
    for number in range(PEOPLE):
        email = f"{name}{number}@people.example"
        contact_id = add_contact(connection, key_ring, f"{name}{number}", email=email)
        add_left(connection, key_ring, contact_id=contact_id, email=email, run_id=run_id)


def messages_of(database: Engine, run_id: UUID, name: str = "first") -> list[UUID]:
    with database.connect() as connection:
        return list(
            connection.scalars(
                text("""SELECT m.id FROM message m JOIN contact c ON c.id = m.contact_id
                        WHERE m.run_id = :run AND c.external_id LIKE :name ORDER BY m.contact_id"""),
                {"run": run_id, "name": f"{name}%"},
            )
        )


def bounce(database: Engine, key_ring: KeyRing, messages: list[UUID], *, name: str = "first") -> None:
    record(database, key_ring, [report(one, Kind.BOUNCED, hard=False, address=None) for one in messages])


def state(database: Engine, run_id: UUID) -> tuple[str, Any]:
    with database.connect() as connection:
        shown = reports.run_report(connection, run_id)
        return shown["state"], shown["brake"]


def test_too_many_bounces_pause_a_run_and_the_audit_knows(database: Engine, key_ring: KeyRing, run_id: UUID) -> None:
    bounce(database, key_ring, messages_of(database, run_id)[:4])
    assert brake.watch(database) == []

    bounce(database, key_ring, messages_of(database, run_id)[4:7])
    assert brake.watch(database) == [run_id]
    assert brake.watch(database) == []

    how, why = state(database, run_id)
    assert (how, why["because"], why["count"], why["of"]) == ("paused", "bounces", 7, PEOPLE)
    with database.connect() as connection:
        assert connection.execute(text("SELECT actor, action FROM audit")).one() == ("brake", "run.paused")
        lines = _remarks(reports.run_report(connection, run_id))
    assert lines[0] == "reported: 7 bounced"
    assert lines[1].startswith("paused by the brake: 7 bounces in 60 messages, 11.7% (the limit is 5.0%).")


def test_whoever_resumes_it_has_looked(database: Engine, key_ring: KeyRing, run_id: UUID) -> None:
    bounce(database, key_ring, messages_of(database, run_id)[:10])
    assert brake.watch(database) == [run_id]
    with database.begin() as connection:
        runs.resume(connection, run_id, by="ana")

    bounce(database, key_ring, messages_of(database, run_id)[10:20])  # of what was sent before
    assert brake.watch(database) == []
    assert state(database, run_id) == ("planning", None)

    with database.begin() as connection:
        send(connection, key_ring, run_id, "second")
    bounce(database, key_ring, messages_of(database, run_id, "second")[:10])
    assert brake.watch(database) == [run_id]


def test_complaints_are_counted_by_message(database: Engine, key_ring: KeyRing, run_id: UUID) -> None:
    first, second, third, *_ = messages_of(database, run_id)
    record(database, key_ring, [report(first, Kind.COMPLAINED, address=None, **SPAM) for _ in range(4)])
    record(database, key_ring, [report(second, Kind.COMPLAINED, address=None, **SPAM)])
    assert brake.watch(database) == []

    record(database, key_ring, [report(third, Kind.COMPLAINED, address=None, **SPAM)])
    assert brake.watch(database) == [run_id]
    assert state(database, run_id)[1]["because"] == "complaints"


@pytest.mark.parametrize(
    ("becomes", "because"),
    [("status = 'unknown'", "unknown outcomes"),
     ("status = 'failed', reason = 'REJECTED'", "bounces"),
     ("status = 'failed', reason = 'RENDER_FAILED', authorised_at = NULL, authorise_seq = NULL", "render failures")],
)  # fmt: skip
def test_doubt_and_templates_that_break_pause_a_run_too(
    database: Engine, run_id: UUID, becomes: str, because: str
) -> None:
    with database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(f"UPDATE message SET {becomes} WHERE id IN (SELECT id FROM message LIMIT 7)"))

    assert brake.watch(database) == [run_id]
    assert state(database, run_id)[1]["because"] == because


def test_what_a_dead_worker_left_in_doubt_pauses_nothing(database: Engine, run_id: UUID) -> None:
    with database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE message SET status = 'unknown', handed_over_at = NULL"))

    assert brake.watch(database) == []


def test_a_run_that_somebody_cancelled_meanwhile_stays_cancelled(
    database: Engine, key_ring: KeyRing, run_id: UUID
) -> None:
    bounce(database, key_ring, messages_of(database, run_id)[:10])
    with database.begin() as connection:
        runs.cancel(connection, run_id, by="ana")

    assert brake.watch(database) == []
    assert state(database, run_id) == ("cancelled", None)
