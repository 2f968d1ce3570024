"""What a template may use.

=====================  =================================================================================
``contact.*``          ``first_name``, ``last_name``, ``email``, ``phone``, ``locale``, ``country``,
                       ``subdivision``: a text, empty if we do not know it, so
                       ``{{ contact.first_name or "there" }}`` always works
``contact.attributes`` the plain attributes, as imported; one that a contact may lack needs ``|default("...")``
``interests``          names of the contact's strongest interests, the strongest first
``shop.*``             ``name``, ``postal_address``, ``email``
``topic.title``        the topic in the reader's language; empty outside marketing and opt-in confirmations
``unsubscribe_url``    the page that ends this topic on this channel; empty outside marketing
``preferences_url``    the reader's own page: topics, quiet hours, pause, language, data
``confirm_url``        the page that confirms an opt-in; empty outside opt-in confirmations
``own_data_url``       opens what we know of the reader, once; empty outside of that one message
``data.*``             what the shop sent along with a transactional message
``event.*``            the event that started the message of a trigger: its properties by their names, and ``name``,
                       ``value``, ``occurred_at``, ``items`` ...; a template that serves both may name either
``preheader``          the rendered preheader.txt; empty if there is none
``locale``             the language this content is written in, like ``pt-BR``
=====================  =================================================================================

Everything else is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.definitions import ShopIdentity

PERSONAL_FIELDS = ("first_name", "last_name", "email", "phone")
PLAIN_FIELDS = ("locale", "country", "subdivision")

#: The template of the message that opens what we know of somebody; a workspace may have its own.
OWN_DATA = "own-data"

#: Top-level name -> its fields; None: whatever the shop put there.
KNOWN: dict[str, frozenset[str] | None] = {
    "contact": frozenset((*PERSONAL_FIELDS, *PLAIN_FIELDS, "attributes")),
    "shop": frozenset(("name", "postal_address", "email")),
    "topic": frozenset(("title",)),
    "data": None,
    "event": None,
    "interests": None,
    "unsubscribe_url": None,
    "preferences_url": None,
    "confirm_url": None,
    "own_data_url": None,
    "preheader": None,
    "locale": None,
}

# White space of any kind, control characters, half surrogates, and the marks that turn the direction of what follows.
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")


def one_line(value: Any) -> str:
    """Return the text on one line, without what could break out of it; an empty text for None."""
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    return _UNPRINTABLE.sub(" ", text).strip()


def message_context(
    *,
    personal: Mapping[str, Any],
    contact: Mapping[str, Any],
    shop: ShopIdentity,
    topic_title: str | None,
    unsubscribe_url: str | None,
    data: Mapping[str, Any],
    preferences_url: str | None = None,
    confirm_url: str | None = None,
    own_data_url: str | None = None,
    interests: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the values for one message (see the top of this file).

    `personal` holds the opened personal fields, `contact` the plain ones; both may lack any.
    """
    person: dict[str, Any] = {field: one_line(personal.get(field)) for field in PERSONAL_FIELDS}
    for field in PLAIN_FIELDS:
        person[field] = contact.get(field) or ""
    person["attributes"] = contact.get("attributes") or {}
    return {
        "contact": person,
        "shop": {
            "name": one_line(shop.name),
            "postal_address": one_line(shop.postal_address),
            "email": shop.from_email,
        },
        "topic": {"title": one_line(topic_title)},
        "unsubscribe_url": unsubscribe_url or "",
        "preferences_url": preferences_url or "",
        "confirm_url": confirm_url or "",
        "own_data_url": own_data_url or "",
        "data": data,
        "event": data,  # a message has one of the two
        "interests": list(interests),
        "preheader": "",
    }
