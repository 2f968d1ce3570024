"""/v1/contacts/{external_id}: write and read one person."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AliasChoices, ConfigDict, Field
from sqlalchemy import Connection

from dispatcher import audit
from dispatcher.api_keys import ApiKey
from dispatcher.contact_json import parse_contact, put_contact
from dispatcher.contacts import find_contact
from dispatcher.contacts.saving import Outcome
from dispatcher.contacts.telling import tell
from dispatcher.errors import InvalidFields
from dispatcher.imports.contact_rows import LONGEST_NAME, LONGEST_TEXT
from dispatcher.shop import load_shop
from dispatcher.web.room import in_thread, room_of
from dispatcher.web.v1.callers import permit
from dispatcher.web.v1.contact_told import Contact
from dispatcher.web.v1.etags import IfMatch, IfNoneMatch, etag, require_version, wanted_version
from dispatcher.web.v1.operations import Asked, ContactId, operation, shown, write

router = APIRouter(prefix="/v1", tags=["contacts"])

Text = Annotated[str, Field(max_length=LONGEST_TEXT)] | None
PersonName = Annotated[str, Field(max_length=LONGEST_NAME)] | None
_ANA: dict[str, Any] = {
    "email": "ana@shop.example", "phone": "+447700900123", "first_name": "Ana", "country": "GB", "locale": "en-GB",
    "timezone": "Europe/London", "attributes": {"tier": "gold"}, "email_consent": "subscribed",
    "email_consent_at": "2026-11-20T09:30:00Z", "email_consent_source": "checkout",
}  # fmt: skip
_CONSENT_WORDS = "`subscribed`, `unsubscribed`, `pending`, `not_subscribed`: as in a contacts file"
Word = Annotated[str, Field(max_length=40, description=_CONSENT_WORDS)] | None


class ContactWish(Asked):
    """The fields of a contacts file.  `null` blanks a field; what is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ANA]})

    contact_id: Annotated[Text, Field(description="as in the path; may be left out")] = None
    email: Text = None
    phone: Annotated[Text, Field(description="E.164, or as written in `country`")] = None
    first_name: PersonName = None
    last_name: PersonName = None
    postal_code: PersonName = None
    locale: Annotated[Text, Field(description="like pt-BR")] = None
    country: Annotated[Text, Field(description="ISO 3166-1, like GB")] = None
    subdivision: Annotated[Text, Field(description="ISO 3166-2, like US-CA or CA")] = None
    timezone: Annotated[
        Text,
        Field(description="an IANA name, like Europe/London", validation_alias=AliasChoices("timezone", "zone")),
    ] = None
    attributes: Annotated[
        dict[str, Annotated[str, Field(strict=True, max_length=LONGEST_TEXT)] | Annotated[bool, Field(strict=True)]
             | Annotated[float, Field(strict=True, allow_inf_nan=False)] | None],
        Field(max_length=100, description="what segments may ask for; each given one is set, the others stay"),
    ] = Field(default_factory=dict)  # fmt: skip
    topic: Annotated[Text, Field(description="what consent is said of; left out: every topic of the channel")] = None
    email_consent: Word = None
    email_consent_at: Text = None
    email_consent_source: Text = None
    email_consent_basis: Text = None
    email_opt_in_level: Text = None
    sms_consent: Word = None
    sms_consent_at: Text = None
    sms_consent_source: Text = None
    sms_consent_basis: Text = None
    sms_opt_in_level: Text = None


_EXAMPLE = {
    "contact": "17850", "also_known_as": [], "masked": True, "email": "a•••@s•••.example", "phone": "+44••• 23",
    "first_name": "A•••", "last_name": None, "postal_code": None, "locale": "en-GB", "country": "GB",
    "subdivision": None, "timezone": "Europe/London", "attributes": {"tier": "gold"}, "paused_until": None,
    "quiet_hours": [], "erased_at": None, "erasure": None, "suppressions": [],
    "version": "3-9f86d081884c", "outcome": None,
    "consent": [
        {"channel": "email", "topic": "offers", "state": "granted", "confirmed": False, "basis": "consent",
         "effective_at": "2026-11-20T09:30:00.000000Z", "expires_at": None, "for_present_address": True,
         "source": "checkout (api)"}
    ],
}  # fmt: skip


@router.put(
    "/contacts/{external_id}",
    summary="Make or change a contact",
    **operation(
        "putContact", "contacts:write", answers=Contact, body=True, example=_EXAMPLE | {"outcome": "changed"},
        also={201: "made", 409: "the person, or whoever had the address, was erased, and stays so", 412: None},
        links={
            name: {"external_id": "$request.path.external_id"}
            for name in ("readContact", "changeConsent", "exportContact", "eraseContact")
        },
    ),
)  # fmt: skip
async def put(
    request: Request,
    response: Response,
    external_id: ContactId,
    wanted: ContactWish,
    key: Annotated[ApiKey, Depends(permit("contacts:write"))],
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> dict[str, Any]:
    """Checked and saved as an import does, but all or nothing: a field that cannot be taken is a 422 that names it.

    One e-mail address is one contact: if it is another's, the two are merged, `outcome` says so, and `contact` is the
    id that stays.  Only that id overwrites fields, another of its ids fills what is blank.  Consent that is said here
    is the shop's record: it never undoes a withdrawal.  The answer is masked: who writes need not be able to read.
    """
    room, expected = room_of(request), wanted_version(if_match, if_none_match)
    if external_id != external_id.strip():
        raise InvalidFields([("path.external_id", "begins or ends with a blank")])
    if wanted.contact_id not in (None, external_id):
        raise InvalidFields([("body.contact_id", "is not that of the path")])
    given = wanted.model_dump(exclude_unset=True, exclude={"contact_id"})

    def work() -> tuple[Outcome, dict[str, Any]]:
        with room.database.connect() as connection:
            shop = load_shop(connection)
        row = parse_contact(external_id, given, key_ring=room.key_ring, shop=shop, source=f"api:{key.name}")
        saved = put_contact(
            room.database, room.key_ring, row, by=key.actor, check=lambda there: require_version(expected, there)
        )
        assert saved.contact_id is not None  # or it was refused
        with room.database.connect() as connection:
            told = tell(connection, room.key_ring, saved.contact_id, reveal=False)
        return saved.outcome, told

    outcome, told = await in_thread(room.pools.api, work)
    response.status_code = 201 if outcome is Outcome.CREATED else 200
    response.headers["ETag"] = etag(told["version"])
    return {**shown(told), "outcome": outcome.value}


@router.get(
    "/contacts/{external_id}",
    summary="A contact",
    **operation("readContact", "contacts:read", answers=Contact, example=_EXAMPLE, also={404: None}),
)
async def read_contact(
    request: Request, response: Response, external_id: ContactId,
    key: Annotated[ApiKey, Depends(permit("contacts:read"))],
) -> dict[str, Any]:  # fmt: skip
    """Personal fields are masked; a key with the scope `personal:read`, too, sees them, and the audit says so."""
    key_ring, reveal = room_of(request).key_ring, "personal:read" in key.scopes

    def work(connection: Connection) -> dict[str, Any]:
        contact_id = find_contact(connection, key_ring, external_id)
        if reveal:
            audit.record(connection, key.actor, "contact.reveal", f"contact {contact_id}")
        return tell(connection, key_ring, contact_id, reveal=reveal)

    told = await write(request, work)
    response.headers["ETag"] = etag(told["version"])
    return told
