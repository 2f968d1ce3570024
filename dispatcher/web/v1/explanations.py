"""GET /v1/explain: why a contact gets a campaign, or not."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict

from dispatcher import explain
from dispatcher.definitions import NAME
from dispatcher.web.room import room_of
from dispatcher.web.v1.callers import permit
from dispatcher.web.v1.operations import AsOf, JsonObject, Printable, operation, read, with_offset

router = APIRouter(prefix="/v1", tags=["explain"])


class Explanation(BaseModel):
    """Every gate with its verdict and its facts, and what they amount to."""

    model_config = ConfigDict(extra="allow")

    sentence: str
    verdict: str
    reason: str | None
    until: str | None
    gates: list[JsonObject]


_EXAMPLE = {
    "contact": "17850", "campaign": "christmas",
    "sentence": "17850 would not get christmas now: consent for offers was withdrawn on 2026-11-20.",
    "verdict": "skip", "reason": "NO_CONSENT", "until": None,
    "gates": [{"gate": "NO_CONSENT", "verdict": "skip", "facts": {"topic": "offers", "state": "withdrawn"}}],
}  # fmt: skip


@router.get(
    "/explain",
    summary="Why a contact gets a campaign, or not",
    dependencies=[Depends(permit("explain:read"))],
    **operation(
        "explain",
        "explain:read",
        answers=Explanation,
        example=_EXAMPLE,
        also={404: "there is no such contact, campaign or run"},
    ),
)
async def read_explanation(
    request: Request,
    contact: Annotated[
        Printable,
        Query(min_length=1, max_length=320, description="external id, else e-mail address", examples=["17850"]),
    ],
    campaign: Annotated[str, Query(pattern=NAME, examples=["christmas"])],
    as_of: AsOf = None,
    run: Annotated[UUID | None, Query(description="what was decided in this run, with `today` beside it")] = None,
) -> dict[str, Any]:
    """`verdict`, `reason`, `until` and `gates` are of now, or of `as_of`; with `run` they are those of then.

    `sentence` says it in plain words; `eligible` when nothing would object any more; `ledger` what became of the
    contact in the campaign's last run.  Asked by external id: an address in a URL stays in other people's logs.
    """
    at, key_ring = with_offset(as_of), room_of(request).key_ring
    return await read(request, lambda c: explain.explain(c, key_ring, contact, campaign, as_of=at, run=run))
