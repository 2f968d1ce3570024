"""Doubt: settled by what a provider's record shows, sent again once where it may be, and kept for good after that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from feedback_rows import add_left, report, row_of, state_of
from sqlalchemy import Connection, Engine, text

from dispatcher import doubt, reports
from dispatcher.doubt import Doubtful, Sighting, settle_doubt
from dispatcher.feedback.recording import record
from dispatcher.feedback.report import Kind
from dispatcher.keys import KeyRing
from dispatcher.providers.sandbox import Sandbox


def in_doubt(
    database: Engine, key_ring: KeyRing, *, class_: str = "marketing", minutes: float = 0, provider: str = "sandbox"
) -> UUID:
    name = uuid4().hex
    with database.begin() as connection:
        message_id = add_left(connection, key_ring, status="unknown", class_=class_, external_id=name,
                              email=f"{name}@people.example")  # fmt: skip
        connection.execute(
            text("""UPDATE message SET provider = :provider, handed_over_at = NULL,
                    settled_at = settled_at - :ago, authorised_at = authorised_at - :ago WHERE id = :id"""),
            {"id": message_id, "provider": provider, "ago": timedelta(minutes=minutes)},
        )
    return message_id


def show(folder: Path, message_id: UUID, *, torn: bool = False) -> datetime:
    at = datetime.now(UTC)
    line = json.dumps({"message_id": str(message_id), "run": None, "at": at.isoformat()}, separators=(",", ":"))
    with (folder / "outbox.jsonl").open("a") as outbox:
        outbox.write(line[:60] + "\n" if torn else line + "\n")
    return at


def attempts(connection: Connection) -> list[tuple[int, str]]:
    return [tuple(row) for row in connection.execute(text("SELECT number, outcome FROM attempt ORDER BY number"))]


def test_what_the_sandbox_shows_was_sent_and_what_it_does_not_show_is_still_in_doubt(
    database: Engine, key_ring: KeyRing, tmp_path: Path
) -> None:
    sandbox = Sandbox(tmp_path / "sandbox", "email")
    shown, torn, missing = (in_doubt(database, key_ring) for _ in range(3))
    at = show(tmp_path / "sandbox", shown)
    show(tmp_path / "sandbox", torn, torn=True)

    assert settle_doubt(database, [sandbox]) == (1, 0)
    row = row_of(database, shown)
    assert (row.status, row.provider_ref, row.handed_over_at) == ("sent", f"sandbox-{shown}", at)
    assert {state_of(database, one)[0] for one in (torn, missing)} == {"unknown"}
    assert settle_doubt(database, [sandbox]) == (0, 0)

    show(tmp_path / "sandbox", missing)  # it was only late
    late = in_doubt(database, key_ring)  # and one whose line was read before it was in doubt
    assert settle_doubt(database, [sandbox]) == (1, 0)
    assert state_of(database, missing)[0] == "sent"
    show(tmp_path / "sandbox", late)
    assert settle_doubt(database, [sandbox]) == (1, 0)


def test_a_line_that_was_read_before_the_doubt_began_is_found(
    database: Engine, key_ring: KeyRing, tmp_path: Path
) -> None:
    sandbox = Sandbox(tmp_path / "sandbox", "email")
    first = in_doubt(database, key_ring)
    second = in_doubt(database, key_ring, provider="other")
    show(tmp_path / "sandbox", second)
    assert settle_doubt(database, [sandbox]) == (0, 0)

    with database.begin() as connection:
        connection.execute(text("UPDATE message SET provider = 'sandbox' WHERE id = :id"), {"id": second})
    assert settle_doubt(database, [sandbox]) == (1, 0)
    assert (state_of(database, first)[0], state_of(database, second)[0]) == ("unknown", "sent")


@pytest.mark.parametrize(
    ("class_", "minutes", "again"),
    [
        ("transactional", 9.9, False),
        ("transactional", 10.1, True),
        ("marketing", 10.1, False),
        ("security", 10.1, False),
        ("transactional", 72 * 60 + 1, False),
    ],
)
def test_only_a_transactional_message_is_sent_again_and_only_after_the_settle_time(
    database: Engine, key_ring: KeyRing, class_: str, minutes: float, again: bool
) -> None:
    message_id = in_doubt(database, key_ring, class_=class_, minutes=minutes)

    assert settle_doubt(database, []) == (0, int(again))
    assert state_of(database, message_id)[0] == ("pending" if again else "unknown")
    with database.connect() as connection:
        assert attempts(connection) == ([(1, "unknown")] if again else [])


def test_it_is_sent_again_once_and_never_after_it_expired(database: Engine, key_ring: KeyRing) -> None:
    once = in_doubt(database, key_ring, class_="transactional", minutes=11)
    expired = in_doubt(database, key_ring, class_="transactional", minutes=11)
    with database.begin() as connection:
        connection.execute(text("UPDATE message SET expires_at = clock_timestamp() WHERE id = :id"), {"id": expired})
    assert settle_doubt(database, []) == (0, 1)
    assert state_of(database, expired)[0] == "unknown"

    with database.connect() as connection:  # it may still be stopped
        assert reports.run_report(connection, row_of(database, once).run_id)["unknown"]["sent_again"] == 0
    with database.begin() as connection:  # and is in doubt again
        connection.execute(
            text("""UPDATE message SET status = 'sending', authorised_at = clock_timestamp() - interval '12 min',
                    authorise_seq = nextval('order_seq'), send_deadline = clock_timestamp(), attempts = 2,
                    provider = 'sandbox' WHERE id = :id"""), {"id": once})  # fmt: skip
        connection.execute(
            text("""UPDATE message SET status = 'unknown', settled_at = clock_timestamp() - interval '11 min'
                    WHERE id = :id"""), {"id": once})  # fmt: skip
    assert settle_doubt(database, []) == (0, 0)
    with database.connect() as connection:
        figures = reports.run_report(connection, row_of(database, once).run_id)["unknown"]
        assert figures == {"open": 1, "for_good": 0, "sent_again": 1}


def test_feedback_in_time_keeps_a_message_from_being_sent_again(database: Engine, key_ring: KeyRing) -> None:
    message_id = in_doubt(database, key_ring, class_="transactional", minutes=9)
    record(database, key_ring, [report(message_id, Kind.DELAYED, address=None)])
    with database.begin() as connection:
        connection.execute(text("UPDATE message SET settled_at = settled_at - interval '5 min'"))

    assert settle_doubt(database, []) == (0, 0)
    assert state_of(database, message_id)[0] == "sent"


def test_after_three_days_nobody_looks_any_more(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    old = in_doubt(database, key_ring, minutes=72 * 60 + 1)
    sandbox = Sandbox(tmp_path / "sandbox", "email")
    show(tmp_path / "sandbox", old)

    assert settle_doubt(database, [sandbox]) == (0, 0)
    with database.connect() as connection:
        assert doubt.figures_of(connection, row_of(database, old).run_id) == {"open": 0, "for_good": 1, "sent_again": 0}


def test_a_record_that_is_another_messages_of_the_same_address_settles_nothing(
    database: Engine, key_ring: KeyRing
) -> None:
    doubtful = in_doubt(database, key_ring, provider="records")
    with database.begin() as connection:
        contact = connection.execute(text("SELECT contact_id FROM message")).scalar_one()
        email = key_ring.open_data_key(
            connection.execute(text("SELECT data_key FROM contact")).scalar_one()
        ).open(connection.execute(text("SELECT sealed FROM contact")).scalar_one())["email"]  # fmt: skip
        add_left(connection, key_ring, contact_id=contact, email=email, ref="SM1")
        connection.execute(text("UPDATE message SET provider = 'records'"))

    class Records:
        name = "records"
        ref = "SM1"

        def look_up(self, wanted: Sequence[Doubtful]) -> list[Sighting]:
            return [Sighting(one.message_id, self.ref, None) for one in wanted]

    records = Records()
    assert settle_doubt(database, [records]) == (0, 0)
    records.ref = "SM2"
    assert settle_doubt(database, [records]) == (1, 0)
    assert state_of(database, doubtful)[0] == "sent"
