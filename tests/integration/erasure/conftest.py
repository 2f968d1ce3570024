"""Ana, who will ask to be erased."""

from __future__ import annotations

from decimal import Decimal

import pytest
from erasing import EMAIL, PHONE, THEN, address
from people import add_person
from sqlalchemy import Engine, text

from dispatcher import clock, consent
from dispatcher.consent import ConsentChange
from dispatcher.events import Event, Item, record_events
from dispatcher.keys import KeyRing


@pytest.fixture
def ana(database: Engine, key_ring: KeyRing) -> int:
    """Somebody of whom we know all there is to know: consent on two channels, an order, evidence with an IP."""
    with database.begin() as connection:
        contact_id = add_person(
            connection, key_ring, "ana", email=EMAIL, phone=PHONE, locale="ro",
            granted=(("email", "offers"), ("email", "news"), ("sms", "offers")),
        )  # fmt: skip
        connection.execute(
            text('UPDATE contact SET attributes = \'{"club": "gold"}\', paused_until = now() WHERE id = :id'),
            {"id": contact_id},
        )
        item = Item(("christmas",), Decimal(2), Decimal("15.30"), {"engraving": "For Ana Pop"})
        order = Event("536365", "ana", "order.placed", THEN, Decimal("15.30"), {"gift_for": "Ana Pop"}, (item,))
        record_events(connection, key_ring, [order])
        seen = ConsentChange(
            contact_id, "email", "news", "granted", "person", "form", THEN, address(connection, contact_id),
            sealed={"ip": "192.0.2.7"},
        )  # fmt: skip
        consent.record(connection, key_ring, [seen], now=clock.read_now(connection))
    return contact_id
