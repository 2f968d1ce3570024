"""A contact as an answer shows it; personal fields masked unless the key may read them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy import Connection, text

from dispatcher import consent, suppression
from dispatcher.contact_json import version_of
from dispatcher.definitions import Channel
from dispatcher.keys import KeyRing
from dispatcher.personal import PERSONAL_FIELDS, open_personal
from dispatcher.web.masking import masked_address
from dispatcher.web.v1.operations import Instant


class ConsentHeld(BaseModel):
    channel: Channel
    topic: str
    state: str
    confirmed: bool
    basis: str | None
    effective_at: Instant
    expires_at: Instant | None
    for_present_address: Annotated[bool, Field(description="else it is void: given for an address they had before")]
    source: str


class Suppressed(BaseModel):
    channel: Channel
    reason: str
    scope: str
    source: str
    created_at: Instant


class Contact(BaseModel):
    """What is known of a contact.  `null`: not known."""

    contact: Annotated[str, Field(description="the external id it was first known by")]
    also_known_as: Annotated[list[str], Field(description="other external ids that turned out to be the same person")]
    masked: Annotated[bool, Field(description="personal fields are: the key lacks the scope personal:read")]
    email: str | None
    phone: str | None
    first_name: str | None
    last_name: str | None
    postal_code: str | None
    locale: str | None
    country: str | None
    subdivision: str | None
    timezone: str | None
    attributes: dict[str, Any]
    paused_until: Annotated[Instant | None, Field(description="they asked for a pause")]
    erased_at: Instant | None
    consent: list[ConsentHeld]
    suppressions: list[Suppressed]
    version: Annotated[str, Field(description="of its own fields; its `ETag`, too")]
    outcome: Annotated[
        Literal["created", "changed", "unchanged", "merged"] | None,
        Field(description="of a PUT: what it did; `merged`: it is a contact that was known by another id"),
    ] = None


def tell(connection: Connection, key_ring: KeyRing, contact_id: int, *, reveal: bool) -> dict[str, Any]:
    """Return the contact as `Contact` has it."""
    row = connection.execute(text("SELECT * FROM contact WHERE id = :id"), {"id": contact_id}).one()
    aliases = connection.scalars(
        text("SELECT external_id FROM contact_alias WHERE contact_id = :id ORDER BY external_id"), {"id": contact_id}
    )
    personal = open_personal(key_ring, row.data_key, row.sealed)
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
        "erased_at": row.erased_at,
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
    if value is None or reveal:
        return value
    if name in ("email", "phone"):
        return masked_address("email" if name == "email" else "sms", value)
    return f"{value[:1]}•••"
