"""What processes counted is handed in, summed and never lost."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from ledger import Ledger, SmallShop
from scraping import scrape, value
from sqlalchemy import Engine, create_engine, text
from web_server import Web, serving

from dispatcher import figures
from dispatcher.figures import BOUNDS, Figures


def test_what_workers_counted_is_summed_and_never_falls(ledger: Ledger, web: Web) -> None:
    hands = [Figures(), Figures()]
    for seconds, worker in zip((0.02, 3.0), hands, strict=True):
        worker.time("handover_seconds", "email.marketing", "sendgrid", seconds=seconds)
        worker.count("receipts", "email.marketing", "sendgrid", "accepted", by=100)
        figures.hand_in(ledger.database, worker)
        figures.hand_in(ledger.database, worker)  # nothing new: nothing added
    found = scrape(web)

    of = {"lane": "email.marketing", "provider": "sendgrid"}
    assert value(found, "receipts_total", **of, outcome="accepted") == 200
    assert value(found, "handover_seconds_bucket", **of, le="0.025") == 1
    assert value(found, "handover_seconds_bucket", **of, le="2.5") == 1
    assert value(found, "handover_seconds_bucket", **of, le="5.0") == 2
    assert value(found, "handover_seconds_count", **of) == 2
    assert value(found, "handover_seconds_sum", **of) == pytest.approx(3.02)


def test_hands_count_what_their_provider_did(ledger: Ledger, web: Web) -> None:
    shop = SmallShop(ledger.database, ledger.key_ring, ledger.home)
    shop.wait(timedelta(days=7))  # the caps have room again
    shop.tell_sandbox(reject=["p02"])
    shop.campaign("third")
    with ledger.database.connect() as connection:
        newest = "(SELECT id FROM run WHERE name = 'third' ORDER BY created_at DESC LIMIT 1)"
        tried = connection.scalar(
            text(f"SELECT count(*) FROM message WHERE run_id = {newest} AND (status = 'sent' OR reason = 'REJECTED')")
        )
    figures.hand_in(ledger.database, shop.hands.figures)
    found = scrape(web)

    of = {"lane": "email.marketing", "provider": "sandbox"}
    accepted = value(found, "receipts_total", **of, outcome="accepted") or 0
    assert value(found, "receipts_total", **of, outcome="rejected") == 1
    assert accepted + 1 == tried > 1
    assert value(found, "handover_seconds_count", **of) == 1


def test_figures_that_could_not_be_handed_in_are_kept() -> None:
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    counted = Figures()
    counted.count("receipts", "email.marketing", "sendgrid", "accepted")
    with pytest.raises(Exception, match="refused"):
        figures.hand_in(nowhere, counted)
    counted.count("receipts", "email.marketing", "sendgrid", "accepted")

    taken: list[Any] = []
    counted.hand_in(lambda sums: taken.append(dict(sums)))

    assert taken == [{("receipts", ("email.marketing", "sendgrid", "accepted")): 2}]


def test_processes_that_hand_in_at_once_lose_nothing(database: Engine) -> None:
    def work() -> None:
        counted = Figures()
        for number in range(40):
            counted.time("handover_seconds", "email.marketing", "sendgrid", seconds=BOUNDS[number % len(BOUNDS)])
            counted.count("receipts", "email.marketing", "sendgrid", "accepted")
            figures.hand_in(database, counted)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.connect() as connection:
        sums = figures.read(connection)

    assert sums["receipts", ("email.marketing", "sendgrid", "accepted")] == 160
    assert sum(number for (name, _), number in sums.items() if name == "handover_seconds") == 160


def test_refused_webhooks_and_requests_are_counted(web: Web) -> None:
    web.ask("POST", "/hooks/sendgrid", b"[]")
    web.ask("GET", "/u/some-persons-token")
    found = scrape(web)

    assert value(found, "webhook_signature_failures_total", source="sendgrid") == 1
    assert value(found, "http_requests_total", route="/u/{token:path}", status="404") == 1
    assert not any("some-persons-token" in str(key) for key in found)


def test_a_web_room_hands_in_what_it_counted_without_being_scraped(ledger: Ledger) -> None:
    with serving(ledger.database, ledger.key_ring, ledger.home) as web:
        web.ask("POST", "/hooks/twilio/status", b"")
    with ledger.database.connect() as connection:
        assert figures.read(connection)["webhook_signature_failures", ("twilio.status",)] == 1
