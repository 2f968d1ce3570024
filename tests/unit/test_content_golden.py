"""What the example mails look like, whole; `make golden` (or DISPATCHER_WRITE_GOLDEN=1) rewrites them for review."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from dispatcher.content import Template, message_context, read_template_folder
from dispatcher.definitions import ShopIdentity

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
SHOP = ShopIdentity(
    name="The Gift Shop",
    from_email="hello@giftshop.example",
    postal_address="12 Cloth Fair, London EC1A 7JQ, United Kingdom",
)
URL = "https://mail.giftshop.example/u/AQLmBgZvZmZlcnPIAQ.q7Rj2mZ0cVnT1xW5yKb8Pg"
ORDER: dict[str, Any] = {
    "order_id": "536365",
    "total": "139.12",
    "items": [
        {"name": "WHITE HANGING HEART T-LIGHT HOLDER", "quantity": 6, "price": "15.30"},
        {"name": "CREAM CUPID HEARTS COAT HANGER <8>", "quantity": 1200, "price": 123.82},
    ],
}
PEOPLE: dict[str, dict[str, Any]] = {
    "en": {"first_name": "Wayne"}, "pt-BR": {"first_name": "João"}, "ro": {}, "de": {"first_name": "Zoë & Söhne"},
    "fr": {"first_name": "<Léa>"},
}  # fmt: skip
TITLES = {"en": "Offers", "pt-BR": "Ofertas", "ro": "Oferte", "de": "Angebote", "fr": "Offres"}
CART = {"cart_id": "77", "items": [{"name": "Cake stand <3 tiers>", "quantity": 1}, {"name": "Mug", "quantity": 4}]}
MAILS = [
    "email/abandoned-cart", "email/christmas", "email/kitchen-week", "email/order-confirmation",
    "email/opt-in-confirmation",
    "sms/christmas", "sms/opt-in-confirmation",
]  # fmt: skip


@pytest.mark.parametrize("locale", PEOPLE)
@pytest.mark.parametrize("mail", MAILS)
def test_the_example_mails_are_as_reviewed(mail: str, locale: str) -> None:
    channel, name = mail.split("/")
    template = Template(channel, name, read_template_folder(ROOT / "examples" / "workspace" / "templates" / mail))
    marketing, opt_in = template.meta.class_ == "marketing", name == "opt-in-confirmation"
    context = message_context(
        personal={"email": "wayne@mail.example", **PEOPLE[locale]},
        contact={"locale": locale},
        shop=SHOP,
        topic_title=TITLES[locale] if marketing or opt_in else None,
        unsubscribe_url="https://mail.giftshop.example/u/AQLmBgZvZmZlcnPIAQ.q7Rj2mZ0cVnT1xW5yKb8Pg"
        if marketing
        else None,
        preferences_url="https://mail.giftshop.example/p/AQLmBgbIAQ.q7Rj2mZ0cVnT1xW5yKb8Pg",
        confirm_url="https://mail.giftshop.example/d/AQLmBgfIAW5ld3M.q7Rj2mZ0cVnT1xW5yKb8Pg" if opt_in else None,
        data=CART if mail == "email/abandoned-cart" else {} if marketing or opt_in else ORDER,
        interests=["christmas", "home_decor"],
    )

    content = template.render(context, locale)

    head = f"Subject: {content.subject}\nPreheader: {content.preheader}\n\n" if channel == "email" else ""
    _compare(f"{channel}-{name}.{locale}.txt", f"{head}{content.text.rstrip()}\n")
    if content.html is not None:
        _compare(f"{channel}-{name}.{locale}.html", content.html)


@pytest.mark.parametrize("mail", [mail for mail in MAILS if mail.startswith("email/")])
def test_every_part_of_an_example_mail_narrows_with_a_phone(mail: str) -> None:
    """One table that stays 600 px wide makes all of them so, and the text is cut off at the right."""
    html = (GOLDEN / f"{mail.replace('/', '-')}.en.html").read_text(encoding="utf-8")
    fixed = set(re.findall(r'<table[^>]* class="(\w+)" width="600"', html))
    narrowed = re.findall(r"^  (.+) { width: 100% !important; }$", html, re.MULTILINE)

    assert fixed == {name.rpartition(".")[2] for line in narrowed for name in line.split(", ")}


def _compare(name: str, rendered: str) -> None:
    golden = GOLDEN / name
    if os.environ.get("DISPATCHER_WRITE_GOLDEN"):
        golden.write_text(rendered, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == rendered, f"review the change, then run: make golden ({name})"
