"""Messages that left, and what is reported of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from ledger_rows import add_address, add_contact, add_run
from sqlalchemy import Connection, Engine, text

from dispatcher.feedback.report import Kind, Report
from dispatcher.keys import KeyRing

EMAIL = "ana@people.example"
PHONE = "+447700900123"
AT = datetime(2026, 1, 5, 12, tzinfo=UTC)


def add_left(
    connection: Connection, key_ring: KeyRing, *, status: str = "sent", email: str = EMAIL, phone: str | None = None,
    external_id: str = "c1", channel: str = "email", class_: str = "marketing", run_id: UUID | None = None,
    contact_id: int | None = None, reason: str | None = None, ref: str | None = None,
) -> UUID:  # fmt: skip
    """Return the id of a message that was authorised, with everything its status needs."""
    if contact_id is None:
        contact_id = add_contact(connection, key_ring, external_id, email=email, phone=phone)
    address = email if channel == "email" else phone
    assert address is not None
    message_id = uuid4()
    run_id = run_id or add_run(
        connection, channel=channel, class_=class_, topic="offers" if class_ == "marketing" else None
    )
    connection.execute(
        text("""
            INSERT INTO message (id, run_id, contact_id, channel, topic, class, address_id, status, reason, due_at,
                first_due_at, expires_at, attempts, authorised_at, authorise_seq, send_deadline, handed_over_at,
                settled_at, provider, provider_ref)
            VALUES (:id, :run, :contact, :channel, :topic, :class, :address, :status, :reason, clock_timestamp(),
                clock_timestamp(), clock_timestamp() + interval '1 day', 1, clock_timestamp(), nextval('order_seq'),
                clock_timestamp() + interval '20 s',
                CASE WHEN :status <> 'sending' THEN clock_timestamp() END,
                CASE WHEN :status <> 'sending' THEN clock_timestamp() END, 'sendgrid', :ref)"""),
        {"id": message_id, "run": run_id, "contact": contact_id, "channel": channel, "class": class_,
         "topic": "offers" if class_ == "marketing" else None, "status": status, "reason": reason, "ref": ref,
         "address": add_address(connection, key_ring, channel, address)},
    )  # fmt: skip
    return message_id


def left(database: Engine, key_ring: KeyRing, **how: Any) -> UUID:
    """Add a message that left, as `add_left` does, in a transaction of its own."""
    with database.begin() as connection:
        return add_left(connection, key_ring, **how)


def report(message_id: UUID | None, kind: Kind | None, **more: Any) -> Report:
    """Return a report as a normaliser would; every one with an identity of its own unless told."""
    values: dict[str, Any] = {"source": "sendgrid", "channel": "email", "identity": str(uuid4()), "raw": {"a": "b"},
                              "kind": kind, "message_id": message_id, "address": EMAIL, "occurred_at": AT}  # fmt: skip
    return Report(**(values | more))


HARD = {"hard": True, "code": "5.1.1", "suppress": "hard_bounce"}
SPAM = {"suppress": "complaint"}


def row_of(database: Engine, message_id: UUID) -> Any:
    with database.connect() as connection:
        return connection.execute(text("SELECT * FROM message WHERE id = :id"), {"id": message_id}).one()


def state_of(database: Engine, message_id: UUID) -> tuple[str, str | None]:
    row = row_of(database, message_id)
    return row.status, row.reason


def suppressions(database: Engine) -> list[tuple[str, str]]:
    with database.connect() as connection:
        rows = connection.execute(text("SELECT reason, scope FROM suppression ORDER BY reason"))
        return [(row.reason, row.scope) for row in rows]


def flaws(database: Engine) -> list[str | None]:
    with database.connect() as connection:
        return list(connection.scalars(text("SELECT flaw FROM feedback ORDER BY id")))
