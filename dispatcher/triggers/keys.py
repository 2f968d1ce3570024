"""What a trigger's `key` and its template may know of an event, and the key itself."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dispatcher.content.sandbox import Compiled, RenderFailed, TemplateInvalid
from dispatcher.instants import show_instant
from dispatcher.keys import KeyRing

if TYPE_CHECKING:
    from dispatcher.events import Event, Item

LONGEST_KEY = 200


def check_key(source: str) -> None:
    """ValueError if `source` is no template over the event alone."""
    try:
        compiled = _compiled(source)
    except TemplateInvalid as error:
        raise ValueError(error.reason) from None
    if unknown := compiled.variables - {"event"}:
        raise ValueError(f"{min(unknown)} is not known here; a key is made of the event, like {{{{ event.cart_id }}}}")
    if "event" not in compiled.variables:
        raise ValueError("is the same for every event, so there would be one message ever; use {{ event.cart_id }}")


def event_values(event: Event) -> dict[str, Any]:
    """Return `event.*`: the event's properties (and private ones) by name, and its own fields, which win over them.

    `items` is a list of the same: an item's properties, `interest` (a list of names), `quantity` and `value`.
    """
    return (
        event.properties
        | event.private
        | {
            "name": event.name,
            "source": event.source,
            "source_key": event.source_key,
            "contact": event.contact,
            "occurred_at": show_instant(event.occurred_at),
            "value": _number(event.value),
            "properties": event.properties,
            "items": [_item_values(item) for item in event.items],
        }
    )


def _item_values(item: Item) -> dict[str, Any]:
    return item.properties | {
        "interest": list(item.interests),
        "quantity": _number(item.quantity),
        "value": _number(item.value),
        "properties": item.properties,
    }


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def key_of(source: str, values: dict[str, Any]) -> str | None:
    """Return the key that a trigger's template makes of an event's values; None if they lack what it names."""
    try:
        key = _compiled(source).render({"event": values}).strip()
    except RenderFailed:
        return None
    return key if 0 < len(key) <= LONGEST_KEY else None


def key_hash(key_ring: KeyRing, key: str) -> bytes:
    """Return what of a key is kept: it may be an e-mail address, so only a keyed hash."""
    return key_ring.address_hash("trigger key", key)


@lru_cache(maxsize=256)
def _compiled(source: str) -> Compiled:
    return Compiled("key", source, html=False)
