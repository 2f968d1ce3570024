"""POST /v1/events: what happened in the shop, one event or a list of them."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from dispatcher import audit
from dispatcher.api_keys import ApiKey
from dispatcher.clock import read_now
from dispatcher.errors import Refused
from dispatcher.event_json import LONGEST_KEY, LONGEST_NAME, InvalidEvent, load_json, parse_event
from dispatcher.events import Event, OtherBody, record_events
from dispatcher.triggers.arrivals import Outcome
from dispatcher.web.room import Room, in_thread, room_of
from dispatcher.web.v1.callers import permit
from dispatcher.web.v1.operations import operation

router = APIRouter(prefix="/v1", tags=["events"])

#: Each has a contact, and at most 500 contacts are held in one transaction.
MOST_EVENTS = 500


class NotTaken(BaseModel):
    index: Annotated[int, Field(description="its place in the list, from 0")]
    source_key: str | None
    reason: str


class TriggerStep(BaseModel):
    """What a new event did to the flow of a trigger."""

    source: str
    source_key: str
    trigger: str
    outcome: Outcome
    message: Annotated[UUID | None, Field(description="its id, for GET and DELETE /v1/messages/{id}")]


class Taken(BaseModel):
    new: int
    same: Annotated[int, Field(description="recorded before with the same body: nothing changes")]
    refused: list[NotTaken]
    triggers: list[TriggerStep]


def _text(most: int, description: str) -> dict[str, Any]:
    """A whole number is taken as its digits, too: shops number their orders."""
    return {"type": ["string", "integer"], "minLength": 1, "maxLength": most, "description": description}


_NUMBER = {"type": ["number", "string", "null"], "description": "below 1e15; six decimals are kept"}
_PROPERTIES = {"type": ["object", "null"], "description": "whatever else is yours, at most eight levels deep"}
_INTEREST = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}
_ITEM = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "interest": {
            "description": "what it is about: one name, or a hierarchy of them",
            "anyOf": [_INTEREST, {"type": "array", "items": _INTEREST}, {"type": "null"}],
        },
        "quantity": {"type": ["number", "string", "null"], "minimum": 0, "default": 1},
        "value": _NUMBER,
        "properties": _PROPERTIES,
    },
}
_EVENT = {
    "type": "object",
    "required": ["source_key", "contact", "name", "occurred_at"],
    "additionalProperties": False,
    "properties": {
        "source": _text(LONGEST_NAME, "who says so; `shop` unless told"),
        "source_key": _text(LONGEST_KEY, "the event's own key there: sent twice, it is one event"),
        "contact": _text(LONGEST_KEY, "the shop's own id of the contact; one that is not known yet is made"),
        "name": _text(LONGEST_NAME, "like order.placed"),
        "occurred_at": {"type": "string", "format": "date-time", "description": "when it happened, with its offset"},
        "value": _NUMBER,
        "properties": _PROPERTIES,
        "items": {"type": ["array", "null"], "items": _ITEM},
    },
}
_CART = {
    "source_key": "checkout-77-1",
    "contact": "17850",
    "name": "checkout.started",
    "occurred_at": "2026-11-25T10:00:00Z",
    "value": 15.3,
    "properties": {"cart_id": "77"},
    "items": [{"interest": "christmas", "quantity": 6, "value": 15.3}],
}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"anyOf": [_EVENT, {"type": "array", "items": _EVENT, "minItems": 1, "maxItems": MOST_EVENTS}]},
            "examples": {"a cart": {"value": _CART}, "a list": {"value": [_CART]}},
        }
    },
}


_TAKEN = {
    "new": 1, "same": 0, "refused": [],
    "triggers": [
        {"source": "shop", "source_key": "checkout-77-1", "trigger": "abandoned-cart", "outcome": "started",
         "message": "01998f6e-7a3c-7d10-9a50-2f6d1c0b7a11"}
    ],
}  # fmt: skip
_OPERATION = operation(
    "recordEvents", "events:write", answers=Taken, body=True, status=202, example=_TAKEN,
    links={"readMessage": {"message_id": "$response.body#/triggers/0/message"}},
    also={409: "a single event whose key is recorded with another body"},
)  # fmt: skip
_OPERATION["openapi_extra"] |= {"requestBody": _BODY}


@router.post("/events", summary="Say what happened in the shop", **_OPERATION)
async def record(request: Request, key: Annotated[ApiKey, Depends(permit("events:write"))]) -> Taken:
    """One event, or a list of up to 500.  The same event again changes nothing; its key with another body is refused.

    A list is taken as far as it goes: what is refused is named with its reason, and the others are recorded.
    """
    room, body = room_of(request), await request.body()
    return await in_thread(room.pools.api, lambda: _record(room, body, key.actor))


def _record(room: Room, body: bytes, by: str) -> Taken:
    sent = load_json(body)
    single = not isinstance(sent, list)
    raws: list[object] = [sent] if single else sent  # type: ignore[assignment]
    if not 0 < len(raws) <= MOST_EVENTS:
        raise Refused(f"send 1 to {MOST_EVENTS} events at once, not {len(raws)}")
    with room.database.begin() as connection:
        events, refused = _parsed(raws, now=read_now(connection), single=single)
        recorded = record_events(connection, room.key_ring, list(events.values()))
        if recorded.new:
            audit.record(connection, by, "events.recorded", "events", {"new": recorded.new})
    places = {id(event): index for index, event in events.items()}
    for refusal in recorded.refused:
        if single:
            raise OtherBody(refusal.reason) if refusal.other_body else Refused(refusal.reason)
        refused.append(
            NotTaken(index=places[id(refusal.event)], source_key=refusal.event.source_key, reason=refusal.reason)
        )
    if len(refused) == len(raws):
        raise Refused(f"none of these events can be recorded; the first: {refused[0].reason}")
    steps = [
        TriggerStep(
            source=step.event[0], source_key=step.event[1], trigger=step.trigger, outcome=step.outcome,
            message=step.message_id,
        )
        for step in recorded.steps
    ]  # fmt: skip
    refused.sort(key=lambda one: one.index)
    return Taken(new=recorded.new, same=recorded.same, refused=refused, triggers=steps)


def _parsed(raws: list[object], *, now: Any, single: bool) -> tuple[dict[int, Event], list[NotTaken]]:
    """Return the events by their place, and what is none."""
    events: dict[int, Event] = {}
    refused: list[NotTaken] = []
    for index, raw in enumerate(raws):
        try:
            events[index] = parse_event(raw, now=now)
        except InvalidEvent as error:
            if single:
                raise
            key = raw.get("source_key") if isinstance(raw, dict) else None
            shown = key[:LONGEST_KEY] if isinstance(key, str) else None
            refused.append(NotTaken(index=index, source_key=shown, reason=str(error)))
    return events, refused
