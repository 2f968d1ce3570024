"""Who a person is in our books: a contact, the tombstones merged into it, and every address that was theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from dispatcher.errors import NotFound

_FAMILY = text("""
    WITH today AS (SELECT COALESCE(merged_into, id) AS id FROM contact WHERE id = :id)
    SELECT id FROM (
        SELECT id, 0 AS place FROM today
        UNION ALL SELECT t.id, 1 FROM today JOIN contact t ON t.merged_into = today.id) f
    ORDER BY place, id
""")

# What they have now, and what they had: of that only what is nobody else's by now.
_ADDRESSES = text("""
    WITH present AS (
        SELECT unnest(ARRAY[email_address_id, sms_address_id]) AS id FROM contact WHERE id = ANY(:family)
    ), former AS (
        SELECT address_id AS id FROM consent_event WHERE contact_id = ANY(:family)
        UNION SELECT address_id FROM consent WHERE contact_id = ANY(:family)
        UNION SELECT address_id FROM unsubscribe WHERE contact_id = ANY(:family)
        UNION SELECT address_id FROM message WHERE contact_id = ANY(:family) AND authorised_at IS NOT NULL
    )
    SELECT id FROM present WHERE id IS NOT NULL
    UNION SELECT id FROM former WHERE id IS NOT NULL AND NOT EXISTS (
        SELECT FROM contact o WHERE o.email_address_id = former.id AND o.id <> ALL(:family)
        UNION ALL SELECT FROM contact o WHERE o.sms_address_id = former.id AND o.id <> ALL(:family))
    ORDER BY id
""")
_HOLDERS = text("""
    SELECT id FROM contact WHERE email_address_id = ANY(:addresses)
    UNION SELECT id FROM contact WHERE sms_address_id = ANY(:addresses) ORDER BY id
""")


#: Every message of the contacts :ids, as a table to select from.  Those of an audience are looked up run by run: an
#: index by contact over the one table that grows without end would cost every plan what this costs once.
THEIR_MESSAGES = """(
    SELECT m.* FROM run r CROSS JOIN LATERAL (
        SELECT m.* FROM message m WHERE m.run_id = r.id AND m.contact_id = ANY(:ids) AND m.client IS NULL OFFSET 0) m
    UNION ALL SELECT m.* FROM message m WHERE m.client IS NOT NULL AND m.contact_id = ANY(:ids))"""
#: What was reported of these, and of :addresses by who named no message.  A report with a contact has a message.
THEIR_FEEDBACK = f"""(
    SELECT f.* FROM {THEIR_MESSAGES} m JOIN feedback f ON f.message_id = m.id
    UNION ALL SELECT f.* FROM feedback f WHERE f.contact_id IS NULL AND f.address_id = ANY(:addresses))"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Family:
    """A contact and everything that is the same person."""

    contact_id: int  #: the contact as it is today
    ids: tuple[int, ...]  #: that one, and the tombstones merged into it
    addresses: tuple[int, ...]  #: present ones, and former ones that nobody else has now
    sharing: tuple[int, ...]  #: others who have one of those: a phone may be shared


def family_of(connection: Connection, contact_id: int) -> Family:
    """Return who this contact, or what it was merged into, is; NotFound if there is none."""
    ids = tuple(connection.scalars(_FAMILY, {"id": contact_id}))
    if not ids:
        raise NotFound(f"there is no contact with id {contact_id}")
    addresses = addresses_of(connection, ids)
    holders = connection.scalars(_HOLDERS, {"addresses": list(addresses)})
    return Family(ids[0], ids, addresses, tuple(holder for holder in holders if holder not in ids))


def addresses_of(connection: Connection, ids: Sequence[int]) -> tuple[int, ...]:
    """Return the ids of every address that is, or was and is nobody else's, of these contacts."""
    return tuple(connection.scalars(_ADDRESSES, {"family": list(ids)}))
