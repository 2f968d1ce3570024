"""/v1/campaigns: see them, write and retire one, and what one would do."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Body, Depends, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from sqlalchemy import Connection

from dispatcher import campaigns, lists, simulate
from dispatcher.api_keys import ApiKey
from dispatcher.campaigns import Check, Written
from dispatcher.definitions import NAME, Campaign, Channel
from dispatcher.errors import InvalidFields
from dispatcher.web.room import room_of
from dispatcher.web.v1.callers import permit
from dispatcher.web.v1.etags import IfMatch, IfNoneMatch, etag, require_version, wanted_version
from dispatcher.web.v1.operations import (
    Asked,
    AsOf,
    AsText,
    CampaignName,
    Instant,
    JsonObject,
    operation,
    read,
    shown,
    with_offset,
    write,
)
from dispatcher.web.v1.pages import Cursor, Limit, Listed, list_page

router = APIRouter(prefix="/v1", tags=["campaigns"])

_NAME = {"type": "string", "pattern": NAME}
_LENGTH = {"type": "string", "pattern": r"^[0-9]{1,5}\s*[smhdw]$", "examples": ["12h"]}
_SCHEDULE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["zone"],
    "description": "when it fires: `cron` or `at`, in a named zone; left out: only by hand",
    "properties": {
        "cron": {"type": ["string", "null"], "description": "five fields, like `0 10 * * mon`"},
        "at": {"type": ["string", "null"], "description": "once, at a wall time in `zone`, like 2026-12-01T10:00"},
        "zone": {"type": "string", "description": "an IANA name", "examples": ["Europe/London"]},
        "local": {"type": "boolean", "default": False, "description": "at that wall time where each contact is"},
        "late": {"enum": ["now", "next_day", "skip", None], "description": "with `local`: for whom it is past"},
        "max_lateness": {**_LENGTH, "default": "1h"},
    },
}
_UTM_WORD = {"type": ["string", "null"], "minLength": 1}
_UTM = {
    "type": "object",
    "additionalProperties": False,
    "required": ["source"],
    "properties": {"source": {"type": "string", "minLength": 1}, "medium": _UTM_WORD, "campaign": _UTM_WORD},
}
_DEFINITION: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["channel", "segment", "template"],
    "description": "a campaign, as `campaigns/NAME.yaml` has it",
    "properties": {
        "name": {**_NAME, "description": "as in the path; may be left out"},
        "channel": {"enum": ["email", "sms"]},
        "topic": {"anyOf": [_NAME, {"type": "null"}], "description": "default: the template's"},
        "segment": _NAME,
        "template": {**_NAME, "description": "of class marketing"},
        "schedule": {"anyOf": [_SCHEDULE, {"type": "null"}]},
        "priority": {"type": "integer", "minimum": 0, "maximum": 100, "default": 50},
        "expires_after": {**_LENGTH, "default": "24h", "description": "at most 7d"},
        "on_cap": {"enum": ["skip", "defer"], "default": "skip"},
        "holdout": {
            "anyOf": [{"type": "string", "pattern": r"^[0-9]{1,2}(\.[0-9]{1,6})?\s*%$"}, {"const": 0}],
            "description": "the share that is left out to compare with, like `5%`",
        },
        "recheck_segment": {"type": "boolean", "default": False},
        "track_clicks": {
            "type": "boolean",
            "default": False,
            "description": "its links are held to the list",
        },
        "utm": {"anyOf": [_UTM, {"type": "null"}], "description": "what is added to the query of links"},
    },
}
_CHRISTMAS: dict[str, Any] = {
    "channel": "email", "topic": "offers", "segment": "christmas-fans", "template": "christmas",
    "schedule": {"cron": "0 10 * * mon", "zone": "Europe/London", "local": True, "late": "skip", "max_lateness": "2h"},
    "priority": 60, "expires_after": "12h", "on_cap": "skip", "holdout": "5%",
}  # fmt: skip
_TOLD = {
    "definition": {"name": "christmas", **_CHRISTMAS, "recheck_segment": False}, "version": 3, "origin": "api",
    "next_fire_at": "2026-11-30T10:00:00.000000Z", "action": None,
}  # fmt: skip

Definition = Annotated[
    dict[str, Any], WithJsonSchema(_DEFINITION), Body(openapi_examples={"christmas": {"value": _CHRISTMAS}})
]


class CampaignLine(BaseModel):
    """A campaign, as lists show it."""

    campaign: str
    channel: Channel
    segment: str
    template: str
    version: int
    origin: Annotated[Literal["workspace", "api"], Field(description="who wrote it last")]
    next_fire_at: Instant | None


class CampaignTold(BaseModel):
    """A campaign as it is in force; `definition` is what PUT takes."""

    definition: JsonObject
    version: Annotated[int, Field(description="its `ETag`, too; rises with every change")]
    origin: Annotated[Literal["workspace", "api"], Field(description="who wrote it last: `apply` retires only its own")]
    next_fire_at: Instant | None
    action: Annotated[Literal["added", "changed", "unchanged"] | None, Field(description="of a PUT: what it did")] = (
        None
    )


class Simulation(BaseModel):
    """What a run would do; `audience` = `send` + `defer` + `skip`."""

    model_config = ConfigDict(extra="allow")

    campaign: str
    as_of: Instant
    audience: int
    send: int
    defer: Annotated[dict[str, int], Field(description="by reason")]
    skip: Annotated[dict[str, int], Field(description="by reason")]
    warnings: list[str]


class SimulationWish(Asked):
    as_of: Annotated[
        AwareDatetime | None, AsText, Field(description="judge as of this instant, RFC 3339 with its offset; else now")
    ] = None
    by_hand: Annotated[bool, Field(strict=True, description="as a start by hand would do it")] = False


@router.get(
    "/campaigns",
    summary="The campaigns",
    dependencies=[Depends(permit("campaigns:read"))],
    **operation(
        "listCampaigns", "campaigns:read", answers=Listed[CampaignLine],
        links={
            name: {"name": "$response.body#/items/0/campaign"}
            for name in ("readCampaign", "simulateCampaign", "startRun")
        },
        example={
            "items": [
                {"campaign": "christmas", "channel": "email", "segment": "christmas-fans", "template": "christmas",
                 "version": 3, "origin": "workspace", "next_fire_at": "2026-11-30T10:00:00.000000Z"}
            ],
            "next": None,
        },
    ),
)  # fmt: skip
async def list_campaigns(
    request: Request, response: Response, limit: Limit = 100, cursor: Cursor = None
) -> dict[str, Any]:
    """Those in force, by name."""
    find = partial(lists.campaigns, limit=limit)
    return await list_page(request, response, "/v1/campaigns", find, limit=limit, cursor=cursor)


@router.get(
    "/campaigns/{name}",
    summary="A campaign",
    dependencies=[Depends(permit("campaigns:read"))],
    **operation("readCampaign", "campaigns:read", answers=CampaignTold, example=_TOLD, also={404: None}),
)
async def read_campaign(request: Request, response: Response, name: CampaignName) -> dict[str, Any]:
    """`ETag` is its version: send it back as `If-Match` with the change."""
    written = await read(request, partial(campaigns.read, name=name))
    return _told(response, written)


@router.put(
    "/campaigns/{name}",
    summary="Write a campaign",
    **operation(
        "putCampaign", "campaigns:write", answers=CampaignTold, body=True, example=_TOLD | {"action": "changed"},
        also={201: "made", 409: "there is a trigger of this name", 412: None},
        links={name: {"name": "$request.path.name"} for name in ("readCampaign", "simulateCampaign", "startRun")},
    ),
)  # fmt: skip
async def put_campaign(
    request: Request,
    response: Response,
    name: CampaignName,
    definition: Definition,
    key: Annotated[ApiKey, Depends(permit("campaigns:write"))],
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> dict[str, Any]:
    """Under the rules of `dispatcher apply`, and refused for the same reasons.  Runs under way are not changed.

    A campaign that was written here stays when a workspace without it is applied; one with it takes its place.
    """
    campaign = _parsed(name, definition)
    check = _check(if_match, if_none_match)
    written = await write(request, partial(campaigns.put, campaign=campaign, by=key.actor, check=check))
    response.status_code = 201 if written.action == "added" else 200
    return _told(response, written)


@router.delete(
    "/campaigns/{name}",
    summary="Retire a campaign",
    response_class=Response,
    **operation("retireCampaign", "campaigns:write", status=204, also={404: None, 412: None}),
)
async def retire_campaign(
    request: Request,
    name: CampaignName,
    key: Annotated[ApiKey, Depends(permit("campaigns:write"))],
    if_match: IfMatch = None,
) -> None:
    """It starts nothing any more.  Its runs stay, and go on; a workspace that still has it brings it back."""
    await write(request, partial(campaigns.retire, name=name, by=key.actor, check=_check(if_match, None)))


@router.post(
    "/campaigns/{name}/simulate",
    summary="What a campaign would do",
    dependencies=[Depends(permit("campaigns:read"))],
    **operation(
        "simulateCampaign", "campaigns:read", answers=Simulation, body=True, also={404: None},
        example={
            "campaign": "christmas", "as_of": "2026-11-25T10:00:00.000000Z", "audience": 412, "send": 380,
            "defer": {"QUIET_HOURS": 12}, "skip": {"NO_CONSENT": 20}, "warnings": [],
        },
    ),
)  # fmt: skip
async def simulate_campaign(
    request: Request,
    name: CampaignName,
    as_of: AsOf = None,
    by_hand: Annotated[
        bool | None, Query(description="as a start by hand would do it, also where the schedule is local")
    ] = None,
    wanted: SimulationWish | None = None,
) -> dict[str, Any]:
    """Everybody in the audience is asked every gate, and nothing is written: `audience` = `send` + `defer` + `skip`.

    What is wished for is in the query or in the body, not in both.  `timeline` counts who would leave in each hour, by
    zone; `lane` says whether its rate carries them in time.  It takes seconds for a large audience, and one is done at
    a time.
    """
    if wanted is not None and (as_of is not None or by_hand is not None):
        raise InvalidFields([("body", "say it in the query or in the body, not in both")])
    at = with_offset(as_of if wanted is None else wanted.as_of)
    hand = bool(by_hand) if wanted is None else wanted.by_hand

    def work(connection: Connection) -> dict[str, Any]:
        return simulate.simulate(connection, name, as_of=at, by_hand=hand).as_json()

    return await read(request, work, room_of(request).pools.simulations)


def _told(response: Response, written: Written) -> dict[str, Any]:
    response.headers["ETag"] = etag(written.version)
    return {
        "definition": written.campaign.model_dump(mode="json"),
        "version": written.version,
        "origin": written.origin,
        "next_fire_at": shown(written.next_fire_at),
        "action": written.action,
    }


def _check(if_match: str | None, if_none_match: str | None) -> Check:
    expected = wanted_version(if_match, if_none_match)
    return lambda present: require_version(expected, None if present is None else str(present))


def _parsed(name: str, definition: dict[str, Any]) -> Campaign:
    """Return the campaign; InvalidFields names each wrong field, in the words of `apply`."""
    if definition.get("name", name) != name:
        raise InvalidFields([("body.name", f"is not {name}, which the path says")])
    try:
        return Campaign.model_validate_json(orjson.dumps({**definition, "name": name}), strict=True)
    except orjson.JSONEncodeError as error:
        raise InvalidFields([("body", "holds what cannot be kept as JSON")]) from error
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise InvalidFields([(".".join(("body", *map(str, one["loc"]))), one["msg"]) for one in found]) from error
