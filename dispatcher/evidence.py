"""Everything we know of one contact's consent, for somebody who has to judge it: as JSON, and as a page to print.

Personal data are opened, so whoever asks is in the audit.  All instants are RFC 3339 in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cryptography.exceptions import InvalidTag
from sqlalchemy import Connection, Row, text

from dispatcher import audit, clock, consent, opt_in
from dispatcher.consent import verify_chain
from dispatcher.contacts import find_contact, personal_of
from dispatcher.content import readable_source, render_evidence
from dispatcher.instants import show_instant
from dispatcher.keys import KeyRing
from dispatcher.shop import shop_name


def gather(connection: Connection, key_ring: KeyRing, contact: str, *, by: str) -> dict[str, Any]:
    """Return the evidence on the contact meant by an external id or an e-mail address; plain JSON.

    The whole chain is verified on the way, whatever its length.  NotFound if there is no such contact.
    """
    contact_id = find_contact(connection, key_ring, contact)
    family = connection.execute(_FAMILY, {"id": contact_id}).all()
    now = clock.read_now(connection)
    person = who(connection, key_ring, contact_id)
    events = pieces_of(connection, key_ring, [row.id for row in family], person)
    audit.record(connection, by, "consent.export", str(contact_id), {"events": len(events)})
    ids = {"ids": [row.id for row in family]}
    return {
        "made_at": show_instant(now),
        "shop": shop_name(connection),
        "contact": person,
        "chain": _chain(connection),
        "states": [_state(one, now) for one in consent.state_of(connection, contact_id)],
        "events": events,
        "suppressions": [_plain(row) for row in connection.execute(_SUPPRESSIONS, ids)],
        "unsubscribes": [_plain(row) for row in connection.execute(_UNSUBSCRIBES, ids)],
    }


def pieces_of(
    connection: Connection, key_ring: KeyRing, contact_ids: Sequence[int], person: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return every piece of evidence on these contacts in its order, opened; plain JSON.

    `person`: their `email`, `phone`, `email_hash` and `sms_hash` today, so that a piece can name its address.
    """
    rows = connection.execute(_EVENTS, {"ids": list(contact_ids), "client": opt_in.CLIENT}).all()
    return [_event(connection, key_ring, row, person) for row in rows]


def to_html(gathered: Mapping[str, Any]) -> str:
    """Return what `gather` found as one page without anything from outside; every value escaped."""
    return render_evidence(gathered)


_FAMILY = text("SELECT id FROM contact WHERE id = :id OR merged_into = :id ORDER BY id")
_WHO = text("""
    SELECT c.external_id, c.locale, c.country, c.subdivision, c.zone, c.created_at, c.erased_at,
           (SELECT array_agg(a.external_id ORDER BY a.external_id) FROM contact_alias a WHERE a.contact_id = c.id
                AND a.external_id <> c.external_id) AS aliases,
           encode(e.hash, 'hex') AS email_hash, encode(s.hash, 'hex') AS sms_hash
    FROM contact c LEFT JOIN address e ON e.id = c.email_address_id LEFT JOIN address s ON s.id = c.sms_address_id
    WHERE c.id = :id
""")
# With the confirmation message that a request led to.
_EVENTS = text("""
    SELECT e.id, e.channel, e.topic, e.action, e.actor, e.basis, e.opt_in_level, e.occurred_at, e.received_at, e.source,
           e.wording, encode(e.address_hash, 'hex') AS address_hash, e.confirmation, e.sealed, c.data_key,
           encode(e.previous_hash, 'hex') AS previous_hash, encode(e.hash, 'hex') AS hash,
           m.id AS message, m.status, m.reason, m.provider, m.provider_ref, m.handed_over_at, r.name AS template
    FROM consent_event e JOIN contact c ON c.id = e.contact_id
    LEFT JOIN message m ON m.client = :client AND m.idempotency_key = CAST(e.id AS text) AND e.action = 'requested'
    LEFT JOIN run r ON r.id = m.run_id
    WHERE e.contact_id = ANY(:ids) ORDER BY e.id
""")
_SUPPRESSIONS = text("""
    SELECT a.channel, encode(a.hash, 'hex') AS address_hash, s.reason, s.scope, s.source, s.created_at
    FROM suppression s JOIN address a ON a.id = s.address_id
    WHERE a.id IN (SELECT unnest(ARRAY[email_address_id, sms_address_id]) FROM contact WHERE id = ANY(:ids)
                   UNION SELECT address_id FROM consent_event WHERE contact_id = ANY(:ids))
    ORDER BY s.id
""")
_UNSUBSCRIBES = text("""
    SELECT channel, topic, committed_at, answered_at, answer FROM unsubscribe WHERE contact_id = ANY(:ids) ORDER BY id
""")


