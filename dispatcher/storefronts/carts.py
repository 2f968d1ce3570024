"""Which order a cart became, and whose an order is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from dispatcher.events import Event

Cart = tuple[int, str, str]  # contact, storefront, and the cart's id there

_ORDERED = text("""
    SELECT x.position FROM unnest(
        CAST(:contacts AS bigint[]), CAST(:sources AS text[]), CAST(:carts AS text[]), CAST(:instants AS timestamptz[])
    ) WITH ORDINALITY AS x (contact_id, source, cart, at, position)
    JOIN contact c ON c.id = x.contact_id
    WHERE EXISTS (
        SELECT FROM event e WHERE e.contact_id = COALESCE(c.merged_into, c.id) AND e.name = 'order.placed'
            AND e.source = x.source AND e.properties ->> 'cart_id' = x.cart AND e.occurred_at < x.at)
""")


def ordered_before(connection: Connection, events: Sequence[tuple[int, Event]]) -> set[int]:
    """Return which of these (contact, event) are a cart as it was told of after its order: no cart any more.

    By `id()`.  The order is recorded, or comes earlier among these; one that comes later ends the flow by itself.
    """
    asked: list[tuple[Cart, Event]] = []
    ordered: dict[Cart, datetime] = {}
    over = set()
    for contact_id, event in events:
        if (cart_id := event.properties.get("cart_id")) is None:
            continue
        cart = contact_id, event.source, str(cart_id)
        if event.name == "order.placed":
            ordered[cart] = min(event.occurred_at, ordered.get(cart, event.occurred_at))
        elif event.name == "checkout.started":
            asked.append((cart, event))
            if cart in ordered and ordered[cart] < event.occurred_at:
                over.add(id(event))
    if not asked:
        return over
    contacts, sources, carts = zip(*(cart for cart, _ in asked), strict=True)
    values = {"contacts": list(contacts), "sources": list(sources), "carts": list(carts)}
    instants = [event.occurred_at for _, event in asked]
    recorded = connection.scalars(_ORDERED, values | {"instants": instants})
    return over | {id(asked[position - 1][1]) for position in recorded}


def buyer_of(connection: Connection, source: str, order: str | None) -> str | None:
    """Return the external id of whoever placed an order, or began to; None if it is not known."""
    found: str | None = connection.scalar(
        text("""SELECT c.external_id FROM event e JOIN contact c ON c.id = e.contact_id
                WHERE e.source = :source AND e.source_key = ANY(:keys) LIMIT 1"""),
        {"source": source, "keys": [f"order-{order}", f"checkout-{order}"]},
    )
    return found
