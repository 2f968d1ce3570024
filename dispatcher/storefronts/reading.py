"""What a storefront's body says, in our words; and how its fields are read.

Bodies come from many versions of many systems.  A field that cannot be read is left out, and costs nothing else; only a
body that lacks what its topic is about is not understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, NoReturn

from dispatcher.addresses import BadAddress, normal_country, normal_email, normal_phone
from dispatcher.consent import Action
from dispatcher.contacts import Particulars
from dispatcher.event_json import LONGEST_KEY, LONGEST_NAME, InvalidEvent, check_instant, parse_event
from dispatcher.event_json import amount as checked_amount
from dispatcher.events import Event
from dispatcher.feedback.inbox import NotUnderstood

Fields = Mapping[str, Any]
Kind = Literal["export", "erasure", "shop_erasure"]

_LONGEST_TEXT = 1_000
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"[1-9]\d{0,29}")
_GLOBAL_ID = re.compile(r"gid://shopify/\w+/([1-9]\d{0,29})")
_CURRENCY = re.compile(r"[A-Z]{3}")
_LOCALE = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|[0-9]{3}))?")
_SUBDIVISION = re.compile(r"(?:[A-Z]{2}-)?([A-Z0-9]{1,3})")


@dataclass(frozen=True, slots=True)
class Claim:
    """What the storefront says of a customer's consent on a channel."""

    channel: str
    action: Action
    occurred_at: datetime | None  #: the consent's own time, never that of the record around it
    source: str
    opt_in_level: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for on a customer's behalf, or on the shop's."""

    kind: Kind
    reference: str  #: the number of the request, else of the customer; of the shop its domain
    orders: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """What one body says."""

    customer_id: str | None = None  #: the storefront's own number of the customer
    particulars: Particulars | None = None  #: None: about nobody we could know again
    changed_at: datetime | None = None  #: when the customer's record was changed last; None: mentioned in passing
    claims: tuple[Claim, ...] = ()
    events: tuple[Event, ...] = ()
    request: Request | None = None
    first_stays: bool = False  #: an event with another body than was recorded is an edit, not a contradiction
    only_if_known: bool = False  #: nobody is made known by this
    order: str | None = None  #: of an event without a contact: the number of the order it is about
    absorbed: str | None = None  #: external id of another customer, who is this one now


@dataclass(frozen=True, slots=True)
class Reading:
    """What the translation of a body may know."""

    source: Literal["shopify", "woocommerce"]
    received_at: datetime
    interests: Sequence[str]  #: fields of a line that name interests
    guest_id: Callable[[str, str], str]  #: external id of who has no number there: (channel, normal form) -> id

    def event(self, raw: dict[str, Any], **private: Any) -> Event:
        """Return the event; NotUnderstood if it cannot be one."""
        try:
            event = parse_event({"source": self.source, **raw}, now=self.received_at)
        except InvalidEvent as error:
            raise NotUnderstood(str(error)) from error
        event.private.update({name: value for name, value in private.items() if value is not None})
        return event

    def at(self, *candidates: object) -> str:
        """Return the first of these that is an instant, else when we received it; as JSON."""
        found = (instant(value, self.received_at) for value in candidates)
        return next((at for at in found if at is not None), self.received_at).isoformat()


def load(body: bytes) -> Fields:
    """Return the object that a body is; NotUnderstood if it is none."""
    try:
        found = json.loads(body, parse_float=Decimal, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise NotUnderstood(f"not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise NotUnderstood("not JSON: nested too deeply") from error
    except ValueError as error:  # not UTF-8, or a number of thousands of digits
        raise NotUnderstood("not JSON") from error
    if not isinstance(found, dict):
        raise NotUnderstood("not a JSON object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def need(fields: Fields, *names: str) -> None:
    """NotUnderstood if a body lacks what its topic is about: the topic itself is not signed."""
    if missing := [name for name in names if name not in fields]:
        raise NotUnderstood(f"a body of this topic has {', '.join(names)}; this one lacks {missing[0]}")


def number(fields: Fields, *names: str) -> str | None:
    """Return a number as its digits; of several names the first that holds one.

    A global id holds the same number (`gid://shopify/Customer/17`).
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, bool) or value is None:
            continue
        digits = str(value).strip()
        found = _GLOBAL_ID.match(digits)
        digits = found[1] if found else digits
        if _NUMBER.fullmatch(digits):
            return digits
    return None


