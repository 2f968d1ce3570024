"""A Shopify webhook: topic and body -> what it says, in our words.

Sources: Shopify's webhook reference (topics and bodies, 2024-10 to 2026-07) and the REST objects they share.  The two
consent topics name the customer by different keys: `customer_id` with e-mail, `id` with SMS.  Whether a box was ticked
at the checkout (`buyer_accepts_marketing`) has no time of its own and says nothing here: the consent topics tell it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

import orjson

from dispatcher.contacts import Particulars
from dispatcher.feedback.inbox import NotUnderstood
from dispatcher.imports.contact_rows import CONSENT_WORDS
from dispatcher.storefronts import reading
from dispatcher.storefronts.reading import Claim, Fields, Reading, Request, Told

_LEVELS = ("single_opt_in", "confirmed_opt_in")
#: What a customer's record has some of: Shopify leaves out what an app may not see.
_OF_A_CUSTOMER = {"first_name", "last_name", "email", "phone", "verified_email", "default_address", "addresses"}
#: An order that was processed so long before Shopify made its record was brought in from elsewhere.
_BROUGHT_IN = timedelta(days=1)


def read(topic: str, body: Fields, how: Reading) -> Told | None:
    """Return what a body says; None if the topic is none we listen to.  NotUnderstood if the body is not of its topic.

    A topic is `orders/create` in the header, and ORDERS_CREATE in Shopify's own libraries.
    """
    translate = _TOPICS.get(topic.strip().lower().replace("/", "_"))
    return None if translate is None else translate(body, how)


def _order_placed(order: Fields, how: Reading) -> Told:
    reading.need(order, "line_items")
    number = reading.needed_number(order, "id", "admin_graphql_api_id")
    event = {
        "source_key": f"order-{number}",
        "name": "order.placed",
        "occurred_at": _placed_at(order, how),
        "value": reading.amount(order.get("total_price")),
        "properties": _of_order(order, number)
        | reading.plain(
            {
                "number": reading.words(order.get("name"), 100),
                "total": reading.amount(order.get("total_price")),
                "currency": reading.currency(order.get("currency")),
                "channel": reading.words(order.get("source_name"), 100),
                "test": order.get("test") is True or None,
            }
        ),
        "items": _items(order, how),
    }
    return _about(order, how, event, order_status_url=reading.words(order.get("order_status_url"), 2_000))


def _order_cancelled(order: Fields, how: Reading) -> Told:
    reading.need(order, "line_items", "cancelled_at")
    number = reading.needed_number(order, "id", "admin_graphql_api_id")
    event = {
        "source_key": f"order-{number}-cancelled",
        "name": "order.cancelled",
        "occurred_at": how.at(order.get("cancelled_at"), order.get("updated_at")),
        "value": reading.amount(order.get("total_price")),
        "properties": _of_order(order, number)
        | reading.plain(
            {
                "number": reading.words(order.get("name"), 100),
                "currency": reading.currency(order.get("currency")),
                "reason": reading.words(order.get("cancel_reason"), 100),
            }
        ),
    }
    return _about(order, how, event, first_stays=True)


def _placed_at(order: Fields, how: Reading) -> str:
    """Return when the order was placed, as JSON.  What was brought in from elsewhere happened when it was processed."""
    made = reading.instant(order.get("created_at"), how.received_at)
    processed = reading.instant(order.get("processed_at"), how.received_at)
    if made and processed and made - processed > _BROUGHT_IN:
        return processed.isoformat()
    return how.at(order.get("created_at"), order.get("processed_at"))


def _of_order(order: Fields, number: str) -> dict[str, Any]:
    """Return what links an order with what is told of it later, and with the cart it was."""
    cart = reading.words(order.get("checkout_token"), 200)
    return reading.plain({"order_id": number, "cart_id": cart})


def _checkout(checkout: Fields, how: Reading) -> Told:
    """A checkout under way, or one that has become an order: each state of it is an event of its own.

    Its key names the state: two updates within a second are told apart, and a repeated one is known.
    """
    reading.need(checkout, "token", "line_items")
    token = reading.words(checkout.get("token"), 100)
    completed = checkout.get("completed_at") is not None
    url = reading.words(checkout.get("abandoned_checkout_url"), 2_000)
    event = {
        "name": "checkout.completed" if completed else "checkout.started",
        "occurred_at": how.at(*(checkout.get(name) for name in ("completed_at", "updated_at", "created_at"))),
        "value": reading.amount(checkout.get("total_price")),
        "properties": reading.plain(
            {
                "cart_id": token,
                "total": reading.amount(checkout.get("total_price")),
                "currency": reading.currency(checkout.get("currency")),
            }
        ),
        "items": _items(checkout, how),
    }
    said = event | {"occurred_at": reading.words(checkout.get("updated_at"), 100)}
    state = orjson.dumps([said, url], default=str, option=orjson.OPT_SORT_KEYS)
    event["source_key"] = f"checkout-{token}-{sha256(state).hexdigest()[:16]}"
    # A reminder is about a cart somebody can come back to.  The link is as good as a password, so no event keeps it.
    return _about(checkout, how, event, first_stays=True, checkout_url=url)


def _items(order: Fields, how: Reading) -> list[dict[str, Any]]:
    return [_item(line, how) for line in reading.lines(order, "line_items")]


def _item(line: Fields, how: Reading) -> dict[str, Any]:
    price, quantity = reading.amount(line.get("price")), reading.amount(line.get("quantity"))
    quantity = Decimal(1) if quantity is None or quantity < 0 else quantity
    less = [reading.amount(share.get("amount")) or Decimal(0) for share in reading.lines(line, "discount_allocations")]
    said = {str(each.get("name")): each.get("value") for each in reading.lines(line, "properties")}
    if isinstance(line.get("properties"), dict):
        said = dict(line["properties"])
    return {
        "interest": reading.interests_of(line, how.interests, said),
        "quantity": quantity,
        "value": reading.amount((price or Decimal(0)) * quantity - sum(less, Decimal(0))),
        "properties": {"name": reading.words(line.get("title")) or "", "price": price or Decimal(0)}
        | reading.plain(
            {
                "variant": reading.words(line.get("variant_title"), 200),
                "sku": reading.words(line.get("sku"), 200),
                "product_id": reading.number(line, "product_id"),
                "variant_id": reading.number(line, "variant_id"),
            }
        ),
    }


def _about(order: Fields, how: Reading, event: dict[str, Any], *, first_stays: bool = False, **private: Any) -> Told:
    """Return an order's or checkout's event with whose it is: the customer's, else the guest's of its own address.

    What it says of the customer is said in passing, and only fills what is blank: customers/update overwrites.
    """
    customer = reading.part(order, "customer")
    customer_id = reading.number(customer, "id", "admin_graphql_api_id")
    said = _particulars(customer, order)
    who = reading.named(how, customer_id, said)
    if who is None:
        return Told()
    own = {"email": reading.email(customer.get("email")), "sms": customer.get("phone")}  # not the order's
    claims = tuple(c for c in _claims(customer, "customer", how) if own[c.channel] or c.action == "withdrawn")
    placed = how.event(event | {"contact": who.external_id}, **private)
    return Told(customer_id, who, claims=claims, events=(placed,), first_stays=first_stays)


def _particulars(customer: Fields, order: Fields) -> Particulars:
    """Return what is said of a customer; what only the order says comes second."""
    home = reading.part(customer, "default_address")
    if not home:
        home = reading.part(order, "billing_address") or reading.part(order, "shipping_address")
    where = reading.country(home.get("country_code"))
    emails = (customer.get("email"), order.get("email"), order.get("contact_email"))
    phones = (customer.get("phone"), order.get("phone"))
    return Particulars(
        "",
        email=next(filter(None, map(reading.email, emails)), None),
        phone=next(filter(None, (reading.phone(one, where) for one in phones)), None),
        first_name=reading.words(customer.get("first_name")) or reading.words(home.get("first_name")),
        last_name=reading.words(customer.get("last_name")) or reading.words(home.get("last_name")),
        postal_code=reading.words(home.get("zip"), 20),
        locale=reading.locale(customer.get("locale")) or reading.locale(order.get("customer_locale")),
        country=where,
        subdivision=reading.subdivision(home.get("province_code")),
    )


def _customer(customer: Fields, how: Reading) -> Told:
    if "line_items" in customer or not _OF_A_CUSTOMER & set(customer):
        raise NotUnderstood("a body of this topic is about a customer; this one is not")
    customer_id = reading.needed_number(customer, "id", "admin_graphql_api_id")
    who = reading.named(how, customer_id, _particulars(customer, {}))
    changed_at = reading.instant(customer.get("updated_at"), how.received_at)
    return Told(customer_id, who, changed_at, _claims(customer, "customer", how))


def _customer_created(customer: Fields, how: Reading) -> Told:
    told = _customer(customer, how)
    event = how.event(
        {
            "source_key": f"customer-{told.customer_id}-created",
            "contact": f"{how.source}-{told.customer_id}",
            "name": "customer.created",
            "occurred_at": how.at(customer.get("created_at")),
        }
    )
    return Told(told.customer_id, told.particulars, told.changed_at, told.claims, (event,), first_stays=True)


def _customers_merged(body: Fields, how: Reading) -> Told:
    names = "admin_graphql_api_customer_kept_id", "admin_graphql_api_customer_deleted_id"
    reading.need(body, *names, "status")
    kept, gone = (reading.needed_number(body, name) for name in names)
    if (reading.words(body.get("status"), 50) or "").casefold() != "completed":
        return Told()
    who = reading.named(how, kept, Particulars(""))
    return Told(kept, who, absorbed=f"{how.source}-{gone}")


def _customer_deleted(customer: Fields, how: Reading) -> Told:
    """No erasure: Shopify asks for that with customers/redact."""
    customer_id = reading.needed_number(customer, "id", "admin_graphql_api_id")
    event = how.event(
        {
            "source_key": f"customer-{customer_id}-deleted",
            "contact": f"{how.source}-{customer_id}",
            "name": "customer.deleted",
            "occurred_at": how.at(),
        }
    )
    who = reading.named(how, customer_id, Particulars(""))
    return Told(customer_id, who, events=(event,), first_stays=True, only_if_known=True)


def _claims(record: Fields, topic: str, how: Reading) -> tuple[Claim, ...]:
    """Return what a record says of consent.  Before 2023 e-mail consent was three fields of the customer's own."""
    claims = [
        _claim(channel, reading.part(record, name), f"{how.source} {topic}", how)
        for channel, name in (("email", "email_marketing_consent"), ("sms", "sms_marketing_consent"))
    ]
    ticked_at = reading.instant(record.get("accepts_marketing_updated_at"), how.received_at)
    if "email_marketing_consent" not in record and record.get("accepts_marketing") is True and ticked_at is not None:
        level = _level(record.get("marketing_opt_in_level"))
        claims.append(Claim("email", "granted", ticked_at, f"{how.source} {topic}: accepts_marketing", level))
    return tuple(claim for claim in claims if claim is not None)


