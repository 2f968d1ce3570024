"""What the operations of /v1 have in common: how they are described, and how they talk to the ledger."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter
from fastapi import Path, Query, Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from sqlalchemy import Connection

from dispatcher import db
from dispatcher.definitions import NAME
from dispatcher.errors import Refused
from dispatcher.imports.contact_rows import LONGEST_ID
from dispatcher.instants import show_instant
from dispatcher.web.room import in_thread, room_of

T = TypeVar("T")

_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", re.ASCII)
_YEARS = range(1970, 2201)

#: An instant in an answer.
Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-25T10:00:00.000000Z"])]


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("has a character that cannot be printed")
    return value


Printable = Annotated[str, AfterValidator(_printable)]
ContactId = Annotated[
    Printable,
    Path(min_length=1, max_length=LONGEST_ID, description="the shop's own id of the contact", examples=["17850"]),
]
CampaignName = Annotated[str, Path(pattern=NAME, description="the campaign's name", examples=["christmas"])]


def _written(value: Any) -> Any:
    """Let no number pass for an instant: 0 would be a day in 1970."""
    if value is not None and not (isinstance(value, str) and _INSTANT.match(value)):
        raise ValueError("is not an instant; write it like 2026-12-01T10:00:00Z")
    return value


#: What an instant that is sent must go through before it is read.
AsText = BeforeValidator(_written)
AsOf = Annotated[
    datetime | None, AsText, Query(description="judge as of this instant, RFC 3339 with its offset; else now")
]


class Asked(BaseModel):
    """What is sent to us: a field that we do not know is a slip, and refused."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """Every error: application/problem+json (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    errors: Annotated[
        list[dict[str, str]] | None, Field(description="of a 422: each wrong `field`, and the `message` that says why")
    ] = None


_WHY = {
    HTTPStatus.BAD_REQUEST: "the body is not even text",
    HTTPStatus.UNAUTHORIZED: "no key, or one that is not known, has expired or was revoked",
    HTTPStatus.FORBIDDEN: "the key lacks the scope; said before it is looked whether the thing exists",
    HTTPStatus.NOT_FOUND: "there is nothing of that name",
    HTTPStatus.CONFLICT: "it does not go with how things stand",
    HTTPStatus.PRECONDITION_FAILED: "it was changed since: `If-Match` names another version",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is larger than 256 KB",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "the body is not application/json",
    HTTPStatus.UNPROCESSABLE_ENTITY: "understood and refused; a wrong field is named",
    HTTPStatus.TOO_MANY_REQUESTS: "the key has made its requests of this minute: wait for `Retry-After` seconds",
    HTTPStatus.SERVICE_UNAVAILABLE: "the database is away: try again in a moment",
}
_EVERYWHERE = (401, 403, 422, 429, 503)
_WITH_A_BODY = (400, 413, 415)


def operation(
    operation_id: str, scope: str, *, answers: Any = None, example: Any = None, status: int = 200, body: bool = False,
    also: Mapping[int, str | None] | None = None, links: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return what FastAPI is to say of an operation: its id, its scope, every error, an example of its answer.

    `answers`: the model of what it answers, if the return type does not say.  `body`: it takes one.  `also`: further
    statuses, with why if it is not the usual.  `links`: the operations that go on from its answer, and where in it
    their parameters are.
    """
    statuses = dict.fromkeys((*_EVERYWHERE, *(_WITH_A_BODY if body else ())), None) | dict(also or {})
    responses: dict[int | str, dict[str, Any]] = {status: {}}
    for code, why in sorted(statuses.items()):
        responses[code] = _error(code, why) if code >= 400 else {"description": why or HTTPStatus(code).phrase}
    for code, answer in responses.items():
        if int(code) < 400 and answers is not None:
            answer["model"] = answers
        if int(code) < 400 and example is not None:
            answer["content"] = {"application/json": {"example": example}}
        if int(code) < 400 and links:
            answer["links"] = {name: {"operationId": name, "parameters": dict(its)} for name, its in links.items()}
    return {
        "operation_id": operation_id,
        "status_code": status,
        "response_model": answers,
        "responses": responses,
        "openapi_extra": {"security": [{"key": [scope]}], "x-scope": scope},
    }


def _error(code: int, why: str | None) -> dict[str, Any]:
    status = HTTPStatus(code)
    example: dict[str, Any] = {"type": "about:blank", "title": status.phrase, "status": code}
    described: dict[str, Any] = {
        "description": why or _WHY[status],
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
        },
    }
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        described["headers"] = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer"}}}
    return described


def with_offset(as_of: datetime | None) -> datetime | None:
    """Return the instant in UTC; Refused if it does not say of which place it is the time, or is centuries away."""
    if as_of is None:
        return None
    if as_of.tzinfo is None:
        raise Refused("as_of needs its offset; write it like 2026-12-01T10:00:00Z")
    if as_of.year not in _YEARS:
        raise Refused(f"nothing can be judged in the year {as_of.year}; choose one from {_YEARS[0]} to {_YEARS[-1]}")
    return as_of.astimezone(UTC)


async def read(request: Request, find: Callable[[Connection], T], pool: CapacityLimiter | None = None) -> T:
    """Return what `find` finds in a transaction that cannot write; in a thread of `pool`, else of the API's."""
    room = room_of(request)

    def in_transaction() -> T:
        with db.reading(room.database) as connection:
            return find(connection)

    found: T = shown(await in_thread(pool or room.pools.api, in_transaction))
    return found


async def write(request: Request, work: Callable[[Connection], T]) -> T:
    """Return what `work` returns, committed."""
    room = room_of(request)

    def in_transaction() -> T:
        with room.database.begin() as connection:
            return work(connection)

    done: T = shown(await in_thread(room.pools.api, in_transaction))
    return done


def shown(value: Any) -> Any:
    """Return the value with its instants as every answer shows them."""
    if isinstance(value, datetime):
        return show_instant(value)
    if isinstance(value, dict):
        return {name: shown(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shown(part) for part in value]
    return value


JsonObject = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "additionalProperties": True})]
