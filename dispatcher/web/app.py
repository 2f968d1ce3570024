"""The application: every route on one screen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from importlib.metadata import version

from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from dispatcher import figures, unsubscribe
from dispatcher.runtime import Runtime
from dispatcher.web import clicks, health, hooks, links, metrics, opt_ins, own_data, preferences, sandbox
from dispatcher.web.guard import Guard
from dispatcher.web.problems import add_problems
from dispatcher.web.room import Room, in_thread, open_room
from dispatcher.web.v1 import (
    campaigns,
    consents,
    contacts,
    events,
    explanations,
    messages,
    rights,
    runs,
    segments,
    suppressions,
)
from dispatcher.web.v1.callers import Callers
from dispatcher.web.v1.description import describe

V1 = (contacts, consents, rights, events, messages, campaigns, runs, explanations, segments, suppressions)


def create_app(runtime: Runtime, *, wait: timedelta = unsubscribe.LONGEST_WAIT) -> FastAPI:
    """Return the application on an open runtime; `wait` is how long an unsubscribe may wait for its 200."""
    app = FastAPI(
        title="Dispatcher",
        version=version("dispatcher"),
        docs_url=None,  # these would load scripts from elsewhere; the description itself is at /openapi.json
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_counting,
        routes=[
            *links.ROUTES,
            *preferences.ROUTES,
            *own_data.ROUTES,
            *opt_ins.ROUTES,
            *clicks.ROUTES,
            *hooks.ROUTES,
            *health.ROUTES,
            *metrics.ROUTES,
            *sandbox.ROUTES,
        ],
    )
    for resource in V1:
        app.include_router(resource.router)
    app.add_middleware(Callers)
    app.add_middleware(Guard, is_public_https=runtime.settings.public_url.startswith("https://"))
    add_problems(app)
    describe(app)
    app.state.room = open_room(runtime, wait=wait)
    return app


@asynccontextmanager
async def _counting(app: FastAPI) -> AsyncIterator[None]:
    """Hand in what this room has counted, every few seconds and at its end."""
    task = asyncio.create_task(_hand_in_often(app.state.room))
    yield
    task.cancel()
    await _hand_in(app.state.room)


async def _hand_in_often(room: Room) -> None:
    while True:
        await asyncio.sleep(figures.HAND_IN_SECONDS)
        await _hand_in(room)


async def _hand_in(room: Room) -> None:
    with suppress(SQLAlchemyError):  # the database is away: it is kept for the next time
        await in_thread(room.pools.metrics, lambda: figures.hand_in(room.database, room.figures))