def _claim(channel: str, consent: Fields, source: str, how: Reading) -> Claim | None:
    """Return what a consent object claims; `not_subscribed` is a box that was not ticked, and no opt-out."""
    action = CONSENT_WORDS.get((reading.words(consent.get("state"), 50) or "").casefold())
    if action is None:
        return None
    collected = reading.words(consent.get("consent_collected_from"), 50)
    return Claim(
        channel,
        action,
        reading.instant(consent.get("consent_updated_at"), how.received_at),
        f"{source}: collected from {collected}" if collected else source,
        _level(consent.get("opt_in_level")),
    )


def _level(value: object) -> str | None:
    level = (reading.words(value, 50) or "").casefold()
    return level if level in _LEVELS else None


def _email_consent(body: Fields, how: Reading) -> Told:
    reading.need(body, "email_marketing_consent")
    customer_id = reading.needed_number(body, "customer_id", "id")
    said = Particulars("", email=reading.email(body.get("email_address") or body.get("email")))
    claims = _claims({"email_marketing_consent": body["email_marketing_consent"]}, "consent", how)
    return Told(customer_id, reading.named(how, customer_id, said), claims=claims)


def _sms_consent(body: Fields, how: Reading) -> Told:
    reading.need(body, "sms_marketing_consent")
    customer_id = reading.needed_number(body, "id", "customer_id")
    said = Particulars("", phone=reading.phone(body.get("phone") or body.get("phone_number"), None))
    claims = _claims(
        {"sms_marketing_consent": body["sms_marketing_consent"], "email_marketing_consent": None}, "consent", how
    )
    return Told(customer_id, reading.named(how, customer_id, said), claims=claims)