def needed_number(fields: Fields, *names: str) -> str:
    found = number(fields, *names)
    if found is None:
        raise NotUnderstood(f"{names[0]} is missing, or is no number")
    return found


def words(value: object, longest: int = _LONGEST_TEXT) -> str | None:
    """Return a text on one line, cut to what we keep; None if there is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return None
    plain = _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", value[: 4 * longest]))
    plain = "".join(character if character.isprintable() else " " for character in plain)
    return " ".join(plain.split())[:longest].strip() or None


def part(fields: Fields, name: str) -> Fields:
    """Return the object in a field; an empty one if there is none (PHP and others write `[]` for that)."""
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def lines(fields: Fields, name: str) -> list[Fields]:
    value = fields.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def how_many(fields: Fields, name: str) -> int:
    value = fields.get(name)
    return len(value) if isinstance(value, list) else 0


def instant(value: object, received_at: datetime) -> datetime | None:
    """Return an instant in UTC (without an offset it is UTC); None for what is none, or lies in the future."""
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value.strip())
        return check_instant(at if at.tzinfo else at.replace(tzinfo=UTC), received_at)
    except (ValueError, InvalidEvent):
        return None


def amount(value: object) -> Decimal | None:
    """Return a sum of money as it is written; None if it is none."""
    try:
        return None if value is None else checked_amount(value, "")
    except InvalidEvent:
        return None


def currency(value: object) -> str | None:
    """Return an ISO 4217 code as it is written; None for what is none."""
    code = words(value)
    return code if code and _CURRENCY.fullmatch(code) else None


def email(value: object) -> str | None:
    return _normal(normal_email, value)


def phone(value: object, country: str | None) -> str | None:
    return _normal(lambda text: normal_phone(text, country), value)


def country(value: object) -> str | None:
    return _normal(normal_country, value)


def locale(value: object) -> str | None:
    found = _LOCALE.fullmatch(words(value) or "")
    if found is None:
        return None
    language, script, region = found.groups()
    return "-".join(filter(None, (language.lower(), script and script.title(), region and region.upper())))


def subdivision(value: object) -> str | None:
    found = _SUBDIVISION.fullmatch((words(value) or "").upper())
    return found[1] if found else None


def _normal(make: Callable[[str], str], value: object) -> str | None:
    text = words(value)
    try:
        return make(text) if text else None
    except (BadAddress, ValueError):
        return None


def interests_of(line: Fields, names: Sequence[str], properties: Mapping[str, object]) -> list[str]:
    """Return what a line of an order is about: the named fields' values, else those of its properties, each once.

    A field holds one name, or a list of names or of objects with a name; `tags` may be one text with commas.
    """
    found: dict[str, None] = {}
    for name in names:
        value = line.get(name) or properties.get(name)
        if name == "tags" and isinstance(value, str):
            value = value.split(",")
        for one in value if isinstance(value, list) else [value]:
            told = words(one.get("name") if isinstance(one, dict) else one, LONGEST_NAME)
            if told is not None:
                found[told] = None
    return list(found)


def plain(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the properties that say something."""
    return {name: value for name, value in properties.items() if value not in (None, "", [])}


def named(reading: Reading, customer_id: str | None, said: Particulars) -> Particulars | None:
    """Return the particulars under the external id they go by; None if nobody could be known again by them."""
    if customer_id is not None:
        name = f"{reading.source}-{customer_id}"
    elif said.email is not None:
        name = reading.guest_id("email", said.email)
    elif said.phone is not None:
        name = reading.guest_id("sms", said.phone)
    else:
        return None
    return Particulars(
        name[:LONGEST_KEY], said.email, said.phone, said.first_name, said.last_name, said.postal_code, said.locale,
        said.country, said.subdivision,
    )  # fmt: skip
