"""What `/metrics` says equals the ledger."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta

import pytest
from ledger import Ledger
from ledger_rows import wait_until
from scraping import scrape, value
from sqlalchemy import text
from web_server import Web

from dispatcher import clock
from dispatcher.providers.protocol import Rejected, RetryAfter
from dispatcher.rates import accounts, hearing
from dispatcher.rates.rules import Rates, WarmUp, day_of
from dispatcher.schedules import fire_due
from dispatcher.shop import load_shop


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
