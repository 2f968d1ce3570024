"""What people may ask of us: everything we know of them, and to be forgotten."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection, text

from dispatcher import audit, rights
from dispatcher.api_keys import ApiKey
from dispatcher.contacts import find_contact
from dispatcher.errors import NotFound
from dispatcher.rights.erasing import state_of_row
from dispatcher.web.room import room_of
from dispatcher.web.v1.callers import permit
from dispatcher.web.v1.operations import ContactId, Instant, JsonObject, operation, read, write

router = APIRouter(prefix="/v1", tags=["rights"])


class Erasure(BaseModel):
    """`in progress` until nothing is in flight any more; then the data key is destroyed, and it is `done`."""

    id: int
    state: Literal["in progress", "done"]
    requested_at: Instant
    done_at: Instant | None
    proof: Annotated[JsonObject | None, Field(description="once done: what was destroyed, in figures")] = None


_DONE = {
    "id": 7, "state": "done", "requested_at": "2026-11-25T10:00:00.000000Z", "done_at": "2026-11-25T10:00:06.120000Z",
    "proof": {"data_keys": 1},
}  # fmt: skip


@router.get(
    "/contacts/{external_id}/export",
    summary="Everything that is known of a contact",
    **operation(
        "exportContact",
        "personal:read",
        answers=dict[str, Any],
        also={404: None},
        example={"format": "dispatcher.person", "version": 1, "made_at": "2026-11-25T10:00:00.000000Z", "shop": "Shop"},
    ),
)
async def export_contact(
    request: Request, external_id: ContactId, key: Annotated[ApiKey, Depends(permit("personal:read"))]
) -> dict[str, Any]:
    """For the person themselves, in full, as `dispatcher contact export` writes it.  The audit says who exported."""
    key_ring = room_of(request).key_ring

    def work(connection: Connection) -> dict[str, Any]:
        contact_id = find_contact(connection, key_ring, external_id)
        audit.record(connection, key.actor, "contact.export", f"contact {contact_id}")
        return rights.export_contact(connection, key_ring, contact_id)

    return await write(request, work)


@router.delete(
    "/contacts/{external_id}",
    summary="Erase a contact",
    **operation(
        "eraseContact", "contacts:erase", answers=Erasure, status=202, also={404: None},
        links={"readErasure": {"erasure_id": "$response.body#/id"}},
        example={"id": 7, "state": "in progress", "requested_at": "2026-11-25T10:00:00.000000Z", "done_at": None,
                 "proof": None},
    ),
)  # fmt: skip
async def erase_contact(
    request: Request, response: Response, external_id: ContactId,
    key: Annotated[ApiKey, Depends(permit("contacts:erase"))],
) -> dict[str, Any]:  # fmt: skip
    """From now on nothing is sent to them.  Once nothing is in flight, their data key is destroyed, for good.

    202, always: `Location` says where to look until it is `done`.  Asking twice is harmless.
    """
    key_ring = room_of(request).key_ring

    def work(connection: Connection) -> dict[str, Any]:
        contact_id = find_contact(connection, key_ring, external_id)
        asked = rights.request_erasure(connection, key_ring, contact_id, by=key.actor)
        return told_erasure(connection, asked.id)

    told = await write(request, work)
    response.headers["Location"] = f"/v1/erasures/{told['id']}"
    return told


@router.get(
    "/erasures/{erasure_id}",
    summary="How far an erasure has come",
    dependencies=[Depends(permit("contacts:read"))],
    **operation("readErasure", "contacts:read", answers=Erasure, example=_DONE, also={404: None}),
)
async def read_erasure(
    request: Request, erasure_id: Annotated[int, Path(ge=1, le=2**63 - 1, examples=[7])]
) -> dict[str, Any]:
    """By number, since the person's own ids may be what is erased."""
    return await read(request, partial(told_erasure, erasure_id=erasure_id))


def told_erasure(connection: Connection, erasure_id: int) -> dict[str, Any]:
    """Return the erasure as `Erasure` has it; NotFound if there is none."""
    row = connection.execute(text("SELECT * FROM erasure WHERE id = :id"), {"id": erasure_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no erasure {erasure_id}")
    state = state_of_row(row)
    return {name: getattr(state, name) for name in Erasure.model_fields}
