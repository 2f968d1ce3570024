"""Every error of the API as problem+json (RFC 9457): what is wrong, never how we are built."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from dispatcher.api_keys import NotAuthenticated, NotPermitted
from dispatcher.errors import DispatcherError, NotFound
from dispatcher.events import OtherBody
from dispatcher.messages import KeyReused, NotPending
from dispatcher.tokens import BadToken

#: Any other DispatcherError is a request that was understood and refused: 422.
_STATUS: dict[type[DispatcherError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    BadToken: HTTPStatus.NOT_FOUND,
    KeyReused: HTTPStatus.CONFLICT,
    OtherBody: HTTPStatus.CONFLICT,
    NotPending: HTTPStatus.CONFLICT,
    NotAuthenticated: HTTPStatus.UNAUTHORIZED,
    NotPermitted: HTTPStatus.FORBIDDEN,
}


def problem(
    status: int, detail: str | None = None, *, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Return the answer for an error; `more` are members beside the usual ones."""
    body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": int(status)}
    if detail:
        body["detail"] = detail
    return JSONResponse(body | more, int(status), dict(headers or {}), media_type="application/problem+json")


def add_problems(app: FastAPI) -> None:
    """Let `app` answer every foreseen error with a problem; the unforeseen is `guard`'s."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(DispatcherError, _foreseen)
    for error in (OperationalError, InterfaceError, PoolTimeoutError):
        app.add_exception_handler(error, _database_away)


def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # what it was registered for
    usual = HTTPStatus(error.status_code).phrase
    return problem(error.status_code, None if error.detail == usual else error.detail, headers=error.headers)


def _invalid(_: Request, error: Exception) -> Response:
    """Name each wrong field and why; what was sent is not repeated, since it may be personal."""
    assert isinstance(error, RequestValidationError)
    errors = [{"field": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{errors[0]['field']}: {errors[0]['message']}", errors=errors)


def _foreseen(_: Request, error: Exception) -> Response:
    status = next((s for kind, s in _STATUS.items() if isinstance(error, kind)), HTTPStatus.UNPROCESSABLE_ENTITY)
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
    return problem(status, str(error), headers=headers)


def _database_away(_: Request, __: Exception) -> Response:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, "try again in a moment", headers={"Retry-After": "5"})
