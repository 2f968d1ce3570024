"""Every record we keep, as SQLAlchemy tables.

The schema itself is made by `migrations/`; a test proves that both agree.  Three rules hold everywhere:

* Lock order: run, contacts by id, addresses by id, messages, lane, and last the consent chain.
* `*_at` of the ledger is in engine time (`clock.read_now`); leases, heartbeats, tickets use the database's own clock.
* Personal data (e-mail, phone, names, free data of transactional messages) is only in `sealed` columns, encrypted under
  the contact's own data key; look-ups go through the keyed hash in `address.hash`.
"""

from __future__ import annotations

from dispatcher.tables.base import BASES, CHANNELS, CLASSES, metadata, order_seq
from dispatcher.tables.campaigns import audience_page, campaign, flow_exit, run, segment, template, trigger
from dispatcher.tables.consents import consent, consent_event, consent_head, unsubscribe
from dispatcher.tables.engine import api_key, audit, engine, figure, worker
from dispatcher.tables.events import event, event_item, interest
from dispatcher.tables.feedback import feedback, feedback_inbox, reply
from dispatcher.tables.links import run_link, tracked_message
from dispatcher.tables.messages import AUTHORISED, MAY_HAVE_LEFT, OPEN, TROUBLE, attempt, batch, lane, message
from dispatcher.tables.mirrors import (
    mailbox,
    mirror,
    mirror_change,
    mirror_difference,
    mirror_report,
    mirrored,
    suppression_lift,
)
from dispatcher.tables.people import address, contact, contact_alias, suppression
from dispatcher.tables.rights import audit_head, audit_link, erasure
from dispatcher.tables.storefronts import storefront_count, storefront_customer, storefront_request

__all__ = [
    "AUTHORISED",
    "BASES",
    "CHANNELS",
    "CLASSES",
    "MAY_HAVE_LEFT",
    "OPEN",
    "TROUBLE",
    "address",
    "api_key",
    "attempt",
    "audience_page",
    "audit",
    "audit_head",
    "audit_link",
    "batch",
    "campaign",
    "consent",
    "consent_event",
    "consent_head",
    "contact",
    "contact_alias",
    "engine",
    "erasure",
    "event",
    "event_item",
    "feedback",
    "feedback_inbox",
    "figure",
    "flow_exit",
    "interest",
    "lane",
    "mailbox",
    "message",
    "metadata",
    "mirror",
    "mirror_change",
    "mirror_difference",
    "mirror_report",
    "mirrored",
    "order_seq",
    "reply",
    "run",
    "run_link",
    "segment",
    "storefront_count",
    "storefront_customer",
    "storefront_request",
    "suppression",
    "suppression_lift",
    "template",
    "tracked_message",
    "trigger",
    "unsubscribe",
    "worker",
]
