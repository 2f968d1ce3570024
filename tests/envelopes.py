"""Messages for the tests of providers: addressed, rendered, and each different."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from dispatcher.content import Content
from dispatcher.definitions import ShopIdentity
from dispatcher.mail import headers_for
from dispatcher.providers.protocol import Envelope

SHOP = ShopIdentity(name="Small Shop", from_email="hello@small.example", postal_address="1 High Street, London")
ACCOUNT_SID = "AC" + "0123456789abcdef" * 2
SERVICE_SID = "MG" + "0123456789abcdef" * 2
_FIRST = UUID("01930000-0000-7000-8000-000000000000").int


def make_mail(number: int, *, text: str = "", **changes: Any) -> Envelope:
    message_id = UUID(int=_FIRST + number)
    text = text or f"Hello First{number}\n.\n.dots at the beginning stay\n"
    headers = headers_for(
        message_id=message_id, shop=SHOP, class_="marketing", campaign="hello", topic="offers", topic_title="Offers",
        unsubscribe_url=f"https://shop.example/u/{number:0120}",
    )  # fmt: skip
    made = Envelope(
        message_id, None, f"p{number}", f"p{number}@people.example",
        Content(f"For you, First{number}", "", f"<p>{text}</p>", text, "en"), tuple(headers),
        from_name=SHOP.name, from_email=SHOP.from_email, campaign="hello", marketing=True,
    )  # fmt: skip
    return replace(made, **changes)


def make_text(number: int, *, text: str = "", closes_at: datetime | None = None, **changes: Any) -> Envelope:
    text = text or f"Small Shop: hello First{number}. Stop: https://shop.example/u/{number}"
    made = Envelope(
        UUID(int=_FIRST + number), None, f"p{number}", f"+4477009{number:05}", Content("", "", None, text, "en"), (),
        from_name=SHOP.name, from_email=SHOP.from_email, campaign="texts", marketing=True, closes_at=closes_at,
    )  # fmt: skip
    return replace(made, **changes)
