"""Rows of the ledger, put there directly: what the HTTP room's tests stand on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, text

from dispatcher.keys import KeyRing


def wait_until(true: Callable[[], bool], *, seconds: float = 10) -> None:
    """Return as soon as `true()`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def waiting_for_a_lock(database: Engine) -> bool:
    """Return whether somebody in this database waits for a lock."""
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with database.connect() as connection:
        return bool(connection.scalar(text(f"SELECT EXISTS ({waiting})")))


def add_address(connection: Connection, key_ring: KeyRing, channel: str, normal: str) -> int:
    return connection.execute(
        text(
            "INSERT INTO address (channel, hash) VALUES (:channel, :hash) "
            "ON CONFLICT (channel, hash) DO UPDATE SET hash = EXCLUDED.hash RETURNING id"
        ),
        {"channel": channel, "hash": key_ring.address_hash(channel, normal)},
    ).scalar_one()


def add_contact(
    connection: Connection, key_ring: KeyRing, external_id: str, *, email: str | None = None, phone: str | None = None
) -> int:
    """Return the id of a new contact with its alias, addresses and sealed personal fields."""
    data_key, wrapped = key_ring.new_data_key()
    contact_id = connection.execute(
        text(
            "INSERT INTO contact (external_id, data_key, sealed, email_address_id, sms_address_id) "
            "VALUES (:external_id, :data_key, :sealed, :email, :sms) RETURNING id"
        ),
        {
            "external_id": external_id,
            "data_key": wrapped,
            "sealed": data_key.seal({"email": email, "phone": phone, "first_name": "Ana"}),
            "email": add_address(connection, key_ring, "email", email) if email else None,
            "sms": add_address(connection, key_ring, "sms", phone) if phone else None,
        },
    ).scalar_one()
    connection.execute(
        text("INSERT INTO contact_alias (external_id, contact_id) VALUES (:external_id, :id)"),
        {"external_id": external_id, "id": contact_id},
    )
    return int(contact_id)


def add_template(connection: Connection, name: str, channel: str, meta: str, hash_: str | None = None) -> str:
    hash_ = hash_ or f"{channel}-{name}-{uuid4().hex[:8]}"
    connection.execute(
        text("UPDATE template SET current = false WHERE channel = :channel AND name = :name AND current"),
        {"name": name, "channel": channel},
    )
    connection.execute(
        text(
            "INSERT INTO template (hash, channel, name, files) VALUES (:hash, :channel, :name, CAST(:files AS jsonb))"
        ),
        {"hash": hash_, "channel": channel, "name": name, "files": json.dumps({"meta.yaml": meta})},
    )
    return hash_


def add_run(
    connection: Connection, *, channel: str = "email", topic: str | None = "offers", class_: str = "marketing"
) -> UUID:
    """Return the id of a running run, of a campaign of its own."""
    run_id = uuid4()
    template_hash = add_template(connection, f"t-{run_id}", channel, f"class: {class_}\ntopic: {topic}\n")
    campaign_id = connection.scalar(
        text("INSERT INTO campaign (name, definition) VALUES (:name, '{}') RETURNING id"), {"name": f"c-{run_id}"}
    )
    connection.execute(
        text(
            """
            INSERT INTO run (id, campaign_id, name, occurrence_key, channel, topic, class, lane, definition,
                             template_hash, tzdata, nominal_at, as_of, state, created_at)
            VALUES (:id, :campaign_id, :name, 'once', :channel, :topic, :class, :lane, '{}', :template_hash,
                    '2026a', clock_timestamp(), clock_timestamp(), 'running', clock_timestamp())
            """
        ),
        {
            "id": run_id,
            "campaign_id": campaign_id,
            "name": f"c-{run_id}",
            "channel": channel,
            "topic": topic,
            "class": class_,
            "lane": f"{channel}.{'marketing' if class_ == 'marketing' else 'transactional'}",
            "template_hash": template_hash,
        },
    )
    return run_id


def add_message(
    connection: Connection,
    contact_id: int,
    address_id: int | None,
    *,
    run_id: UUID | None = None,
    status: str = "pending",
    channel: str = "email",
    topic: str | None = "offers",
    class_: str = "marketing",
    batch_id: int | None = None,
) -> UUID:
    """Return the id of a new message in `status`, due now, good for a day."""
    message_id = uuid4()
    left = status in ("sending", "sent", "delivered", "bounced", "unknown")
    connection.execute(
        text(
            f"""
            INSERT INTO message (id, run_id, contact_id, channel, topic, class, address_id, status, due_at,
                                 first_due_at, expires_at, batch_id, authorised_at)
            VALUES (:id, :run_id, :contact_id, :channel, :topic, :class, :address_id, :status, clock_timestamp(),
                    clock_timestamp(), clock_timestamp() + interval '1 day', :batch_id,
                    {"clock_timestamp()" if left else "NULL"})
            """
        ),
        {
            "id": message_id,
            "run_id": run_id or add_run(connection, channel=channel, topic=topic, class_=class_),
            "contact_id": contact_id,
            "channel": channel,
            "topic": topic,
            "class": class_,
            "address_id": address_id,
            "status": status,
            "batch_id": batch_id,
        },
    )
    return message_id


def settle(connection: Connection, message_id: UUID, status: str = "sent") -> None:
    connection.execute(
        text("UPDATE message SET status = :status, settled_at = clock_timestamp() WHERE id = :id"),
        {"id": message_id, "status": status},
    )
