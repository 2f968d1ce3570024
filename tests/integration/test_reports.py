"""Every number of a run, against a ledger made at random and counted by hand."""

from __future__ import annotations

import csv
import io
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from ledger_rows import add_contact, add_run
from sqlalchemy import Connection, text

from dispatcher import reports
from dispatcher.errors import NotFound, Refused
from dispatcher.keys import KeyRing

#: What rows there can be: status, reason, deferred_reason.
KINDS = [
    ("pending", None, None),
    ("pending", None, "QUIET_HOURS"),
    ("pending", None, "CAPPED"),
    ("sending", None, None),
    ("sent", None, None),
    ("delivered", None, None),
    ("bounced", "HARD_BOUNCE", None),
    ("skipped", "NO_CONSENT", None),
    ("skipped", "CAPPED", None),
    ("skipped", "SUPPRESSED", None),
    ("failed", "RENDER_FAILED", None),
    ("cancelled", "OPERATOR", None),
    ("unknown", None, None),
]


class Ledger:
    """A run with rows drawn at random, some of its audience not yet planned."""

    def __init__(self, connection: Connection, key_ring: KeyRing, seed: int) -> None:
        random_source = random.Random(seed)
        self.run_id: UUID = add_run(connection)
        self.rows: list[tuple[str, str | None, str | None]] = []
        ids = []
        for number in range(random_source.randrange(1, 40)):
            ids.append(add_contact(connection, key_ring, f"{seed}-{number}", email=f"{seed}.{number}@people.example"))
        self.planned = random_source.randrange(0, len(ids) + 1)
        for contact_id in ids[: self.planned]:
            kind = random_source.choice(KINDS)
            self.rows.append(kind)
            add_row(connection, self.run_id, contact_id, *kind)
        self.audience = len(ids)
        for number, page in enumerate((ids[: self.planned], ids[self.planned :])):
            connection.execute(
                text(
                    "INSERT INTO audience_page (run_id, page, contact_ids, planned_at) "
                    "VALUES (:run, :page, :ids, CASE WHEN :planned THEN clock_timestamp() END)"
                ),
                {"run": self.run_id, "page": number, "ids": page, "planned": number == 0},
            )
        connection.execute(
            text("UPDATE run SET audience = :audience, pages = 2 WHERE id = :run"),
            {"audience": len(ids), "run": self.run_id},
        )


def add_row(
    connection: Connection, run_id: UUID, contact_id: int, status: str, reason: str | None, deferred: str | None
) -> None:
    connection.execute(
        text("""
            INSERT INTO message (id, run_id, contact_id, channel, topic, class, address_id, status, reason, due_at,
                                 first_due_at, deferred_reason, expires_at)
            SELECT :id, :run, id, 'email', 'offers', 'marketing', email_address_id, :status, :reason,
                   '2026-12-01T10:00:00.5Z', '2026-12-01T10:00:00Z', :deferred, '2026-12-02T10:00:00Z'
            FROM contact WHERE id = :contact"""),
        {
            "id": uuid4(),
            "run": run_id,
            "contact": contact_id,
            "status": status,
            "reason": reason,
            "deferred": deferred,
        },
    )


@pytest.fixture
def ledgers(connection: Connection, key_ring: KeyRing) -> list[Ledger]:
    return [Ledger(connection, key_ring, seed) for seed in range(15)]


def test_a_report_counts_what_the_ledger_holds(connection: Connection, ledgers: list[Ledger]) -> None:
    for ledger in ledgers:
        report = reports.run_report(connection, ledger.run_id)

        assert report["run"] == str(ledger.run_id)
        assert report["status"] == Counter(status for status, _, _ in ledger.rows)
        assert report["reasons"] == Counter(reason or late for _, reason, late in ledger.rows if reason or late)
        assert report["audience"] == ledger.audience == sum(report["status"].values()) + report["not_yet_planned"]


def test_the_lines_of_a_funnel_add_up_to_its_audience(connection: Connection, ledgers: list[Ledger]) -> None:
    for ledger in ledgers:
        first, *others, last = reports.funnel(reports.run_report(connection, ledger.run_id))

        assert (first.label, first.count) == ("audience", ledger.audience)
        assert sum(line.count for line in [*others, last]) == ledger.audience
        assert last.label == "sent"
        assert last.count == sum(status in ("sent", "delivered", "bounced") for status, _, _ in ledger.rows)
        shown = {line.label: line.count for line in others if line.status == "deferred"}
        assert shown == Counter(late for status, _, late in ledger.rows if status == "pending" and late)


