"""What the shop's programs ask for, under /v1.  Translates only; the rules are in the modules it calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, field_validator

from dispatcher import api_keys, messages, reports
from dispatcher.api_keys import ApiKey, NotAuthenticated
from dispatcher.definitions import NAME, Channel
from dispatcher.instants import show_instant
from dispatcher.web.room import in_thread, room_of

router = APIRouter(prefix="/v1")
_bearer = HTTPBearer(auto_error=False, description="An API key, made by `dispatcher key create`.")


def permit(scope: str) -> Callable[..., Awaitable[ApiKey]]:
    """Return a dependency: the caller's key, which must have `scope`."""

    async def authenticated(
        request: Request, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> ApiKey:
        if sent is None:
            raise NotAuthenticated("send an API key: Authorization: Bearer dsp_...")
        room = room_of(request)

        def look_up() -> ApiKey:
            with room.database.begin() as connection:  # its own: the note of use must not wait for the work
                return api_keys.authenticate(connection, sent.credentials, scope)

        return await in_thread(room.pools.api, look_up)

    return authenticated


class NewMessage(BaseModel):
    model_config = ConfigDict(extra="forbid")

    template: Annotated[str, Field(pattern=NAME, description="a transactional or security template")]
    channel: Channel
    contact: Annotated[str, Field(min_length=1, max_length=255, description="the shop's own id of the contact")]
    data: dict[str, Any] = Field(default_factory=dict, description="what the template may use; kept encrypted")

    @field_validator("contact")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("has a character that cannot be printed")
        return value


class MessageId(BaseModel):
    id: UUID


@router.post("/messages", status_code=HTTPStatus.ACCEPTED, summary="Ask for a transactional message")
async def submit_message(
    request: Request,
    response: Response,
    wanted: NewMessage,
    key: Annotated[ApiKey, Depends(permit("messages:write"))],
    idempotency_key: Annotated[str, Header(min_length=1, max_length=messages.LONGEST_KEY)],
) -> MessageId:
    """The same `Idempotency-Key` with the same body is the same message, however often sent; with another body: 409."""
    room = room_of(request)
    wish = messages.Wish(wanted.template, wanted.channel, wanted.contact, wanted.data)

    def submit() -> UUID:
        with room.database.begin() as connection:
            return messages.submit(connection, room.key_ring, wish, client=key.name, idempotency_key=idempotency_key)

    message_id = await in_thread(room.pools.api, submit)
    response.headers["Location"] = f"/v1/messages/{message_id}"
    return MessageId(id=message_id)


@router.get(
    "/messages/{message_id}", summary="What became of a message", dependencies=[Depends(permit("messages:read"))]
)
async def read_message(request: Request, message_id: UUID) -> dict[str, Any]:
    return await _read(request, partial(messages.read, message_id=message_id))


@router.get("/runs/{run_id}", summary="The figures of a run", dependencies=[Depends(permit("runs:read"))])
async def read_run(request: Request, run_id: UUID) -> dict[str, Any]:
    return await _read(request, partial(reports.run_report, run_id=run_id))


async def _read(request: Request, read: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    room = room_of(request)

    def in_transaction() -> dict[str, Any]:
        with room.database.connect() as connection:
            return read(connection)

    found = await in_thread(room.pools.api, in_transaction)
    return {name: show_instant(value) if isinstance(value, datetime) else value for name, value in found.items()}
