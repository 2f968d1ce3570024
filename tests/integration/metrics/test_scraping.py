"""How `/metrics` is asked, named, guarded and kept cheap."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from ledger import Ledger
from ledger_rows import wait_until
from monitoring import NAME, names_of, queries
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from scraping import samples_of, value
from sqlalchemy import create_engine, text
from web_server import Web, serving

from dispatcher import api_keys
from dispatcher.figures import Figures
from dispatcher.keys import KeyRing
from dispatcher.metrics import Metrics
from dispatcher.metrics.counted import REST, Counting


def test_names_are_as_prometheus_wants_them_and_labels_are_few(web: Web) -> None:
    web.ask("POST", "/hooks/sendgrid", b"[]")
    answer = web.ask("GET", "/metrics")
    labels: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(answer.text):
        assert family.name.startswith(("dispatcher_", "process_")), family.name
        assert len(family.documentation) > 10
        for sample in family.samples:
            labels[family.name] |= set(sample.labels)
            if family.type == "counter":
                assert sample.name.endswith("_total")
    allowed = {"lane", "status", "reason", "provider", "outcome", "kind", "state", "answer", "source", "route", "le"}

    assert set().union(*(found for name, found in labels.items() if name != "dispatcher_build_info")) <= allowed
    assert (answer.header("Content-Type") or "").startswith("text/plain; version=")


def test_the_examples_name_nothing_that_a_scrape_does_not_have(web: Web) -> None:
    page = web.ask("GET", "/metrics").text
    there = set().union(*(names_of(family) for family in text_string_to_metric_families(page)))

    assert {name for query in queries() for name in NAME.findall(query)} <= there


def test_openmetrics_is_given_to_whoever_asks_for_it(web: Web) -> None:
    answer = web.ask("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert (answer.header("Content-Type") or "").startswith("application/openmetrics-text")
    assert any(family.name == "dispatcher_messages" for family in read_openmetrics(answer.text))


def test_strangers_are_told_nothing(ledger: Ledger, key_ring: KeyRing) -> None:
    with ledger.database.begin() as connection:
        connection.execute(text("UPDATE engine SET clock_offset = '0'"))
        good = api_keys.create(connection, "prometheus", ["metrics:read"])
        poor = api_keys.create(connection, "backend", ["messages:read"])
    real = {"smtp_url": "smtp://127.0.0.1:2525", "email_provider": "smtp", "public_url": "https://mail.shop.example"}

    with serving(ledger.database, ledger.key_ring, ledger.home, **real) as web:
        said = {
            key: web.ask("GET", "/metrics", headers={"Authorization": f"Bearer {key}"} if key else {})
            for key in ("", "dsp_wrong", poor, good)
        }
    assert [answer.status for answer in said.values()] == [401, 401, 403, 200]
    assert not any("dispatcher_messages" in said[key].text for key in ("", "dsp_wrong", poor))

    with serving(ledger.database, ledger.key_ring, ledger.home) as web:  # the sandbox
        assert web.ask("GET", "/metrics").status == 200
        assert web.ask("GET", "/metrics", headers={"Host": "mail.shop.example"}).status == 401


def test_without_a_database_it_says_so(key_ring: KeyRing) -> None:
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    page, _ = Metrics(nowhere, Figures()).scrape("")

    found = samples_of(page.decode())
    assert value(found, "database_up") == 0
    assert value(found, "stopped") is None
    assert ("process_start_time_seconds", ()) in found


def test_the_ledger_is_left_alone_for_twenty_times_as_long_as_counting_took(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("dispatcher.metrics.counted.time.monotonic", lambda: clock[0])
    counting = Counting(ledger.database)

    def work_for_a_second(connection: Any) -> Any:
        clock[0] += 1.0
        return _Numbered()

    monkeypatch.setattr("dispatcher.metrics.counted.count", work_for_a_second)
    first = counting.newest()
    wait_until(lambda: counting._rests_until > 0)
    clock[0] += REST - 0.1
    assert counting.newest() is first
    clock[0] += 0.2
    wait_until(lambda: counting.newest() is not first)


class _Numbered:
    """A count that is itself and no other."""
