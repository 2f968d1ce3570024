"""What the gates must know of a flow when its message is asked about: has it ended, and is its feed alive?

By the time events happened, of all there are by now: in whatever order they arrived.  An event ends the flow if it
happened at the newest event of the message's key or later, and is of the same key, the same contact, or of somebody
with the same address or phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from dispatcher.definitions import Trigger
from dispatcher.facts import Flow

#: For `facts_page`: common table expressions beside `page`, which has the contacts; what they add to a row, and how.
TABLES = """flow AS MATERIALIZED (
    SELECT m.contact_id, m.trigger_id, m.trigger_key, e.id AS event_id, e.occurred_at, e.source
    FROM message m JOIN event e ON e.id = m.event_id WHERE m.id = ANY(CAST(:flow_messages AS uuid[]))
), ended AS (
    SELECT f.contact_id, x.name, x.occurred_at, x.matched_by
    FROM flow f JOIN contact mine ON mine.id = f.contact_id CROSS JOIN LATERAL (
        SELECT x.name, x.occurred_at, 'key' AS matched_by FROM flow_exit k JOIN event x ON x.id = k.event_id
        WHERE k.trigger_id = f.trigger_id AND k.key = f.trigger_key AND x.name = ANY(:flow_exits_by_key)
            AND x.occurred_at >= f.occurred_at AND x.id <> f.event_id
        UNION ALL
        SELECT x.name, x.occurred_at, 'contact' FROM event x
        WHERE x.contact_id = f.contact_id AND x.name = ANY(:flow_exits)
            AND x.occurred_at >= f.occurred_at AND x.id <> f.event_id
        UNION ALL
        SELECT x.name, x.occurred_at, 'address' FROM contact o JOIN event x ON x.contact_id = o.id
        WHERE o.id <> mine.id AND (o.email_address_id = mine.email_address_id OR o.sms_address_id = mine.sms_address_id)
            AND x.name = ANY(:flow_exits) AND x.occurred_at >= f.occurred_at
        ORDER BY 2, 3 LIMIT 1) x
), heard AS (
    SELECT s.source, (SELECT max(e.received_at) FROM event e WHERE e.source = s.source) AS at
    FROM (SELECT DISTINCT source FROM flow) s
)"""
COLUMNS = (
    "ended.name",
    "ended.occurred_at",
    "ended.matched_by",
    "flow.source",
    "flow.occurred_at",
    "heard.at",
)
JOINS = """
LEFT JOIN flow ON flow.contact_id = c.id
LEFT JOIN ended ON ended.contact_id = c.id
LEFT JOIN heard ON heard.source = flow.source
"""


def parameters(trigger: Trigger, messages: Sequence[Any]) -> dict[str, Any]:
    """Return what TABLES asks for; at most one message for each contact of the page."""
    by_contact = sorted(trigger.exits)
    by_key = sorted({*by_contact, trigger.cancel} - {None}, key=str)
    return {"flow_messages": list(messages), "flow_exits": by_contact, "flow_exits_by_key": by_key}


def flow_of(trigger: Trigger, row: Sequence[Any], now: datetime) -> Flow:
    """Return the flow that the COLUMNS of a row tell."""
    ended_by, ended_at, matched_by, source, began_at, heard_at = row
    patience = trigger.feed_may_be_silent_for
    stale = patience is not None and heard_at is not None and now - heard_at > patience
    return Flow(began_at, ended_by, ended_at, matched_by, source, heard_at, patience, stale)
