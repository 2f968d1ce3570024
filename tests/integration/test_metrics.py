"""/metrics: it reads as Prometheus reads it, equals the ledger, and tells strangers nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ledger import Ledger, SmallShop, make_ledger
from ledger_rows import wait_until
from monitoring import NAME, names_of, queries
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, create_engine, text
from web_server import Web, serving

from dispatcher import api_keys, clock, figures
from dispatcher.figures import BOUNDS, Figures
from dispatcher.keys import KeyRing
from dispatcher.metrics import Metrics
from dispatcher.metrics.counted import REST, Counting
from dispatcher.providers.protocol import Rejected, RetryAfter
from dispatcher.rates import accounts, hearing
from dispatcher.rates.rules import Rates, WarmUp, day_of
from dispatcher.schedules import fire_due
from dispatcher.shop import load_shop

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def ledger(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Ledger:
    return make_ledger(database, key_ring, tmp_path / "home")


@pytest.fixture
def web(ledger: Ledger) -> Iterator[Web]:
    with serving(ledger.database, ledger.key_ring, ledger.home) as web:
        yield web


def samples_of(page: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def scrape(web: Web) -> Samples:
    answer = web.ask("GET", "/metrics")
    assert answer.status == 200
    return samples_of(answer.text)


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"dispatcher_{name}", tuple(sorted(labels.items()))))


def test_messages_equal_the_ledger_by_status_and_reason(ledger: Ledger, web: Web) -> None:
    with ledger.database.connect() as connection:
        rows = connection.execute(
            text("SELECT channel, class, status, deferred_reason, reason FROM message WHERE status <> 'x'")
        ).all()
    counted: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        lane = f"{row.channel}.{'marketing' if row[1] == 'marketing' else 'transactional'}"
        reason = (row.deferred_reason if row.status == "pending" else None) or row.reason or ""
        counted[lane, row.status, reason] += 1
    assert len(counted) > 6

    shown = {
        (labels["lane"], labels["status"], labels["reason"]): number
        for (name, pairs), number in scrape(web).items()
        if name == "dispatcher_messages"
        for labels in [dict(pairs)]
    }

    assert shown == counted


def test_due_messages_are_those_whose_time_has_come_in_runs_that_may_go_on(ledger: Ledger, web: Web) -> None:
    with ledger.database.begin() as connection:
        connection.execute(text("UPDATE message SET due_at = due_at - interval '90 s' WHERE status = 'pending'"))
        due = connection.scalar(
            text("""SELECT count(*) FROM message m JOIN run r ON r.id = m.run_id, engine e WHERE m.status = 'pending'
                    AND r.lane = 'sms.marketing' AND m.due_at <= clock_timestamp() + e.clock_offset""")
        )
    found = scrape(web)
    assert due > 0
    assert value(found, "lane_due_messages", lane="sms.marketing") == due
    assert 90 <= (value(found, "lane_oldest_due_seconds", lane="sms.marketing") or 0) < 200

    with ledger.database.begin() as connection:
        connection.execute(text("UPDATE run SET state = 'paused' WHERE finished_at IS NULL"))
    wait_until(lambda: value(scrape(web), "lane_due_messages", lane="sms.marketing") == 0)


def test_unsubscribes_and_their_barrier_equal_the_ledger(ledger: Ledger, web: Web) -> None:
    with ledger.database.begin() as connection:
        connection.execute(
            text("""INSERT INTO unsubscribe (contact_id, channel, topic, committed_at, answered_at, answer)
                    SELECT 1, 'email', 'offers', at, at + make_interval(secs => took), answer FROM (VALUES
                        (now(), 0.1, 200), (now(), 4.9, 202), (now(), 5.0, 202), (now(), 60, 202),
                        (now() - interval '1 h', NULL, NULL)) AS x(at, took, answer)""")
        )
        before = connection.scalar(text("SELECT count(*) FROM unsubscribe WHERE answer = 200"))
        answered = connection.scalar(text("SELECT count(answered_at) FROM unsubscribe"))
        at_once = text("SELECT count(*) FROM unsubscribe WHERE answered_at - committed_at <= interval '0.1 s'")
        in_a_tenth = connection.scalar(at_once)
        in_all = connection.scalar(text("SELECT extract(epoch FROM sum(answered_at - committed_at)) FROM unsubscribe"))
    found = scrape(web)

    assert value(found, "unsubscribes_total", answer="200") == before
    assert value(found, "unsubscribes_total", answer="202") == 3
    assert value(found, "unsubscribes_total", answer="none") == 1
    bucket = "unsubscribe_barrier_seconds_bucket"
    assert value(found, bucket, le="0.1") == in_a_tenth  # an upper bound belongs to its class
    assert value(found, bucket, le="5.0") == answered - 1
    assert value(found, bucket, le="+Inf") == value(found, "unsubscribe_barrier_seconds_count") == answered
    assert value(found, "unsubscribe_barrier_seconds_sum") == pytest.approx(float(in_all))


def test_lanes_show_their_rate_and_their_rest(ledger: Ledger, web: Web) -> None:
    with ledger.database.begin() as connection:
        now = connection.scalar(text("SELECT clock_timestamp() + clock_offset FROM engine"))
        accounts.rest(connection, "sms.marketing", timedelta(seconds=40), now)
    found = scrape(web)

    assert value(found, "lane_rate_per_second", lane="email.marketing") == 500
    assert value(found, "lane_rate_per_second", lane="sms.marketing") is None
    assert 30 < (value(found, "lane_rest_seconds", lane="sms.marketing") or 0) <= 40
    assert value(found, "lane_rest_seconds", lane="email.transactional") == 0


def test_accounts_show_their_rate_and_their_circuit(ledger: Ledger, web: Web) -> None:
    with ledger.database.begin() as connection:
        accounts.set_rates(connection, Rates.model_validate({"accounts": {"smtp": "50/s"}}))
        accounts.set_accounts(connection, {"email": ["sendgrid", "smtp"]})
        now = connection.scalar(text("SELECT clock_timestamp() + clock_offset FROM engine"))
        for receipt in (RetryAfter("429", timedelta(seconds=5)), Rejected("401", scope="account")):
            heard = hearing.listen_to([receipt])
            hearing.heed(connection, "email.marketing", "smtp", heard, now, probe=False, reached=0)
    found = scrape(web)

    assert value(found, "account_rate_per_second", provider="smtp") == 50
    assert 25 <= (value(found, "account_rate_in_force_per_second", provider="smtp") or 0) < 50
    assert value(found, "account_rate_per_second", provider="sendgrid") is None
    assert {
        provider: [value(found, "account_circuit", provider=provider, state=s) for s in ("closed", "open", "half_open")]
        for provider in ("smtp", "sendgrid")
    } == {"smtp": [0, 1, 0], "sendgrid": [1, 0, 0]}


def test_a_senders_warm_up_shows_what_it_may_and_what_it_did_today(ledger: Ledger, web: Web) -> None:
    assert value(scrape(web), "warm_up_messages", state="allowed") is None
    with ledger.database.begin() as connection:
        shop, today = load_shop(connection), clock.read_now(connection)
        day = day_of(today, shop.shop.zone)
        warming = shop.model_copy(update={"warm_up": WarmUp(start=day, days=(50, 100))})
        connection.execute(
            text("UPDATE engine SET shop = CAST(:shop AS jsonb)"), {"shop": warming.model_dump_json(by_alias=True)}
        )
        accounts.authorised_on(connection, shop.shop.from_email, day, lock=True)
        accounts.count_on(connection, shop.shop.from_email, day, 7)
    found = scrape(web)

    assert value(found, "warm_up_messages", state="allowed") == 50
    assert value(found, "warm_up_messages", state="used") == 7


def test_the_house_is_told_as_it_stands(ledger: Ledger, web: Web) -> None:
    found = scrape(web)
    assert value(found, "database_up") == 1
    assert value(found, "rooms_alive", kind="marketing") == 1
    assert value(found, "rooms_alive", kind="scheduler") == 0
    assert value(found, "clock_silent_seconds") is None
    assert value(found, "stopped") == value(found, "campaigns_not_fired") == value(found, "runs_braked") == 0
    assert value(found, "doubtful_messages") == 1  # p05
    assert (value(found, "clock_offset_seconds") or 0) > 0

    with ledger.database.begin() as connection:
        connection.execute(text("UPDATE engine SET stopped_at = clock_timestamp(), stopped_by = 'test'"))
        connection.execute(text("UPDATE campaign SET fire_error = 'no segment' WHERE name = 'hello'"))
        connection.execute(
            text("UPDATE run SET state = 'paused', brake = '{}' WHERE state = 'running' AND kind = 'campaign'")
        )
        connection.execute(
            text("""INSERT INTO worker (id, kind, host, pid, lock_path, queues, slots, heartbeat_at)
                    VALUES (gen_random_uuid(), 'scheduler', 'h', 1, 'l', '{}', 0,
                            clock_timestamp() - interval '30 s')""")
        )
        connection.execute(
            text("""INSERT INTO feedback_inbox (source, data_key, sealed, failures, received_at)
                    SELECT 'sendgrid', '', '', n, clock_timestamp() + clock_offset - interval '1 min'
                    FROM engine, generate_series(0, 2) n""")
        )
        connection.execute(  # an operator may look at it for 30 days: nothing waits for that, and no alarm rings
            text("""INSERT INTO feedback_inbox (source, data_key, sealed, flaw, received_at)
                    SELECT 'shopify', '', '', 'not JSON', clock_timestamp() + clock_offset - interval '9 days'
                    FROM engine""")
        )
    found = scrape(web)

    assert value(found, "stopped") == value(found, "campaigns_not_fired") == 1
    assert value(found, "runs", state="paused") == value(found, "runs_braked") >= 1
    assert value(found, "rooms_alive", kind="scheduler") == 0
    assert 30 <= (value(found, "clock_silent_seconds") or 0) < 60
    assert value(found, "feedback_inbox_requests", state="waiting") == 1
    assert value(found, "feedback_inbox_requests", state="failed") == 2
    assert value(found, "feedback_inbox_requests", state="not_understood") == 1
    assert 60 <= (value(found, "feedback_inbox_oldest_seconds") or 0) < 90


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


def test_a_campaign_that_cannot_fire_shows(ledger: Ledger, web: Web) -> None:
    with ledger.database.begin() as connection:
        connection.execute(
            text("""UPDATE campaign SET definition = jsonb_set(definition, '{segment}', '"gone"'),
                    next_fire_at = '2020-01-01', fires_after = '2020-01-01' WHERE name = 'hello'""")
        )
        connection.execute(text("DELETE FROM segment"))
        connection.execute(
            text("""UPDATE campaign SET definition = jsonb_set(definition, '{schedule}', CAST(:schedule AS jsonb))
                    WHERE name = 'hello'"""),
            {"schedule": '{"cron": "* * * * *", "zone": "UTC", "at": null, "local": false, "late": null, '
                         '"max_lateness": "P3650D"}'},
        )  # fmt: skip
    fire_due(ledger.database)

    assert value(scrape(web), "campaigns_not_fired") == 1
    assert time.time() - (value(scrape(web), "count_timestamp_seconds") or 0) < 60
