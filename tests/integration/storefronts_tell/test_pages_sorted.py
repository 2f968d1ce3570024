"""Pages of what storefronts tell, sorted: what is urgent first, beside others, and whatever fails or is killed."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from flows import Flows
from ledger_rows import wait_until
from pages_told import at, mail_of
from sqlalchemy import text
from storefronts import MAIL_CONSENT, email_consent, shopify_checkout, shopify_customer, shopify_order

from dispatcher import consent, mailroom, storefronts
from dispatcher.contacts import Particulars, save_contacts
from dispatcher.feedback import inbox
from dispatcher.storefronts import counting, taking


def store(flows: Flows, told: Sequence[tuple[str, Any]]) -> None:
    with flows.database.begin() as connection:
        for mail in (mail_of(topic, body) for topic, body in told):
            later = not storefronts.is_urgent(mail.source, inbox.topic_of(mail))
            inbox.store(connection, flows.key_ring, mail.source, mail.body, headers=mail.headers, later=later)


def sort(flows: Flows, rounds: int = 1_000) -> None:
    inbox.sort_all(flows.database, flows.key_ring, mailroom.take, rounds=rounds)


def rows(flows: Flows, query: str) -> list[Any]:
    with flows.database.connect() as connection:
        return [row[0] if len(row) == 1 else tuple(row) for row in connection.execute(text(query))]


def counted(flows: Flows) -> dict[tuple[str, str], int]:
    with flows.database.connect() as connection:
        return {(one.topic, one.outcome): one.requests for one in counting.counts(connection)}


def test_an_order_does_not_wait_behind_what_was_changed_in_bulk(flows: Flows) -> None:
    store(flows, [("customers/update", shopify_customer(n, email=f"c{n}@people.example")) for n in range(1, 251)])
    store(flows, [("products/update", {"id": n}) for n in range(50)])
    store(flows, [("orders/create", shopify_order()), (MAIL_CONSENT, email_consent(77, "subscribed", at(1)))])
    store(flows, [("customers/redact", {"customer": {"id": 999}, "orders_to_redact": []})])
    sort(flows, rounds=1)

    assert rows(flows, "SELECT count(*) FROM feedback_inbox") == [103]
    assert rows(flows, "SELECT source_key FROM event") == ["order-1001"]
    assert rows(flows, "SELECT reference FROM storefront_request") == ["999"]
    sort(flows)
    assert rows(flows, "SELECT count(*) FROM storefront_customer") == [250]


def test_a_request_for_data_does_not_overtake_the_customer_it_is_about(flows: Flows) -> None:
    store(flows, [("customers/create", shopify_customer(77, email="ana@people.example"))])
    asked = {"customer": {"id": 77, "email": "ana@people.example"}, "data_request": {"id": 9}, "orders_requested": []}
    store(flows, [("customers/data_request", asked)])
    sort(flows)

    found = rows(flows, "SELECT c.external_id FROM storefront_request r JOIN contact c ON c.id = r.contact_id")
    assert found == ["shopify-77"]


@pytest.mark.parametrize(
    ("topic", "urgent"),
    [("orders/create", True), ("ORDERS_CANCELLED", True), ("checkouts/update", True), (MAIL_CONSENT, True),
     ("customers/redact", True), ("customers/data_request", False),
     ("customers/update", False), ("customers/create", False), ("inventory/update", False),
     ("", False)],
)  # fmt: skip
def test_somebody_waits_for_what_is_about_an_order_or_a_wish(topic: str, urgent: bool) -> None:
    assert storefronts.is_urgent("shopify", topic) is urgent
    assert storefronts.is_urgent("woocommerce", "order.updated")
    assert not storefronts.is_urgent("woocommerce", "customer.updated")


def test_what_fails_costs_its_neighbours_nothing_and_is_tried_again(
    flows: Flows, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = taking.read

    def read(mail: inbox.Mail, *how: Any) -> Any:
        if b'"id": 7,' in mail.body:
            raise RuntimeError("a fault of ours")
        return whole(mail, *how)

    monkeypatch.setattr(taking, "read", read)
    store(flows, [("orders/create", shopify_order(number)) for number in range(1, 12)])
    sort(flows)
    assert rows(flows, "SELECT count(*) FROM event") == [10]
    assert rows(flows, "SELECT failures, flaw FROM feedback_inbox") == [(1, None)]

    monkeypatch.undo()
    with flows.database.begin() as connection:
        connection.execute(text("UPDATE feedback_inbox SET retry_at = NULL"))
    sort(flows)
    assert rows(flows, "SELECT count(*) FROM event") == [11]
    assert rows(flows, "SELECT count(*) FROM feedback_inbox") == [0]


def test_topics_beyond_what_is_told_apart_share_one_row(flows: Flows) -> None:
    store(flows, [(f"topic-{number % 230}/x", {}) for number in range(400)])
    store(flows, [("orders/create", shopify_order()), ("orders/create", shopify_order())])
    sort(flows)

    found = counted(flows)
    assert sum(found.values()) == 402
    assert found[("orders/create", "taken")] == found[("orders/create", "again")] == 1
    assert 1 < found[("others", "unheeded")] < 100
    assert len(found) == 202


def days(number: int) -> list[tuple[str, Any]]:
    """Return what many customers did, each request twice, in an order of its own."""
    told: list[tuple[str, Any]] = []
    for n in range(1, 21):
        customer = {"id": n, "email": f"c{n % 15}@people.example", "first_name": f"C{n}"}
        told += [
            ("customers/update", shopify_customer(n, email=customer["email"], phone=None, updated_at=at(n))),
            ("checkouts/create", shopify_checkout(f"cart-{n}", customer=customer, updated_at=at(200 + n))),
            ("orders/create", shopify_order(n, customer=customer, checkout_token=f"cart-{n}", created_at=at(300 + n),
                                            processed_at=at(300 + n))),
            (MAIL_CONSENT, email_consent(n, "subscribed", at(1), email=customer["email"])),
        ]  # fmt: skip
    told *= 2
    random.Random(number).shuffle(told)
    return told


def test_several_sorters_beside_other_writers_take_everything_once(flows: Flows) -> None:
    store(flows, days(7))
    people = [f"shopify-{n}" for n in range(1, 4)]
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with flows.database.begin() as connection:
                save_contacts(connection, flows.key_ring, [Particulars(one, country="GB") for one in people[::-1]])

    writer, *sorters = (threading.Thread(target=work) for work in (write, *[lambda: sort(flows)] * 2))
    writer.start()
    for sorter in sorters:
        sorter.start()
    for sorter in sorters:
        sorter.join(timeout=60)
    stop.set()
    writer.join(timeout=30)
    sort(flows)

    assert rows(flows, "SELECT count(*) FROM feedback_inbox") == [0]
    assert rows(flows, "SELECT name, count(*) FROM event GROUP BY 1 ORDER BY 1") == [
        ("checkout.started", 20), ("order.placed", 20)]  # fmt: skip
    assert rows(flows, "SELECT count(*) FROM contact WHERE merged_into IS NULL") == [15]
    assert sum(counted(flows).values()) == 160
    with flows.database.connect() as connection:
        assert consent.verify_chain(connection) == []


SORTER = """
import sys
from pathlib import Path
from dispatcher import mailroom
from dispatcher.db import engine_for
from dispatcher.feedback import inbox
from dispatcher.keys import open_key_ring
database = engine_for(sys.argv[1])
with database.begin() as connection:
    key_ring = open_key_ring(connection, Path(sys.argv[2]), None)
