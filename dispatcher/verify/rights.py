"""Of whom was erased nothing can be read, and nothing was authorised since; and the audit is what was written."""

from __future__ import annotations

from sqlalchemy import text

from dispatcher import audit_chain
from dispatcher.verify.life import trigger_is_awake
from dispatcher.verify.report import Examination

# An erasure with everybody who is that person: the contact and its tombstones.
_GONE = """gone AS MATERIALIZED (
    SELECT id AS erasure, order_seq, done_at, contact_id FROM erasure
    UNION ALL
    SELECT e.id, e.order_seq, e.done_at, t.id FROM erasure e JOIN contact t ON t.merged_into = e.contact_id)"""

#: What must not be there once an erasure is done: how it is told, where it would be, and what it would be.
_LEFT = (
    ("is sealed under a key that is there", "contact x ON x.id = g.contact_id",
     "x.data_key IS NOT NULL OR x.sealed IS NOT NULL"),
    ("has an address", "contact x ON x.id = g.contact_id",
     "x.email_address_id IS NOT NULL OR x.sms_address_id IS NOT NULL"),
    ("has attributes or a place", "contact x ON x.id = g.contact_id",
     """x.attributes <> '{}' OR x.zone IS NOT NULL OR x.country IS NOT NULL OR x.subdivision IS NOT NULL
        OR x.phone_region IS NOT NULL OR x.locale IS NOT NULL"""),
    ("has interests", "interest x ON x.contact_id = g.contact_id", "true"),
    ("has an event that can be read", "event x ON x.contact_id = g.contact_id",
     "x.properties <> '{}' OR EXISTS (SELECT FROM event_item i WHERE i.event_id = x.id)"),
    ("has a message with data", "message x ON x.contact_id = g.contact_id", "x.sealed IS NOT NULL"),
    ("has a message on the wire", "message x ON x.contact_id = g.contact_id", "x.status = 'sending'"),
    ("has links that can be read", "tracked_message x ON x.contact_id = g.contact_id", "x.sealed IS NOT NULL"),
    ("has feedback that can be read", "feedback x ON x.contact_id = g.contact_id", "x.sealed IS NOT NULL"),
    ("has a reply that can be read", "reply x ON x.contact_id = g.contact_id", "x.sealed IS NOT NULL"),
)  # fmt: skip


def erased_for_good(found: Examination) -> None:
    """INV-20."""
    found.count("SELECT count(*) FROM erasure")
    for wrong, where, what in _LEFT:
        found.ask(f"""
            WITH {_GONE}
            SELECT DISTINCT 'erasure ' || g.erasure || ' is done, and contact ' || g.contact_id || ' {wrong}'
            FROM gone g JOIN {where} WHERE g.done_at IS NOT NULL AND ({what})""")  # noqa: S608 - constants
    found.ask(f"""
        WITH {_GONE}
        SELECT 'message ' || m.id || ' was authorised after erasure ' || g.erasure
        FROM gone g JOIN message m ON m.contact_id = g.contact_id AND m.authorise_seq > g.order_seq""")  # noqa: S608
    found.ask("""
        SELECT 'contact ' || c.id || ' has an e-mail address that was erased'
        FROM contact c JOIN suppression s ON s.address_id = c.email_address_id AND s.reason = 'erasure'
        WHERE c.erased_at IS NULL""")
    found.ask("""
        SELECT 'erasure ' || e.id || ' is done, and the audit has no proof of it' FROM erasure e
        WHERE e.done_at IS NOT NULL AND NOT EXISTS (
            SELECT FROM audit a WHERE a.action = 'erasure.done' AND a.subject = 'contact ' || e.contact_id)""")
    in_progress = found.subject.connection.scalar(text("SELECT count(*) FROM erasure WHERE done_at IS NULL"))
    if in_progress:
        found.note(f"{in_progress} in progress")


def audit_is_whole(found: Examination) -> None:
    """INV-21."""
    chain = audit_chain.verify_chain(found.subject.connection)
    found.checked = chain.links
    for finding in chain.findings:
        found.add(finding)
    for table in ("audit", "audit_link"):
        if not trigger_is_awake(found.subject.connection, table, f"{table}_append_only"):
            found.add(f"the audit can be changed: trigger {table}_append_only is missing or disabled")
    if chain.not_linked:
        found.note(f"{chain.not_linked} of its newest entries are not in the chain yet")
