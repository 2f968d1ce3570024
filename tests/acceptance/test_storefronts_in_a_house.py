"""A whole house that Shopify tells of a shop's day, each delivery twice and in any order, while a campaign is sent."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flows import TRIGGERS
from house import ROOMY_CAPS, Live, eventually, live_shop, own_servers, write_people
from sqlalchemy import text
from sqlalchemy.engine import URL
from storefronts import email_consent, shopify_checkout, shopify_order, sign

from dispatcher import clock

pytestmark = pytest.mark.thorough

SECRET = "a-secret-of-the-app"
ORDERS = 40


@pytest.fixture
def live(servers: tuple[str, str], template_database: URL, tmp_path: Path) -> Iterator[Live]:
    people = write_people(tmp_path / "people.csv", 400)
    with (
        own_servers(servers, template_database) as own,
        live_shop(tmp_path / "home", servers=own, workspace={**TRIGGERS, **ROOMY_CAPS}, people=people,
                  providers={"shopify_secret": SECRET}) as live,
    ):  # fmt: skip
        yield live


def tell(live: Live, topic: str, told: Any) -> int:
    body = json.dumps(told).encode()
    headers = {
        "X-Shopify-Topic": topic,
        "X-Shopify-Hmac-Sha256": sign(SECRET, body),
        "Content-Type": "application/json",
    }
    return live.http(f"{live.url}/hooks/shopify", body, headers)[0]


def days_work(live: Live) -> list[tuple[str, Any]]:
    """Return what Shopify tells of a day on which everybody left a cart and all but one in four came back."""
    told: list[tuple[str, Any]] = []
    with live.database.connect() as connection:
        began = clock.read_now(connection) - timedelta(seconds=5)
    for number in range(ORDERS):
        customer = {"id": number + 1, "email": f"buyer-{number}@shoppers.example", "first_name": "B", "last_name": "B"}
        cart = shopify_checkout(f"cart-{number}", customer=customer, updated_at=began.isoformat())
        said_at = (began - timedelta(days=9)).isoformat()
        consent = email_consent(number + 1, "subscribed", said_at, email=customer["email"])
        told += [("customers_email_marketing_consent/update", consent), ("checkouts/create", cart)]
        if number % 4:
            placed = (began + timedelta(seconds=1)).isoformat()
            order = shopify_order(number + 1, customer=customer, created_at=placed, processed_at=placed,
                                  checkout_token=f"cart-{number}")  # fmt: skip
            told.append(("orders/create", order))
    return told


def test_a_day_that_is_told_twice_and_out_of_order_ends_right(live: Live) -> None:
    run = live.start("hello")
    told = days_work(live) * 2
    random.Random(7).shuffle(told)
    for topic, body in told:
        assert tell(live, topic, body) == 200
    seconds = eventually(lambda: not live.one("SELECT count(*) FROM feedback_inbox"), saying="everything sorted")
    print(f"the last of {len(told)} requests was sorted {seconds:.2f} s after its answer")
    live.finish(run)

    left = len(range(0, ORDERS, 4))
    mails = "SELECT count(*) FROM message m JOIN run r ON r.id = m.run_id WHERE r.name = :name AND m.status = 'sent'"
    eventually(lambda: live.one(mails, name="order-confirmation") == ORDERS - left, saying="confirmed")
    with live.database.begin() as connection:  # an hour passes
        offset = connection.scalar(text("SELECT clock_offset FROM engine"))
        clock.shift(connection, offset + timedelta(minutes=61), sandbox_only=True)
    eventually(lambda: live.one(mails, name="abandoned-cart") == left, saying="reminded")
    ended = "SELECT count(*) FROM message m JOIN run r ON r.id = m.run_id WHERE r.name = 'abandoned-cart'"
    eventually(lambda: live.one(f"{ended} AND m.reason = 'FLOW_EXIT'") == ORDERS - left, saying="ended")
    assert live.one(ended) == ORDERS
    assert live.one("SELECT count(*) FROM event WHERE source = 'shopify'") == 2 * ORDERS - left
    live.check_invariants()
