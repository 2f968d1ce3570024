"""A contact as an answer shows it: `contacts.telling`, described."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from dispatcher.definitions import Channel
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


class ErasureSeen(BaseModel):
    id: Annotated[int, Field(description="`GET /v1/erasures/{id}` says more")]
    state: Literal["in progress", "done"]
    requested_at: Instant
    done_at: Instant | None


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
    quiet_hours: Annotated[list[str], Field(description="they asked for, like `22:00-08:00 mon tue`")]
    erased_at: Instant | None
    erasure: Annotated[ErasureSeen | None, Field(description="they asked to be forgotten")]
    consent: list[ConsentHeld]
    suppressions: list[Suppressed]
    version: Annotated[str, Field(description="of its own fields; its `ETag`, too")]
    outcome: Annotated[
        Literal["created", "changed", "unchanged", "merged"] | None,
        Field(description="of a PUT: what it did; `merged`: it is a contact that was known by another id"),
    ] = None