def test_an_export_has_every_row_and_the_same_numbers(connection: Connection, ledgers: list[Ledger]) -> None:
    for ledger in ledgers:
        report = reports.run_report(connection, ledger.run_id)

        rows = as_csv(connection, ledger.run_id)

        assert Counter(row["status"] for row in rows) == report["status"]
        assert Counter(row["reason"] for row in rows if row["reason"]) == report["reasons"]
        assert len({row["contact"] for row in rows}) == len(rows) == ledger.planned


def as_csv(connection: Connection, run_id: UUID) -> list[dict[str, Any]]:
    """Write the export out and read it back."""
    written = io.StringIO()
    csv.writer(written).writerows(reports.export_run(connection, run_id))
    return list(csv.DictReader(io.StringIO(written.getvalue())))


def test_an_export_has_the_promised_columns_in_their_form(connection: Connection, key_ring: KeyRing) -> None:
    run_id = add_run(connection)
    contact_id = add_contact(connection, key_ring, "c-1", email="one@people.example")
    add_row(connection, run_id, contact_id, "pending", None, "QUIET_HOURS")

    (row,) = as_csv(connection, run_id)

    promised = (
        "message_id contact channel topic status reason due_at authorised_at handed_over_at settled_at expires_at "
        "provider provider_ref address_hash"
    )
    assert set(promised.split()) <= set(row)
    assert (row["contact"], row["reason"], row["authorised_at"]) == ("c-1", "QUIET_HOURS", "")
    assert row["due_at"] == "2026-12-01T10:00:00.500000Z"
    assert row["address_hash"] == key_ring.address_hash("email", "one@people.example").hex()


def test_an_export_never_holds_a_formula(connection: Connection, key_ring: KeyRing) -> None:
    formulas = ["=1+1", "+33", "-5", "@SUM(A1)", "\tx", "\rx"]
    run_id = add_run(connection)
    for external_id in formulas:
        add_row(connection, run_id, add_contact(connection, key_ring, external_id), "skipped", "NO_ADDRESS", None)

    assert {row["contact"] for row in as_csv(connection, run_id)} == {f"'{external_id}" for external_id in formulas}


def test_messages_asked_for_one_by_one_are_their_own_audience(connection: Connection, key_ring: KeyRing) -> None:
    run_id = add_run(connection, class_="transactional", topic=None)
    connection.execute(text("UPDATE run SET kind = 'standing', campaign_id = NULL WHERE id = :id"), {"id": run_id})
    add_row(connection, run_id, add_contact(connection, key_ring, "c", email="c@people.example"), "sent", None, None)

    report = reports.run_report(connection, run_id)

    assert [line.count for line in reports.funnel(report)] == [1, 1]
    assert reports.list_runs(connection) == []


def test_a_run_is_found_by_its_id_the_beginning_of_it_or_as_the_latest(connection: Connection) -> None:
    first, second = UUID(int=0xA1 << 120), UUID(int=0xA2 << 120)
    for run_id, at in ((first, datetime(2026, 1, 2, tzinfo=UTC)), (second, datetime(2026, 1, 1, tzinfo=UTC))):
        made = add_run(connection)
        connection.execute(
            text("UPDATE run SET id = :id, created_at = :at WHERE id = :made"), {"id": run_id, "at": at, "made": made}
        )

    assert reports.find_run(connection, str(first)) == first
    assert reports.find_run(connection, "a2") == second
    assert reports.find_run(connection, "A2") == second
    assert reports.find_run(connection, "latest") == first
    with pytest.raises(Refused, match="write more"):
        reports.find_run(connection, "a")
    for wanted in ("", "%", "b", "a1'; --", "_1"):
        with pytest.raises(NotFound):
            reports.find_run(connection, wanted)


def test_no_run_at_all_is_said(connection: Connection) -> None:
    with pytest.raises(NotFound, match="campaign start"):
        reports.find_run(connection, "latest")
    with pytest.raises(NotFound):
        reports.run_report(connection, uuid4())
