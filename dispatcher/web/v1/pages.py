"""Lists, a page at a time: the newest facts may move under a reader's eyes, so a page goes on behind a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from dispatcher.lists import Page
from dispatcher.web.cursors import LONGEST
from dispatcher.web.room import room_of
from dispatcher.web.v1.operations import read, shown

Item = TypeVar("Item")

MOST_AT_ONCE = 500

Limit = Annotated[int, Query(ge=1, le=MOST_AT_ONCE, description="how many at most")]
Cursor = Annotated[str | None, Query(max_length=LONGEST, description="where to go on: from `next` of the page before")]


class Listed(BaseModel, Generic[Item]):
    """A page of a list."""

    items: list[Item]
    next: Annotated[str | None, Field(description="the path of the next page; null: this is the last")] = None


async def list_page(
    request: Request, response: Response, path: str, find: Callable[[Connection, list[Any] | None], Page], *,
    limit: int, cursor: str | None, filters: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the page behind `cursor` that `find` finds, and how to ask for the next one, in the body and as a Link."""
    cursors = room_of(request).cursors
    asked = {name: str(value) for name, value in (filters or {}).items() if value is not None}
    listing = f"{path}?{urlencode(sorted(asked.items()))}"
    after = cursors.read(listing, cursor)
    page = await read(request, lambda connection: find(connection, after))
    follows = None
    if page.last is not None:
        query = urlencode({**asked, "limit": limit, "cursor": cursors.make(listing, page.last)})
        follows = f"{path}?{query}"
        response.headers["Link"] = f'<{follows}>; rel="next"'
    return {"items": shown(page.items), "next": follows}
