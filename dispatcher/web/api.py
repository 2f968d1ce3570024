"""What the shop's programs ask for, under /v1.  Translates only; the rules are in the modules it calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from anyio import CapacityLimiter
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import Connection

from dispatcher import api_keys, db, explain, messages, reports, simulate
from dispatcher.api_keys import ApiKey, NotAuthenticated
from dispatcher.definitions import NAME, Channel
from dispatcher.errors import NotFound, Refused
from dispatcher.instants import show_instant
from dispatcher.web.room import in_thread, room_of

router = APIRouter(prefix="/v1")
_bearer = HTTPBearer(auto_error=False, description="An API key, made by `dispatcher key create`.")


AsOf = Annotated[datetime | None, Query(description="judge as of this instant, RFC 3339 with its offset; else now")]


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
    return await _read(request, lambda c: messages.read(c, message_id))


@router.delete(
    "/messages/{message_id}",
    summary="Stop a message that has not left yet",
    responses={409: {"description": "it is under way, or has come to its end"}},
)
async def cancel_message(
    request: Request, message_id: UUID, key: Annotated[ApiKey, Depends(permit("messages:write"))]
) -> dict[str, Any]:
    """Tells what became of the message; stopping it twice changes nothing, and its `Idempotency-Key` stays taken."""
    room = room_of(request)

    def cancel() -> dict[str, Any]:
        with room.database.begin() as connection:
            return messages.cancel(connection, message_id, by=f"api:{key.name}")

    told: dict[str, Any] = _shown(await in_thread(room.pools.api, cancel))
    return told


@router.get("/runs/{run_id}", summary="The figures of a run", dependencies=[Depends(permit("runs:read"))])
async def read_run(request: Request, run_id: UUID) -> dict[str, Any]:
    return await _read(request, lambda c: reports.run_report(c, run_id))


@router.get("/explain", summary="Why a contact gets a campaign, or not", dependencies=[Depends(permit("explain:read"))])
async def read_explanation(
    request: Request,
    contact: Annotated[str, Query(min_length=1, max_length=320, description="external id, else e-mail address")],
    campaign: Annotated[str, Query(pattern=NAME)],
    as_of: AsOf = None,
    run: Annotated[UUID | None, Query(description="what was decided in this run, with `today` beside it")] = None,
) -> dict[str, Any]:
    """`verdict`, `reason`, `until` and `gates` are of now, or of `as_of`; with `run` they are those of then.

    `sentence` says it in plain words; `eligible` when nothing would object any more; `ledger` what became of the
    contact in the campaign's last run.
    """
    if not contact.isprintable():
        raise NotFound("there is no such contact")
    at = _with_offset(as_of)
    key_ring = room_of(request).key_ring
    return await _read(request, lambda c: explain.explain(c, key_ring, contact, campaign, as_of=at, run=run))


@router.post(
    "/campaigns/{name}/simulate",
    summary="What a campaign would do",
    dependencies=[Depends(permit("campaigns:read"))],
)
async def simulate_campaign(
    request: Request,
    name: Annotated[str, Path(pattern=NAME)],
    as_of: AsOf = None,
    by_hand: Annotated[
        bool, Query(description="as a start by hand would do it, also where the schedule is local")
    ] = False,
) -> dict[str, Any]:
    """Everybody in the audience is asked every gate, and nothing is written: `audience` = `send` + `defer` + `skip`.

    `timeline` counts who would leave in each hour, by zone; `lane` says whether its rate carries them in time.  It
    takes seconds for a large audience, and one is done at a time.
    """
    at = _with_offset(as_of)
    pool = room_of(request).pools.simulations
    return await _read(request, lambda c: simulate.simulate(c, name, as_of=at, by_hand=by_hand).as_json(), pool)


def _with_offset(as_of: datetime | None) -> datetime | None:
    if as_of is not None and as_of.tzinfo is None:
        raise Refused("as_of needs its offset; write it like 2026-12-01T10:00:00Z")
    return as_of


async def _read(
    request: Request, read: Callable[[Connection], dict[str, Any]], pool: CapacityLimiter | None = None
) -> dict[str, Any]:
    """Return what `read` finds in a transaction that cannot write; in a thread of `pool`, else of the API's."""
    room = room_of(request)

    def in_transaction() -> dict[str, Any]:
        with db.reading(room.database) as connection:
            return read(connection)

    found: dict[str, Any] = _shown(await in_thread(pool or room.pools.api, in_transaction))
    return found


def _shown(value: Any) -> Any:
    """Return the value with its instants as every answer shows them."""
    if isinstance(value, datetime):
        return show_instant(value)
    if isinstance(value, dict):
        return {name: _shown(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(part) for part in value]
    return value
