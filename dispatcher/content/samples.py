"""Contexts to try a template with: somebody of whom we know everything, and somebody of whom we know almost nothing."""

from __future__ import annotations

from typing import Any

from dispatcher.content.context import message_context
from dispatcher.content.filters import Sample
from dispatcher.definitions import ShopIdentity

#: As long as a real one; the characters that HTML escapes are in everything a conversion could spoil.
UNSUBSCRIBE_URL = "https://shop.example/u/AQLmBgZvZmZlcnPIAQ.q7Rj2mZ0cVnT1xW5yKb8Pg"
PREFERENCES_URL = "https://shop.example/p/AQLmBgbIAQ.q7Rj2mZ0cVnT1xW5yKb8Pg"
OWN_DATA_URL = "https://shop.example/m/AQLmBgbIAQc.q7Rj2mZ0cVnT1xW5yKb8Pg"
CONFIRM_URL = "https://shop.example/d/AQLmBgfIAW5ld3M.q7Rj2mZ0cVnT1xW5yKb8Pg"
_SHOP = ShopIdentity(
    name="Sample & Sons",
    from_email="hello@shop.example",
    postal_address="1 High Street, London <W1>",
    countries=("GB",),
)
FULL_PERSON = {
    "first_name": "Zoë & <b>Tim</b>",
    "last_name": "O'Brien-Ștefănescu",
    "email": "zoe@shop.example",
    "phone": "+447700900123",
}


def sample_contexts(
    *, locale: str, marketing: bool = True, attributes: dict[str, Any] | None = None, shop: ShopIdentity = _SHOP
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values for a full contact and for an almost empty one.

    The full one has every attribute; what the shop would send along (`data`, `event`) is a stand-in with every field.
    """
    common: dict[str, Any] = {
        "shop": shop,
        "topic_title": "Offers" if marketing else None,
        "unsubscribe_url": UNSUBSCRIBE_URL if marketing else None,
        "preferences_url": PREFERENCES_URL,
        "confirm_url": None if marketing else CONFIRM_URL,
        "own_data_url": None if marketing else OWN_DATA_URL,
        "data": {},
    }
    plain = {"locale": locale, "country": "GB", "subdivision": "LND", "attributes": attributes or {}}
    full = message_context(personal=FULL_PERSON, contact=plain, interests=("christmas", "home_decor"), **common)
    empty = message_context(personal={"email": "a@shop.example"}, contact={}, **common)
    if attributes is None:
        full["contact"]["attributes"] = Sample("attributes")
    for values in (full, empty):
        values["data"], values["event"], values["locale"] = Sample(), Sample(), locale
    return full, empty
