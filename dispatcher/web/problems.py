"""Every error of the API as problem+json (RFC 9457): what is wrong, never how we are built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from dispatcher.api_keys import NotAuthenticated, NotPermitted
from dispatcher.errors import Changed, Conflict, DispatcherError, InvalidFields, NotFound
from dispatcher.events import OtherBody
from dispatcher.messages import KeyReused, NotPending
from dispatcher.rate_limit import TooMany
from dispatcher.tokens import BadToken

#: Any other DispatcherError is a request that was understood and refused: 422.
_STATUS: dict[type[DispatcherError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    BadToken: HTTPStatus.NOT_FOUND,
    KeyReused: HTTPStatus.CONFLICT,
    OtherBody: HTTPStatus.CONFLICT,
    Conflict: HTTPStatus.CONFLICT,
    Changed: HTTPStatus.PRECONDITION_FAILED,
    TooMany: HTTPStatus.TOO_MANY_REQUESTS,
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


def answer_for(error: Exception) -> Response | None:
    """Return the answer for an error we foresee; None for any other, which is `guard`'s."""
    for kind, answer in _ANSWERS.items():
        if isinstance(error, kind):
            return answer(error)
    return None


def add_problems(app: FastAPI) -> None:
    """Let `app` answer every foreseen error with a problem."""

    def handle(request: Request, error: Exception) -> Response:
        answer = answer_for(error)
        assert answer is not None  # it is registered for these kinds
        if answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            answer.headers["Allow"] = ", ".join(_allowed(request))
        return answer

    for kind in _ANSWERS:
        app.add_exception_handler(kind, handle)


def _http(error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    usual = HTTPStatus(error.status_code).phrase
    return problem(error.status_code, None if error.detail == usual else error.detail, headers=error.headers)


def _allowed(request: Request) -> list[str]:
    """Return the methods of a path: each route knows its own only, and a resource has several."""

    def is_there(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)

    there = [method for method in ("GET", "HEAD", "POST", "PUT", "DELETE") if is_there(method)]
    return ["GET", "HEAD", *there[1:]] if there[:1] == ["GET"] and "HEAD" not in there else there


def _invalid(error: Exception) -> Response:
    """Name each wrong field and why; what was sent is not repeated, since it may be personal."""
    assert isinstance(error, RequestValidationError)
    return invalid_fields([(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()])


def invalid_fields(fields: Sequence[tuple[str, str]]) -> Response:
    """Return the answer for fields that cannot be taken, each as `body.email` or `query.limit` with its reason."""
    errors = [{"field": name, "message": reason.removeprefix("Value error, ")} for name, reason in fields]
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{errors[0]['field']}: {errors[0]['message']}", errors=errors)


def _foreseen(error: Exception) -> Response:
    assert isinstance(error, DispatcherError)
    if isinstance(error, InvalidFields):
        return invalid_fields(error.fields)
    status = next((s for kind, s in _STATUS.items() if isinstance(error, kind)), HTTPStatus.UNPROCESSABLE_ENTITY)
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
    if isinstance(error, TooMany):
        headers = error.allowance.headers
    return problem(status, str(error), headers=headers)


def _database_away(_: Exception) -> Response:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, "try again in a moment", headers={"Retry-After": "5"})


_ANSWERS: dict[type[Exception], Callable[[Exception], Response]] = {
    HTTPException: _http,
    RequestValidationError: _invalid,
    DispatcherError: _foreseen,
    OperationalError: _database_away,
    InterfaceError: _database_away,
    PoolTimeoutError: _database_away,
}
