"""/v1/segments: who is meant, and how many they are."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel

from dispatcher import audience, clock, lists
from dispatcher.definitions import NAME
from dispatcher.web.room import room_of
from dispatcher.web.v1.callers import permit
from dispatcher.web.v1.operations import AsOf, Instant, operation, read, with_offset
from dispatcher.web.v1.pages import Cursor, Limit, Listed, list_page

router = APIRouter(prefix="/v1", tags=["segments"], dependencies=[Depends(permit("segments:read"))])


class Segment(BaseModel):
    segment: str
    version: int
    campaigns: list[str]


class Count(BaseModel):
    segment: str
    as_of: Instant
    count: int


@router.get(
    "/segments",
    summary="The segments",
    **operation(
        "listSegments", "segments:read", answers=Listed[Segment],
        example={"items": [{"segment": "christmas-fans", "version": 3, "campaigns": ["christmas"]}], "next": None},
        links={"countSegment": {"name": "$response.body#/items/0/segment"}},
    ),
)  # fmt: skip
async def list_segments(
    request: Request, response: Response, limit: Limit = 100, cursor: Cursor = None
) -> dict[str, Any]:
    """By name, with the campaigns that use each."""
    find = partial(lists.segments, limit=limit)
    return await list_page(request, response, "/v1/segments", find, limit=limit, cursor=cursor)


@router.get(
    "/segments/{name}/count",
    summary="How many contacts a segment means",
    **operation(
        "countSegment", "segments:read", answers=Count, also={404: None},
        example={"segment": "christmas-fans", "as_of": "2026-11-25T10:00:00.000000Z", "count": 412},
    ),
)  # fmt: skip
async def count_segment(
    request: Request, name: Annotated[str, Path(pattern=NAME, examples=["christmas-fans"])], as_of: AsOf = None
) -> dict[str, Any]:
    """Counted now, from everybody there is; one count is made at a time."""
    at = with_offset(as_of)

    def count(connection: Any) -> dict[str, Any]:
        judged_at = at or clock.read_now(connection)
        people = audience.count(connection, audience.load_segment(connection, name), judged_at)
        return {"segment": name, "as_of": judged_at, "count": people}

    return await read(request, count, room_of(request).pools.simulations)