def who(connection: Connection, key_ring: KeyRing, contact_id: int) -> dict[str, Any]:
    """Return who a contact is, opened, and the hashes of their addresses today; plain JSON."""
    row = connection.execute(_WHO, {"id": contact_id}).one()
    return _plain(row) | {"aliases": row.aliases or []} | asdict(personal_of(connection, key_ring, contact_id))


def _chain(connection: Connection) -> dict[str, Any]:
    findings = verify_chain(connection)
    last = connection.execute(
        text("SELECT id, encode(hash, 'hex') AS hash FROM consent_event ORDER BY id DESC LIMIT 1")
    ).one_or_none()
    return {
        "verified": not findings,
        "findings": findings,
        "newest": {"id": last.id, "hash": last.hash} if last else None,
    }


def _state(one: consent.Held, now: Any) -> dict[str, Any]:
    expired = one.expires_at is not None and one.expires_at <= now
    shown = {name: show_instant(value) if name.endswith("_at") else value for name, value in one._asdict().items()}
    return shown | {"in_force": one.state == "granted" and one.for_present_address and not expired}


def _event(connection: Connection, key_ring: KeyRing, row: Row[Any], person: Mapping[str, Any]) -> dict[str, Any]:
    is_present = row.address_hash is not None and row.address_hash == person[f"{row.channel}_hash"]
    return {
        "id": row.id,
        "channel": row.channel,
        "topic": row.topic,
        "action": row.action,
        "actor": row.actor,
        "basis": row.basis,
        "opt_in_level": row.opt_in_level,
        "occurred_at": show_instant(row.occurred_at),
        "received_at": show_instant(row.received_at),
        "source": row.source,
        "wording": _wording(connection, row),
        "address": person["email" if row.channel == "email" else "phone"] if is_present else None,
        "address_hash": row.address_hash,
        "seen": _opened(key_ring, row),
        "confirmation": _confirmation(row),
        "previous_hash": row.previous_hash,
        "hash": row.hash,
    }


def _wording(connection: Connection, row: Row[Any]) -> dict[str, Any] | None:
    """Return the wording with its text, where we have it: as it was told, or as the template we asked with."""
    if row.wording is None:
        return None
    stored = connection.execute(
        text("SELECT files FROM template WHERE hash = :hash"), {"hash": row.wording.get("hash")}
    ).scalar()
    shown = dict.fromkeys(("id", "language", "hash", "text")) | dict(row.wording)
    if stored is not None:
        shown["text"] = readable_source(stored, shown["language"])
    return shown


def _opened(key_ring: KeyRing, row: Row[Any]) -> dict[str, Any] | None:
    """Return IP and user agent; None if there are none, or their key was destroyed with an erasure."""
    if row.sealed is None or row.data_key is None:
        return None
    try:
        return dict.fromkeys(("ip", "user_agent")) | key_ring.open_data_key(row.data_key).open(row.sealed)
    except InvalidTag:  # the bytes are not what was sealed: the chain says so as well
        return None


_PROOF = (
    "request", "message", "template", "template_hash", "status", "reason", "provider", "provider_ref", "sent_at",
)  # fmt: skip


def _confirmation(row: Row[Any]) -> dict[str, Any] | None:
    """Return the message whose link was used, as the evidence keeps it; of a request: what the ledger says of it."""
    if row.confirmation is not None:
        return dict.fromkeys(_PROOF) | dict(row.confirmation)
    if row.message is None:
        return None
    return dict.fromkeys(_PROOF) | {
        "request": row.id,
        "message": str(row.message),
        "template": row.template,
        "status": row.status,
        "reason": row.reason,
        "provider": row.provider,
        "provider_ref": row.provider_ref,
        "sent_at": show_instant(row.handed_over_at),
    }


def _plain(row: Row[Any]) -> dict[str, Any]:
    return {name: show_instant(value) if name.endswith("_at") else value for name, value in row._mapping.items()}
