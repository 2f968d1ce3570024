"""GET /v1/suppressions: which addresses are never sent to, as hashes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from dispatcher import lists
from dispatcher.contacts import find_contact
from dispatcher.definitions import Channel
from dispatcher.imports.contact_rows import LONGEST_ID
from dispatcher.suppression import Reason, Scope
from dispatcher.web.room import room_of
from dispatcher.web.v1.callers import permit
from dispatcher.web.v1.operations import Instant, Printable, operation
from dispatcher.web.v1.pages import Cursor, Limit, Listed, list_page

router = APIRouter(prefix="/v1", tags=["suppressions"])


class Suppression(BaseModel):
    channel: Channel
    address_hash: Annotated[str, Field(description="what is kept of the address: a keyed hash, as in `run export`")]
    contacts: Annotated[list[str], Field(description="external ids of those that have the address now")]
    reason: Reason
    scope: Scope
    source: str
    created_at: Instant


_EXAMPLE = {
    "channel": "email", "address_hash": "5f0a" * 16, "contacts": ["17850"], "reason": "hard_bounce", "scope": "all",
    "source": "sendgrid", "created_at": "2026-11-25T10:00:00.000000Z",
}  # fmt: skip


@router.get(
    "/suppressions",
    summary="The addresses that are never sent to",
    dependencies=[Depends(permit("suppressions:read"))],
    **operation(
        "listSuppressions", "suppressions:read", answers=Listed[Suppression],
        example={"items": [_EXAMPLE], "next": None},
        also={404: "there is no such contact"},
    ),
)  # fmt: skip
async def list_suppressions(
    request: Request,
    response: Response,
    channel: Annotated[Channel | None, Query(description="only of this channel")] = None,
    reason: Annotated[Reason | None, Query(description="only for this reason")] = None,
    address_hash: Annotated[str | None, Query(pattern=r"^[0-9a-f]{64}$", description="only of this address")] = None,
    contact: Annotated[
        Printable | None,
        Query(min_length=1, max_length=LONGEST_ID, description="only of this contact's addresses, by external id"),
    ] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """The oldest first.  Nobody can read an address back from here: whoever knows one asks for its contact."""
    key_ring = room_of(request).key_ring

    def find(connection: Connection, after: list[Any] | None) -> lists.Page:
        contact_id = find_contact(connection, key_ring, contact) if contact is not None else None
        return lists.suppressions(
            connection, after, limit, channel=channel, reason=reason, contact_id=contact_id,
            address_hash=bytes.fromhex(address_hash) if address_hash else None,
        )  # fmt: skip

    filters = {"channel": channel, "reason": reason, "address_hash": address_hash, "contact": contact}
    return await list_page(request, response, "/v1/suppressions", find, limit=limit, cursor=cursor, filters=filters)