inbox.sort_all(database, key_ring, mailroom.take)
"""


def test_a_sorter_that_is_killed_between_the_people_and_their_orders_loses_nothing(
    flows: Flows, database_url: str, tmp_path: Path
) -> None:
    store(flows, days(11))
    with flows.database.connect() as blocking:
        blocking.execute(text("LOCK TABLE event IN SHARE ROW EXCLUSIVE MODE"))
        sorter = subprocess.Popen([sys.executable, "-c", SORTER, database_url, str(tmp_path / "home")])
        wait_until(lambda: rows(flows, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' LIMIT 1") != [])
        assert rows(flows, "SELECT count(*) > 0 FROM contact") == [True]
        sorter.kill()
        sorter.wait()
    assert rows(flows, "SELECT count(*) FROM event") == [0]
    assert rows(flows, "SELECT count(*) FROM feedback_inbox") == [160]

    def all_sorted() -> bool:
        sort(flows)
        return rows(flows, "SELECT count(*) FROM feedback_inbox") == [0]

    wait_until(all_sorted)
    assert rows(flows, "SELECT count(*) FROM event") == [40]
    assert rows(flows, "SELECT count(*) FROM contact WHERE merged_into IS NULL") == [15]
    assert rows(flows, "SELECT sum(requests) FROM storefront_count") == [160]
