"""Consent, as the shop's programs tell us of it: POST /v1/contacts/{external_id}/consents."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyAddress,
    field_validator,
    model_validator,
)
from sqlalchemy import Connection
from starlette.exceptions import HTTPException

from dispatcher import audit, consent, granting, opt_in, unsubscribe
from dispatcher.api_keys import ApiKey
from dispatcher.consent import CONSENT, Basis
from dispatcher.contacts import Holding, hold_contact
from dispatcher.definitions import NAME, Channel, Shop
from dispatcher.errors import Refused
from dispatcher.instants import show_instant
from dispatcher.shop import load_shop
from dispatcher.tokens import WayOut
from dispatcher.web.links import wait
from dispatcher.web.room import Room, in_thread, room_of
from dispatcher.web.v1.callers import permit
from dispatcher.web.v1.operations import Asked, AsText, Printable, operation

router = APIRouter(prefix="/v1", tags=["contacts"])


class Wording(Asked):
    """What the person read when they said it."""

    id: Annotated[Printable, Field(min_length=1, max_length=100, description="the shop's own name for it")]
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] | None = None
    text: Annotated[str, Field(max_length=5_000, description="kept, with its SHA-256")] | None = None
    hash: (
        Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, if the text is kept elsewhere")] | None
    ) = None

    @field_validator("text")
    @classmethod
    def _storable(cls, value: str | None) -> str | None:
        if value is not None and "\0" in value:
            raise ValueError("has a NUL character")
        return value

    def kept(self) -> dict[str, str]:
        given = {"id": self.id, "language": self.language, "text": self.text, "hash": self.hash}
        if self.text is not None:
            given["hash"] = hashlib.sha256(self.text.encode()).hexdigest()
        return {name: value for name, value in given.items() if value is not None}


_ASKED: dict[str, Any] = {
    "channel": "email", "topic": "offers", "action": "grant", "by": "person", "source": "checkout",
    "occurred_at": "2026-11-25T10:00:00Z", "wording": {"id": "form-7", "language": "en", "text": "Yes, write me."},
}  # fmt: skip
_HELD = {
    "channel": "email", "topic": "offers", "state": "granted", "confirmed": False, "basis": "consent",
    "effective_at": "2026-11-25T10:00:00.000000Z", "expires_at": None, "confirmation": None, "on_the_wire": None,
}  # fmt: skip


def _text(value: Any) -> Any:
    """Let no number pass for an address: 1 would be 0.0.0.1."""
    if value is not None and not isinstance(value, str):
        raise ValueError("is not a text")
    return value


class NewConsent(Asked):
    model_config = ConfigDict(json_schema_extra={"examples": [_ASKED]})

    channel: Channel
    topic: Annotated[str, Field(pattern=NAME)]
    action: Annotated[
        Literal["request", "grant", "withdraw"],
        Field(description="request: a message asks them to confirm; grant: they allowed it; withdraw: they end it"),
    ]
    source: Annotated[Printable, Field(min_length=1, max_length=200, description="how you know: form, page, till ...")]
    by: Annotated[
        Literal["person", "shop"],
        Field(description="who said so: the person, as it happens (needs wording), or the shop from its own records"),
    ] = "shop"
    basis: Annotated[Basis, Field(description="of a grant; other than consent only where the topic accepts it")] = (
        CONSENT
    )
    occurred_at: Annotated[AwareDatetime | None, AsText, Field(description="default: now; of a purchase: required")] = (
        None
    )
    wording: Wording | None = None
    ip: Annotated[IPvAnyAddress | None, BeforeValidator(_text), Field(description="kept encrypted")] = None
    user_agent: Annotated[Printable | None, Field(max_length=300, description="kept encrypted")] = None

    @field_validator("occurred_at")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        try:
            return None if value is None else value.astimezone(UTC)
        except OverflowError as error:
            raise ValueError("is before the year 1 or after 9999, in UTC") from error

    @model_validator(mode="after")
    def _makes_sense(self) -> NewConsent:
        if self.action == "grant" and self.by == "person" and (self.wording is None or self.basis != CONSENT):
            raise ValueError("a grant by the person is consent, and needs the wording they agreed to")
        if self.action != "grant" and self.basis != CONSENT:
            raise ValueError("only a grant has a basis")
        if self.action == "withdraw" and self.occurred_at is not None:
            raise ValueError("a withdrawal takes effect now; leave occurred_at out")
        return self

    def sealed(self) -> dict[str, str] | None:
        given = {"ip": str(self.ip) if self.ip else None, "user_agent": self.user_agent}
        return {name: value for name, value in given.items() if value} or None


class Confirmation(BaseModel):
    """The message that asks them to confirm."""

    message: UUID | None = Field(description="null: none is sent")
    because: Annotated[str | None, Field(description="why none is sent")] = None
    again_at: Annotated[str | None, Field(description="when the next one may be asked for")] = None


class ConsentState(BaseModel):
    """What holds now."""

    channel: Channel
    topic: str
    state: Literal["none", "pending", "granted", "withdrawn"]
    confirmed: bool = False
    basis: Basis | None = None
    effective_at: str | None = None
    expires_at: str | None = None
    confirmation: Confirmation | None = None
    on_the_wire: Annotated[
        bool | None, Field(description="of a withdrawal: a message may have been leaving just then (202)")
    ] = None


@router.post(
    "/contacts/{external_id}/consents",
    summary="Ask for, grant or withdraw consent",
    **operation(
        "changeConsent", "consents:write", answers=ConsentState, body=True, example=_HELD,
        also={
            202: "asked; or withdrawn while a message was leaving",
            404: "no such contact",
            409: "they have withdrawn it: only their own later act grants it again",
        },
    ),
)  # fmt: skip
async def change_consent(
    request: Request,
    response: Response,
    external_id: Annotated[Printable, Path(min_length=1, max_length=320, description="the shop's own id, else e-mail")],
    wanted: NewConsent,
    key: Annotated[ApiKey, Depends(permit("consents:write"))],
) -> ConsentState:
    """After a withdrawal a grant needs `by: person`; one from the shop's records is kept as evidence, and answered 409.

    A topic with double opt-in needs `request`: nothing is sent until they have confirmed it themselves.
    """
    room = room_of(request)
    if wanted.action == "withdraw":
        return await _withdraw(room, response, external_id, wanted, key)
    act = _request if wanted.action == "request" else _grant
    if wanted.action == "request":
        response.status_code = HTTPStatus.ACCEPTED
    return await in_thread(room.pools.api, lambda: act(room, external_id, wanted, key))


def _request(room: Room, external_id: str, wanted: NewConsent, key: ApiKey) -> ConsentState:
    with room.database.begin() as connection:
        shop, held = _begin(connection, room, external_id, wanted, key)
        asked = opt_in.request(
            connection, room.key_ring, shop, held, wanted.topic, actor=wanted.by, source=wanted.source,
            occurred_at=wanted.occurred_at, wording=wanted.wording.kept() if wanted.wording else None,
            sealed=wanted.sealed(),
        )  # fmt: skip
        state = _state(connection, held, wanted)
    again_at = show_instant(asked.again_at)
    state.confirmation = Confirmation(message=asked.message_id, because=asked.because, again_at=again_at)
    return state


def _grant(room: Room, external_id: str, wanted: NewConsent, key: ApiKey) -> ConsentState:
    with room.database.begin() as connection:
        shop, held = _begin(connection, room, external_id, wanted, key)
        granted = granting.grant(
            connection, room.key_ring, shop, held, wanted.topic, actor=wanted.by, source=wanted.source,
            basis=wanted.basis, occurred_at=wanted.occurred_at,
            wording=wanted.wording.kept() if wanted.wording else None, sealed=wanted.sealed(),
        )  # fmt: skip
        state = _state(connection, held, wanted)
    if objection := granting.objection(held, granted):  # it is evidence all the same: committed
        raise HTTPException(HTTPStatus.CONFLICT, objection)
    return state


async def _withdraw(room: Room, response: Response, external_id: str, wanted: NewConsent, key: ApiKey) -> ConsentState:
    def begin() -> tuple[Holding, unsubscribe.Withdrawal | None]:
        with room.database.begin() as connection:
            _, held = _begin(connection, room, external_id, wanted, key)
            if held.address_id is None:  # nothing can be on the way to them
                consent.withdraw(
                    connection, room.key_ring, held.contact_id, wanted.channel, [wanted.topic],
                    address_id=None, source=wanted.source, now=held.now, sealed=wanted.sealed(),
                )  # fmt: skip
                return held, None
        way_out = WayOut(held.contact_id, wanted.channel, wanted.topic, held.address_id)
        return held, unsubscribe.begin(
            room.database, room.key_ring, way_out, source=wanted.source, sealed=wanted.sealed()
        )

    held, withdrawal = await in_thread(room.pools.withdrawals, begin)
    on_the_wire = False
    if withdrawal is not None:
        await wait(room, withdrawal)
        answer = await in_thread(room.pools.withdrawals, partial(unsubscribe.answer, room.database, withdrawal))
        response.status_code, on_the_wire = answer.status, answer.status != unsubscribe.DONE

    def read() -> ConsentState:
        with room.database.connect() as connection:
            return _state(connection, held, wanted)

    state = await in_thread(room.pools.api, read)
    state.on_the_wire = on_the_wire
    return state


def _begin(
    connection: Connection, room: Room, external_id: str, wanted: NewConsent, key: ApiKey
) -> tuple[Shop, Holding]:
    """Return the shop and the contact, locked; what is asked is in the audit from here on."""
    shop = load_shop(connection)
    if wanted.topic not in shop.topics or wanted.channel not in shop.topics[wanted.topic].channels:
        known = [name for name, topic in shop.topics.items() if wanted.channel in topic.channels]
        raise Refused(f"{wanted.topic} is not a topic for {wanted.channel}; there are {', '.join(known) or 'none'}")
    held = hold_contact(connection, room.key_ring, external_id, wanted.channel)
    details = {"channel": wanted.channel, "topic": wanted.topic, "by": wanted.by}
    audit.record(connection, key.actor, f"consent.{wanted.action}", str(held.contact_id), details)
    return shop, held


def _state(connection: Connection, held: Holding, wanted: NewConsent) -> ConsentState:
    states = consent.state_of(connection, held.contact_id)
    one = next((s for s in states if (s.channel, s.topic) == (wanted.channel, wanted.topic)), None)
    if one is None or (not one.for_present_address and one.state != "withdrawn"):
        return ConsentState(channel=wanted.channel, topic=wanted.topic, state="none")
    return ConsentState.model_validate(
        {
            "channel": one.channel,
            "topic": one.topic,
            "state": one.state,
            "confirmed": one.confirmed,
            "basis": one.basis,
            "effective_at": show_instant(one.effective_at),
            "expires_at": show_instant(one.expires_at),
        }
    )
