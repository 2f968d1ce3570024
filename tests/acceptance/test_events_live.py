"""Events told to a whole house: who placed an order hears of it, who did not is reminded, with the clock on its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flows import TRIGGERS
from house import Live, eventually, live_shop, own_servers, write_people
from sqlalchemy.engine import URL

from dispatcher import api_keys, clock

pytestmark = pytest.mark.thorough


@pytest.fixture
def live(servers: tuple[str, str], template_database: URL, tmp_path: Path) -> Iterator[Live]:
    people = write_people(tmp_path / "people.csv", 5)
    with (
        own_servers(servers, template_database) as own,
        live_shop(tmp_path / "home", servers=own, workspace=TRIGGERS, people=people) as live,
    ):
        yield live
        live.check_invariants()


def test_an_order_is_confirmed_at_once_and_a_cart_left_alone_reminded_of_later(live: Live) -> None:
    with live.database.begin() as connection:
        key = api_keys.create(connection, "shop", ["events:write"])
        now = clock.read_now(connection)
    about_an_hour_ago = now - timedelta(minutes=59, seconds=58)

    def tell(name: str, contact: str, at: datetime, **properties: Any) -> None:
        body = {"source_key": f"{name}-{contact}", "contact": contact, "name": name, "properties": properties,
                "occurred_at": at.astimezone(UTC).isoformat()}  # fmt: skip
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        status, answer = live.http(f"{live.url}/v1/events", json.dumps(body).encode(), headers)
        assert status == 202, answer

    tell("order.placed", "p00001", now)  # it may arrive first
    tell("checkout.started", "p00001", about_an_hour_ago, cart_id="a")
    tell("checkout.started", "p00002", about_an_hour_ago, cart_id="b")

    eventually(lambda: len(live.outbox()) == 2)
    eventually(lambda: live.one("SELECT count(*) FROM message WHERE status IN ('pending', 'sending')") == 0)
    assert sorted((mail["contact"], mail["subject"]) for mail in live.outbox()) == [
        ("p00001", "Order order.placed-p00001"),
        ("p00002", "Cart b of 0"),
    ]
    assert live.one("SELECT reason FROM message WHERE status = 'skipped'") == "FLOW_EXIT"
