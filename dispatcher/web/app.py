"""The application: every route on one screen."""

from __future__ import annotations

from datetime import timedelta
from importlib.metadata import version

from fastapi import FastAPI

from dispatcher import unsubscribe
from dispatcher.runtime import Runtime
from dispatcher.web import api, api_consents, api_events, health, hooks, links, opt_ins, sandbox
from dispatcher.web.guard import Guard
from dispatcher.web.problems import add_problems
from dispatcher.web.room import open_room


def create_app(runtime: Runtime, *, wait: timedelta = unsubscribe.LONGEST_WAIT) -> FastAPI:
    """Return the application on an open runtime; `wait` is how long an unsubscribe may wait for its 200."""
    app = FastAPI(
        title="Dispatcher",
        version=version("dispatcher"),
        docs_url=None,  # these would load scripts from elsewhere; the description itself is at /openapi.json
        redoc_url=None,
        redirect_slashes=False,
        routes=[*links.ROUTES, *opt_ins.ROUTES, *hooks.ROUTES, *health.ROUTES, *sandbox.ROUTES],
    )
    app.include_router(api.router)
    app.include_router(api_consents.router)
    app.include_router(api_events.router)
    app.add_middleware(Guard)
    add_problems(app)
    app.state.room = open_room(runtime, wait=wait)
    return app
