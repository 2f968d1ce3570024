"""/openapi.json: what /v1 takes and answers, for people and for tools."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from dispatcher.api_keys import SCOPES
from dispatcher.web.v1.operations import Problem

_ABOUT = """\
What a shop's programs ask of Dispatcher.  Instants are RFC 3339 in UTC.  Every error is `application/problem+json`;
every answer has an `X-Request-Id` (yours, if you send one), and `RateLimit` says what the key has left of its minute.
Who sends no good key is told nothing (401); a key that lacks the scope is told so (403) before it is looked whether
the thing exists.  A field that is not known is refused (422): it is more often a slip than a wish.

Scopes of keys:

"""
TAGS = {
    "contacts": "People we know of, and what they allowed",
    "rights": "What people may ask of us",
    "events": "What happened in the shop",
    "messages": "Single messages, and those of runs",
    "campaigns": "What is sent to whom, and when",
    "runs": "One execution of a campaign",
    "explain": "Why a contact gets a campaign, or not",
    "segments": "Who is meant",
    "suppressions": "Addresses that are never sent to",
}
_KEY = {
    "type": "http", "scheme": "bearer", "description": "An API key, made by `dispatcher key create`: `dsp_...`",
}  # fmt: skip
_NOT_OURS = ("HTTPValidationError", "ValidationError")
_HEADERS = {
    "X-Request-Id": {"description": "names this request in the log", "schema": {"type": "string"}},
    "RateLimit": {"description": '`"key";r=LEFT;t=SECONDS until all are back`', "schema": {"type": "string"}},
}


def describe(app: FastAPI) -> None:
    """Let `app` describe itself so that nothing has to be guessed."""

    def description() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = _describe(app)
        return app.openapi_schema

    app.openapi = description  # type: ignore[method-assign]  # as FastAPI's own documentation has it


def _describe(app: FastAPI) -> dict[str, Any]:
    scopes = "\n".join(f"* `{name}`: {what}" for name, what in SCOPES.items())
    found = get_openapi(
        title=app.title, version=app.version, description=_ABOUT + scopes, routes=app.routes,
        tags=[{"name": name, "description": what} for name, what in TAGS.items()],
    )  # fmt: skip
    found["components"]["securitySchemes"] = {"key": _KEY}
    schemas = found["components"]["schemas"]
    schemas["Problem"] = Problem.model_json_schema()
    for name in _NOT_OURS:
        schemas.pop(name, None)
    for path in found["paths"].values():
        for operation in path.values():
            scope = operation["x-scope"]
            operation["description"] = f"{operation.get('description', '')}\n\nScope: `{scope}`.".strip()
            for status, answer in operation["responses"].items():
                if status.startswith("2"):
                    answer.setdefault("headers", {}).update(_HEADERS)
    return found
