"""/v1/messages: ask for a transactional message, see what became of messages, stop one."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dispatcher import lists, messages
from dispatcher.api_keys import ApiKey
from dispatcher.definitions import NAME, Channel
from dispatcher.imports.contact_rows import LONGEST_ID
from dispatcher.lifecycle import Status
from dispatcher.web.room import in_thread, room_of
from dispatcher.web.v1.callers import permit
from dispatcher.web.v1.operations import Asked, Instant, Printable, operation, read, write
from dispatcher.web.v1.pages import Cursor, Limit, Listed, list_page

router = APIRouter(prefix="/v1", tags=["messages"])


class NewMessage(Asked):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "template": "order-confirmation", "channel": "email", "contact": "17850",
                    "data": {"number": "A-17", "total": "15.30"},
                }
            ]
        }
    )  # fmt: skip

    template: Annotated[str, Field(pattern=NAME, description="a transactional or security template")]
    channel: Channel
    contact: Annotated[
        Printable, Field(min_length=1, max_length=LONGEST_ID, description="the shop's own id of the contact")
    ]
    data: dict[str, Any] = Field(default_factory=dict, description="what the template may use; kept encrypted")


class MessageId(BaseModel):
    id: UUID


class Message(BaseModel):
    """What became of a message."""

    id: UUID
    run: UUID
    contact: str
    channel: Channel
    class_: Annotated[Literal["marketing", "transactional", "security"], Field(alias="class")]
    topic: str | None
    status: Status
    reason: Annotated[str | None, Field(description="why it waits, or was skipped, failed or cancelled")]
    due_at: Instant
    expires_at: Instant
    authorised_at: Instant | None
    handed_over_at: Instant | None
    settled_at: Instant | None


class MessageTold(Message):
    because: Annotated[str | None, Field(description="`RENDER_FAILED`: file, line and what is wrong there")]
    template: str
    trigger: str | None


_ID = "01998f6e-7a3c-7d10-9a50-2f6d1c0b7a11"
_MESSAGE = {
    "id": _ID, "run": "01998f6e-5b1f-7c33-8d2a-90a4be3a1c77", "contact": "17850", "channel": "email",
    "class": "transactional", "topic": None, "status": "sent", "reason": None,
    "due_at": "2026-11-25T10:00:00.000000Z", "expires_at": "2026-11-28T10:00:00.000000Z",
    "authorised_at": "2026-11-25T10:00:00.040000Z", "handed_over_at": "2026-11-25T10:00:00.061000Z",
    "settled_at": "2026-11-25T10:00:00.148000Z",
}  # fmt: skip
_TOLD = _MESSAGE | {"because": None, "template": "order-confirmation", "trigger": None}


@router.post(
    "/messages",
    summary="Ask for a transactional message",
    **operation(
        "askForMessage", "messages:write", answers=MessageId, body=True, status=202, example={"id": _ID},
        also={404: "there is no such contact", 409: "the `Idempotency-Key` came before with another body"},
        links={name: {"message_id": "$response.body#/id"} for name in ("readMessage", "cancelMessage")},
    ),
)  # fmt: skip
async def submit_message(
    request: Request,
    response: Response,
    wanted: NewMessage,
    key: Annotated[ApiKey, Depends(permit("messages:write"))],
    idempotency_key: Annotated[
        Printable, Header(min_length=1, max_length=messages.LONGEST_KEY, examples=["order-A-17-confirmation"])
    ],
) -> MessageId:
    """The same `Idempotency-Key` with the same body is the same message, however often sent; with another body: 409.

    202: it is in the ledger.  `Location` names it.
    """
    room = room_of(request)
    wish = messages.Wish(wanted.template, wanted.channel, wanted.contact, wanted.data)

    def submit() -> UUID:
        with room.database.begin() as connection:
            return messages.submit(
                connection, room.key_ring, wish, client=key.name, idempotency_key=idempotency_key, by=key.actor
            )

    message_id = await in_thread(room.pools.api, submit)
    response.headers["Location"] = f"/v1/messages/{message_id}"
    return MessageId(id=message_id)


@router.get(
    "/messages",
    summary="The messages of a run",
    dependencies=[Depends(permit("messages:read"))],
    **operation(
        "listMessages",
        "messages:read",
        answers=Listed[Message],
        example={"items": [_MESSAGE], "next": None},
        links={"readMessage": {"message_id": "$response.body#/items/0/id"}},
    ),
)
async def list_messages(
    request: Request, response: Response, run: Annotated[UUID, Query(description="whose messages")],
    status: Annotated[Status | None, Query(description="only those that stand so")] = None,
    limit: Limit = 100, cursor: Cursor = None,
) -> dict[str, Any]:  # fmt: skip
    """Everybody in the audience of a campaign's run has one, also those it was never sent to: `reason` says why."""
    return await list_page(
        request, response, "/v1/messages",
        lambda connection, after: lists.messages(connection, after, limit, run_id=run, status=status),
        limit=limit, cursor=cursor, filters={"run": run, "status": status},
    )  # fmt: skip


@router.get(
    "/messages/{message_id}",
    summary="What became of a message",
    dependencies=[Depends(permit("messages:read"))],
    **operation("readMessage", "messages:read", answers=MessageTold, example=_TOLD, also={404: None}),
)
async def read_message(request: Request, message_id: UUID) -> dict[str, Any]:
    """`status` is where it stands, `reason` why it is not simply on its way."""
    return await read(request, lambda connection: messages.read(connection, message_id))


@router.delete(
    "/messages/{message_id}",
    summary="Stop a message that has not left yet",
    **operation(
        "cancelMessage", "messages:write", answers=MessageTold,
        example=_TOLD | {"status": "cancelled", "reason": "OPERATOR"},
        also={404: None, HTTPStatus.CONFLICT: "it is under way, or has come to its end"},
    ),
)  # fmt: skip
async def cancel_message(
    request: Request, message_id: UUID, key: Annotated[ApiKey, Depends(permit("messages:write"))]
) -> dict[str, Any]:
    """Tells what became of the message; stopping it twice changes nothing, and its `Idempotency-Key` stays taken."""
    return await write(request, partial(messages.cancel, message_id=message_id, by=key.actor))
