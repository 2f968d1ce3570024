"""A WooCommerce webhook: topic and body -> what it says, in our words.

Sources: WooCommerce's REST reference v3, whose objects are the bodies; class-wc-webhook.php (of what was deleted a body
holds only the `id`; drafts of a checkout are told as updated, woocommerce#66995); the controllers of the REST API v1
(without `*_gmt`: when something was made or changed is UTC all the same, only when it was paid is local time; the meta
of a line is `meta`).  WooCommerce knows no consent: whatever a plugin writes into `meta_data` is nothing we could show
as evidence, so a grant is never made of it.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from dispatcher.contacts import Particulars
from dispatcher.feedback.inbox import NotUnderstood
from dispatcher.storefronts import reading
from dispatcher.storefronts.reading import Fields, Reading, Told

#: It was written down, and nobody has paid or promised to: what the shop would call a cart.
_UNPAID = ("pending",)
#: Neither a cart nor an order.
_NOTHING_YET = ("failed", "checkout-draft", "auto-draft", "draft", "new", "trash")
#: What WordPress writes over the address of whoever it has erased (wp_privacy_anonymize_data).
_ERASED_THERE = "deleted@site.invalid"


def read(topic: str, body: Fields, how: Reading) -> Told | None:
    """Return what a body says; None if we do not heed the topic.  NotUnderstood if the body is not of its topic."""
    translate = _TOPICS.get(topic.strip().lower())
    return None if translate is None else translate(body, how)


def _order(order: Fields, how: Reading) -> Told:
    """An order that was made or changed: whichever comes first says that it was placed, and that stays."""
    if isinstance(order.get("order"), dict):
        raise NotUnderstood("a body of the legacy API; set the API version of this webhook to WP REST API v3")
    reading.need(order, "status", "billing", "line_items")
    number = reading.needed_number(order, "id")
    status = (reading.words(order.get("status"), 100) or "").removeprefix("wc-")
    customer_id = reading.number(order, "customer_id")  # 0: a guest
    who = reading.named(how, customer_id, _particulars(order))
    happened = _events(order, number, status, how)
    if who is None or not happened:  # a draft is what somebody types, and has sent to nobody
        return Told()
    events = [
        how.event(raw | {"contact": who.external_id, "properties": _of_order(number) | raw["properties"]})
        for raw in happened
    ]
    return Told(customer_id, who, None, (), tuple(events), first_stays=True)


def _events(order: Fields, number: str, status: str, how: Reading) -> list[dict[str, Any]]:
    whole = {
        "occurred_at": how.at(_time(order, "date_created")),
        "value": reading.amount(order.get("total")),
        "properties": reading.plain(
            {
                "number": reading.words(order.get("number"), 100),
                "total": reading.amount(order.get("total")),
                "currency": reading.currency(order.get("currency")),
                "channel": reading.words(order.get("created_via"), 100),
            }
        ),
        "items": [_item(line, how) for line in reading.lines(order, "line_items")],
    }
    if status in _UNPAID:
        return [whole | {"source_key": f"checkout-{number}", "name": "checkout.started"}]
    if status in _NOTHING_YET:
        return []
    placed = whole | {"source_key": f"order-{number}", "name": "order.placed"}
    if status != "cancelled":
        return [placed]
    cancelled = {
        "source_key": f"order-{number}-cancelled",
        "name": "order.cancelled",
        "occurred_at": how.at(_time(order, "date_modified")),
        "value": whole["value"],
        "properties": {},
    }
    was_paid = reading.words(order.get("date_paid_gmt")) or reading.words(order.get("date_paid"))
    return [placed, cancelled] if was_paid else [cancelled]


def _of_order(number: str) -> dict[str, Any]:
    """An unpaid order and the order it becomes are one, so its number is that of the cart, too."""
    return {"order_id": number, "cart_id": number}


def _item(line: Fields, how: Reading) -> dict[str, Any]:
    quantity = reading.amount(line.get("quantity"))
    quantity = Decimal(1) if quantity is None or quantity < 0 else quantity
    total = reading.amount(line.get("total")) or Decimal(0)
    price = reading.amount(line.get("price"))
    if price is None:
        price = reading.amount(total / quantity) if quantity else total
    meta = reading.lines(line, "meta_data") or reading.lines(line, "meta")
    said = {str(each.get("key")): each.get("value") for each in meta}
    name = reading.words(line.get("name"))
    return {
        "interest": reading.interests_of(line, how.interests, said),
        "quantity": quantity,
        "value": total,
        "properties": {"name": html.unescape(name or ""), "price": price}
        | reading.plain(
            {
                "sku": reading.words(line.get("sku"), 200),
                "product_id": reading.number(line, "product_id"),
                "variant_id": reading.number(line, "variation_id"),
            }
        ),
    }


def _time(record: Fields, name: str) -> Any:
    """Return what a record says in UTC; v1 of the API says it under the name that is local time in the later ones."""
    return record.get(f"{name}_gmt", record.get(name) if "date_created_gmt" not in record else None)


def _particulars(record: Fields) -> Particulars:
    """Return what an order or a customer says of a person: the address of the bill is theirs."""
    home = reading.part(record, "billing")
    if reading.email(home.get("email")) == _ERASED_THERE:
        return Particulars("")
    where = reading.country(home.get("country"))
    emails = (record.get("email"), home.get("email"))
    return Particulars(
        "",
        email=next(filter(None, map(reading.email, emails)), None),
        phone=reading.phone(home.get("phone"), where),
        first_name=reading.words(record.get("first_name")) or reading.words(home.get("first_name")),
        last_name=reading.words(record.get("last_name")) or reading.words(home.get("last_name")),
        postal_code=reading.words(home.get("postcode"), 20),
        country=where,
        subdivision=reading.subdivision(home.get("state")),
    )


def _customer(customer: Fields, how: Reading) -> Told:
    reading.need(customer, "email", "billing")
    customer_id = reading.needed_number(customer, "id")
    changed = _time(customer, "date_modified") or _time(customer, "date_created")
    who = reading.named(how, customer_id, _particulars(customer))
    return Told(customer_id, who, reading.instant(changed, how.received_at))


def _customer_created(customer: Fields, how: Reading) -> Told:
    told = _customer(customer, how)
    event = _happened(how, str(told.customer_id), "created", how.at(_time(customer, "date_created")))
    return Told(told.customer_id, told.particulars, told.changed_at, events=(event,), first_stays=True)


def _customer_deleted(customer: Fields, how: Reading) -> Told:
    """No erasure: that is asked for by the person, or by the operator."""
    customer_id = reading.needed_number(customer, "id")
    event = _happened(how, customer_id, "deleted", how.at())
    who = reading.named(how, customer_id, Particulars(""))
    return Told(customer_id, who, events=(event,), first_stays=True, only_if_known=True)


def _order_deleted(order: Fields, how: Reading) -> Told:
    """Moved to the bin: whose order it was is known from when it was placed."""
    number = reading.needed_number(order, "id")
    event = how.event(
        {
            "source_key": f"order-{number}-deleted",
            "contact": "?",
            "name": "order.deleted",
            "occurred_at": how.at(),
            "properties": _of_order(number),
        }
    )
    return Told(events=(event,), first_stays=True, order=number)


def _happened(how: Reading, customer_id: str, what: str, at: str) -> Any:
    return how.event(
        {
            "source_key": f"customer-{customer_id}-{what}",
            "contact": f"{how.source}-{customer_id}",
            "name": f"customer.{what}",
            "occurred_at": at,
        }
    )


_TOPICS: dict[str, Callable[[Fields, Reading], Told]] = {
    "order.created": _order,
    "order.updated": _order,
    "order.restored": _order,
    "order.deleted": _order_deleted,
    "customer.created": _customer_created,
    "customer.updated": _customer,
    "customer.deleted": _customer_deleted,
}
TOPICS = frozenset(_TOPICS)
#: Customers may be changed by the ten thousand, and nobody waits for that.
URGENT = TOPICS - {"customer.created", "customer.updated", "customer.deleted"}
