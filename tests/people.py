"""People for the tests: contacts with addresses and consent, written the way the product writes them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, text

from dispatcher import clock
from dispatcher.consent import ConsentChange, record
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts
from dispatcher.places.tables import phone_region

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def add_address(connection: Connection, key_ring: KeyRing, channel: str, normal: str | None) -> int | None:
    if normal is None:
        return None
    return int(
        connection.execute(
            text("""INSERT INTO address (channel, hash) VALUES (:channel, :hash)
                    ON CONFLICT (channel, hash) DO UPDATE SET hash = EXCLUDED.hash RETURNING id"""),
            {"channel": channel, "hash": key_ring.address_hash(channel, normal)},
        ).scalar_one()
    )


def add_person(
    connection: Connection,
    key_ring: KeyRing,
    external_id: str,
    *,
    email: str | None = "",
    phone: str | None = None,
    zone: str | None = "Europe/London",
    country: str | None = "GB",
    subdivision: str | None = None,
    granted: tuple[tuple[str, str], ...] = (("email", "offers"),),
    locale: str | None = None,
) -> int:
    """Return the id of a new contact; `email=""` gives them one of their own, None gives none."""
    email = f"{external_id}@people.example" if email == "" else email
    data_key, wrapped = key_ring.new_data_key()
    addresses = {
        "email": add_address(connection, key_ring, "email", email),
        "sms": add_address(connection, key_ring, "sms", phone),
    }
    contact_id = int(
        connection.execute(
            text("""INSERT INTO contact (external_id, data_key, sealed, email_address_id, sms_address_id, zone, country,
                                         subdivision, locale, phone_region)
                    VALUES (:external_id, :data_key, :sealed, :email, :sms, :zone, :country, :subdivision, :locale,
                            :phone_region) RETURNING id"""),
            {
                "external_id": external_id,
                "data_key": wrapped,
                "sealed": data_key.seal({"email": email, "phone": phone, "first_name": f"First{external_id}"}),
                "email": addresses["email"],
                "sms": addresses["sms"],
                "zone": zone,
                "country": country,
                "locale": locale,
                "subdivision": subdivision,
                "phone_region": phone_region(phone) if phone else None,
            },
        ).scalar_one()
    )
    connection.execute(
        text("INSERT INTO contact_alias (external_id, contact_id) VALUES (:external_id, :id)"),
        {"external_id": external_id, "id": contact_id},
    )
    say(connection, key_ring, contact_id, [(channel, topic, "granted") for channel, topic in granted])
    return contact_id


def say(connection: Connection, key_ring: KeyRing, contact_id: int, words: list[tuple[str, str, str]]) -> None:
    """Record consent in the person's own words: (channel, topic, action)."""
    row = connection.execute(
        text("SELECT email_address_id AS email, sms_address_id AS sms FROM contact WHERE id = :id"), {"id": contact_id}
    ).one()
    lock_contacts(connection, [contact_id])
    lock_addresses(connection, [address for address in row if address is not None])
    now = clock.read_now(connection)
    changes = [
        ConsentChange(
            contact_id,
            channel,
            topic,
            action,
            "person",
            "test",
            address_id=row._mapping[channel],
            occurred_at=LONG_AGO if action == "granted" else None,
        )
        for channel, topic, action in words
    ]
    record(connection, key_ring, changes, now=now)
