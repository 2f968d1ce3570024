"""A scrape of a large ledger is quick, and shows what is there."""

from __future__ import annotations

import statistics
import time

import pytest
from ledger_rows import wait_until
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from dispatcher.figures import Figures
from dispatcher.metrics import Metrics

pytestmark = pytest.mark.slow

MESSAGES = 1_000_000
SCRAPES = 30

_FILL = text("""
WITH runs AS (
    INSERT INTO run (id, name, occurrence_key, channel, topic, class, lane, definition, template_hash, tzdata,
                     nominal_at, as_of, state, created_at)
    SELECT gen_random_uuid(), 'c' || i, 'k', 'email', 'offers', 'marketing', 'email.marketing', '{}', 'h', 'x', now(),
           now(), 'running', now() FROM generate_series(0, 9) i RETURNING id)
INSERT INTO message (id, run_id, contact_id, channel, topic, class, address_id, status, reason, due_at, first_due_at,
                     expires_at, authorised_at, handed_over_at, settled_at, provider, provider_ref)
SELECT gen_random_uuid(), (ARRAY(SELECT id FROM runs))[1 + i % 10], i, 'email', 'offers', 'marketing', i, x.status,
       CASE WHEN x.status = 'skipped' THEN 'NO_CONSENT' END, now(), now(), now() + interval '1 day',
       CASE WHEN x.status = 'delivered' THEN now() END, now(), now(), 'sendgrid', 'ref' || i
FROM generate_series(1, :messages) i,
     LATERAL (SELECT (ARRAY['pending', 'delivered', 'delivered', 'skipped'])[1 + i % 4] AS status) AS x
""")


def test_a_million_messages_are_scraped_in_under_a_tenth_of_a_second(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # no contacts for them, only rows
        connection.execute(_FILL, {"messages": MESSAGES})
    metrics = Metrics(database, Figures())
    metrics.scrape("")
    wait_until(lambda: metrics._counting.newest() is not None, seconds=60)

    took = []
    for _ in range(SCRAPES):
        began = time.monotonic()
        page, _ = metrics.scrape("")
        took.append(time.monotonic() - began)
    found = {
        sample.labels["status"]: sample.value
        for family in text_string_to_metric_families(page.decode())
        if family.name == "dispatcher_messages"
        for sample in family.samples
    }

    print(f"scrapes: median {statistics.median(took) * 1000:.1f} ms, longest {max(took) * 1000:.1f} ms")
    assert found == {"pending": MESSAGES / 4, "delivered": MESSAGES / 2, "skipped": MESSAGES / 4}
    assert statistics.median(took) < 0.1
