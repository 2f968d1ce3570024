"""What is known of a contact, as `contact show` and the API tell it: personal fields masked, unless revealed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from dispatcher import consent, suppression
from dispatcher.contact_json import version_of
from dispatcher.definitions import Silence
from dispatcher.keys import KeyRing
from dispatcher.masking import masked_address
from dispatcher.personal import PERSONAL_FIELDS, open_personal
from dispatcher.rights import erasure_state


def tell(connection: Connection, key_ring: KeyRing, contact_id: int, *, reveal: bool) -> dict[str, Any]:
    """Return what is known of this contact; None: not known.  Instants are aware, in UTC.

    That personal fields were revealed is for the caller to record.
    """
    row = connection.execute(text("SELECT * FROM contact WHERE id = :id"), {"id": contact_id}).one()
    aliases = connection.scalars(
        text("SELECT external_id FROM contact_alias WHERE contact_id = :id ORDER BY external_id"), {"id": contact_id}
    )
    personal = open_personal(key_ring, row.data_key, row.sealed)
    erasure = erasure_state(connection, contact_id)
    return {
        "contact": row.external_id,
        "also_known_as": [alias for alias in aliases if alias != row.external_id],
        "masked": not reveal,
        **{name: _shown(name, getattr(personal, name), reveal=reveal) for name in PERSONAL_FIELDS},
        "locale": row.locale,
        "country": row.country,
        "subdivision": row.subdivision,
        "timezone": row.zone,
        "attributes": row.attributes,
        "paused_until": row.paused_until,
        "quiet_hours": [str(Silence.model_validate(one)) for one in row.quiet_hours or ()],
        "erased_at": row.erased_at,
        "erasure": erasure and {name: getattr(erasure, name) for name in ("id", "state", "requested_at", "done_at")},
        "consent": [held._asdict() for held in consent.state_of(connection, contact_id)],
        "suppressions": [
            {"channel": s.channel, "reason": s.reason, "scope": s.scope, "source": s.source, "created_at": s.created_at}
            for address_id in (row.email_address_id, row.sms_address_id)
            if address_id is not None
            for s in suppression.suppressions_of(connection, address_id)
        ],
        "version": version_of(connection, key_ring, contact_id),
    }


def _shown(name: str, value: str | None, *, reveal: bool) -> str | None:
    if not value or reveal:
        return value
    if name in ("email", "phone"):
        return masked_address("email" if name == "email" else "sms", value)
    return f"{value[:1]}•••"
