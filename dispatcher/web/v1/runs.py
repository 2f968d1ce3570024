"""/v1/runs: start one, follow it, pause, resume and cancel it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal, Protocol
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from dispatcher import lists, reports, run_requests, runs
from dispatcher.api_keys import ApiKey
from dispatcher.db import reading
from dispatcher.definitions import NAME, Channel
from dispatcher.messages import LONGEST_KEY
from dispatcher.simulate import refuse_unfinished
from dispatcher.web.room import in_thread, room_of
from dispatcher.web.v1.callers import permit
from dispatcher.web.v1.operations import Asked, CampaignName, Instant, JsonObject, Printable, operation, read, write
from dispatcher.web.v1.pages import Cursor, Limit, Listed, list_page

router = APIRouter(prefix="/v1", tags=["runs"])

State = Literal["planning", "running", "paused", "cancelled", "finished", "missed"]


class RunLine(BaseModel):
    """A run, as lists show it."""

    run: UUID
    campaign: str
    kind: Literal["campaign", "standing"]
    channel: Channel
    occurrence: str
    state: State
    audience: int
    started_by: str | None
    created_at: Instant
    finished_at: Instant | None


class Run(RunLine):
    """The figures of a run, as `run show --json` prints them; `status` and `not_yet_planned` add up to `audience`."""

    model_config = ConfigDict(extra="allow")

    status: Annotated[dict[str, int], Field(description="how many messages stand how")]
    reasons: Annotated[dict[str, int], Field(description="why they wait, or did not go")]
    not_yet_planned: int
    feedback: Annotated[dict[str, int], Field(description="how many were reported as what")]
    breakdown: list[JsonObject]


class NewRun(Asked):
    again: Annotated[bool, Field(strict=True, description="also if the campaign ran within a day")] = False
    even_unfinished: Annotated[
        bool, Field(strict=True, description="also if the lane's rate cannot carry all of it before it expires")
    ] = False


class Started(BaseModel):
    run: UUID


_ID = "01998f6e-5b1f-7c33-8d2a-90a4be3a1c77"
_LINE = {
    "run": _ID, "campaign": "christmas", "kind": "campaign", "channel": "email",
    "occurrence": "2026-11-30T10:00 Europe/London", "state": "running", "audience": 412, "started_by": "key:shop",
    "created_at": "2026-11-30T10:00:00.400000Z", "finished_at": None,
}  # fmt: skip
_FIGURES = _LINE | {
    "status": {"sent": 380, "skipped": 32}, "reasons": {"NO_CONSENT": 32}, "not_yet_planned": 0, "feedback": {},
    "breakdown": [{"status": "skipped", "reason": "NO_CONSENT", "count": 32}],
}  # fmt: skip
_WRONG_STATE: dict[int, str | None] = {404: None, 409: "a run in that state cannot become so"}


@router.post(
    "/campaigns/{name}/runs",
    summary="Start a campaign now",
    **operation(
        "startRun", "runs:write", answers=Started, body=True, status=202, example={"run": _ID},
        also={404: None, 409: "it ran within a day (see `again`), or the `Idempotency-Key` came with another request"},
        links={
            name: {"run_id": "$response.body#/run"} for name in ("readRun", "pauseRun", "resumeRun", "cancelRun")
        } | {"listMessages": {"run": "$response.body#/run"}},
    ),
)  # fmt: skip
async def start_run(
    request: Request,
    response: Response,
    name: CampaignName,
    key: Annotated[ApiKey, Depends(permit("runs:write"))],
    idempotency_key: Annotated[
        Printable | None, Header(min_length=1, max_length=LONGEST_KEY, examples=["christmas-2026-by-hand"])
    ] = None,
    wanted: NewRun | None = None,
) -> Started:
    """The same `Idempotency-Key` with the same request is the same run, for as long as the run is kept.

    Without one a second start within a day is refused all the same, unless `again` says that it is meant.
    Everything that must not change under way is frozen: definition, segment, template, audience.
    """
    room, asked = room_of(request), wanted or NewRun()
    wish = run_requests.RunRequest(key.name, idempotency_key, name, asked.again, asked.even_unfinished)

    def look() -> UUID | None:
        with reading(room.database) as connection:
            known = run_requests.known_run(connection, wish)
            if known is None and not wish.even_unfinished:
                refuse_unfinished(connection, name)
            return known

    run_id = await in_thread(room.pools.simulations, look)
    if run_id is None:
        run_id = await write(request, partial(run_requests.start, request=wish, by=key.actor))
    response.headers["Location"] = f"/v1/runs/{run_id}"
    return Started(run=run_id)


@router.get(
    "/runs",
    summary="The runs of campaigns",
    dependencies=[Depends(permit("runs:read"))],
    **operation(
        "listRuns",
        "runs:read",
        answers=Listed[RunLine],
        example={"items": [_LINE], "next": None},
        links={"readRun": {"run_id": "$response.body#/items/0/run"}},
    ),
)
async def list_runs(
    request: Request,
    response: Response,
    campaign: Annotated[str | None, Query(pattern=NAME, description="only of this campaign")] = None,
    state: Annotated[State | None, Query(description="only in this state")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """The newest first.  Runs that carry single messages are not among them; their ids are with the messages."""
    return await list_page(
        request, response, "/v1/runs",
        lambda connection, after: lists.runs(connection, after, limit, campaign=campaign, state=state),
        limit=limit, cursor=cursor, filters={"campaign": campaign, "state": state},
    )  # fmt: skip


@router.get(
    "/runs/{run_id}",
    summary="The figures of a run",
    dependencies=[Depends(permit("runs:read"))],
    **operation("readRun", "runs:read", answers=Run, example=_FIGURES, also={404: None}),
)
async def read_run(request: Request, run_id: UUID) -> dict[str, Any]:
    """Counted from the ledger at this moment."""
    return await read(request, lambda connection: reports.run_report(connection, run_id))


class _Move(Protocol):
    def __call__(self, connection: Connection, run_id: UUID, *, by: str) -> None: ...


def _move(run_id: UUID, move: _Move, already: set[str], by: str) -> Callable[[Connection], dict[str, Any]]:
    """Return the work of moving a run, unless it is there already: a request that is sent twice is not an error."""

    def work(connection: Connection) -> dict[str, Any]:
        if runs.load_run(connection, run_id).state not in already:
            move(connection, run_id, by=by)
        return reports.run_report(connection, run_id)

    return work


@router.post(
    "/runs/{run_id}/pause",
    summary="Let nothing more of a run leave, for now",
    **operation("pauseRun", "runs:write", answers=Run, example=_FIGURES | {"state": "paused"}, also=_WRONG_STATE),
)
async def pause_run(
    request: Request, run_id: UUID, key: Annotated[ApiKey, Depends(permit("runs:write"))]
) -> dict[str, Any]:
    """What waits goes on ageing until it expires.  Pausing twice changes nothing."""
    return await write(request, _move(run_id, runs.pause, {"paused"}, key.actor))


@router.post(
    "/runs/{run_id}/resume",
    summary="Let a paused run go on",
    **operation("resumeRun", "runs:write", answers=Run, example=_FIGURES, also=_WRONG_STATE),
)
async def resume_run(
    request: Request, run_id: UUID, key: Annotated[ApiKey, Depends(permit("runs:write"))]
) -> dict[str, Any]:
    """It goes on where it was left.  Resuming one that goes on already changes nothing."""
    return await write(request, _move(run_id, runs.resume, {"planning", "running"}, key.actor))


@router.post(
    "/runs/{run_id}/cancel",
    summary="Never send what has not left yet",
    **operation(
        "cancelRun", "runs:write", answers=Run, example=_FIGURES | {"state": "cancelled"},
        also=_WRONG_STATE | {HTTPStatus.CONFLICT: "it is over, or carries messages that are asked for one by one"},
    ),
)  # fmt: skip
async def cancel_run(
    request: Request, run_id: UUID, key: Annotated[ApiKey, Depends(permit("runs:write"))]
) -> dict[str, Any]:
    """It cannot be undone.  Cancelling twice changes nothing."""
    return await write(request, _move(run_id, runs.cancel, {"cancelled"}, key.actor))