def _data_request(body: Fields, how: Reading) -> Told:
    reading.need(body, "customer", "data_request")
    reference = reading.needed_number(reading.part(body, "data_request"), "id")
    return _asked(body, how, Request("export", reference, reading.how_many(body, "orders_requested")))


def _redact(body: Fields, how: Reading) -> Told:
    """The customer is to be erased.  Shopify waits with it for as long as an order may still be disputed."""
    reading.need(body, "customer", "orders_to_redact")
    customer = reading.part(body, "customer")
    customer_id = reading.number(customer, "id")
    address = reading.email(customer.get("email"))
    reference = customer_id or (address and how.guest_id("email", address))
    if reference is None:
        raise NotUnderstood("neither the customer's id nor an e-mail address says who is to be erased")
    return _asked(body, how, Request("erasure", reference, reading.how_many(body, "orders_to_redact")))


def _asked(body: Fields, how: Reading, request: Request) -> Told:
    customer = reading.part(body, "customer")
    customer_id = reading.number(customer, "id")
    said = Particulars("", email=reading.email(customer.get("email")), phone=reading.phone(customer.get("phone"), None))
    return Told(customer_id, reading.named(how, customer_id, said), request=request)


def _shop_redact(body: Fields, _: Reading) -> Told:
    reading.need(body, "shop_id", "shop_domain")
    if "customer" in body:
        raise NotUnderstood("a body of this topic is about a shop; this one names a customer")
    reference = reading.words(body.get("shop_domain"), 200) or reading.needed_number(body, "shop_id")
    return Told(request=Request("shop_erasure", reference))


_TOPICS: dict[str, Callable[[Fields, Reading], Told]] = {
    "orders_create": _order_placed,
    "orders_cancelled": _order_cancelled,
    "checkouts_create": _checkout,
    "checkouts_update": _checkout,
    "customers_create": _customer_created,
    "customers_update": _customer,
    "customers_delete": _customer_deleted,
    "customers_merge": _customers_merged,
    "customers_email_marketing_consent_update": _email_consent,
    "customers_marketing_consent_update": _sms_consent,
    "customers_data_request": _data_request,
    "customers_redact": _redact,
    "shop_redact": _shop_redact,
}
TOPICS = frozenset(_TOPICS)
#: Customers may be changed by the ten thousand, and nobody waits for that.  Whose data are asked for is among them: a
#: request that overtook the customer would be about nobody we know.
URGENT = TOPICS - {"customers_create", "customers_update", "customers_delete", "customers_data_request"}
