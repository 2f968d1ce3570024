"""One event as JSON, the way the shop writes it: checked, and brought into its normal form.

    {"source_key": "536365", "contact": "17850", "name": "order.placed", "occurred_at": "2011-12-01T08:26:00Z",
     "value": 139.1, "properties": {}, "items": [{"interest": "christmas", "quantity": 6, "value": 15.3}]}

Whatever is wrong is said by an `InvalidEvent` with the field and the reason, never by another exception: these lines
come from anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NoReturn

from dispatcher.errors import Refused
from dispatcher.events import SOURCE, Event, Item

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
#: How far a shop's clock may be ahead of ours.
AHEAD = timedelta(days=1)
#: The six decimals an amount is kept to, and what it stays below.
SMALLEST, LARGEST = Decimal("0.000001"), Decimal(10) ** 15
LONGEST_KEY = 200
LONGEST_NAME = 100
DEEPEST = 8

_EVENT_FIELDS = {"source", "source_key", "contact", "name", "occurred_at", "value", "properties", "items"}
_ITEM_FIELDS = {"interest", "quantity", "value", "properties"}


class InvalidEvent(Refused):
    """This is not an event we can record; the text says why."""


def load_event(text: str | bytes, *, now: datetime, line: int | None = None) -> Event:
    """Return the event a line of JSON says; InvalidEvent if it is none."""
    return parse_event(load_json(text), now=now, line=line)


def load_json(text: str | bytes) -> object:
    """Return what JSON says, numbers as they are written and no name twice; InvalidEvent if it is none."""
    try:
        text = text.decode() if isinstance(text, bytes) else text
        raw: object = json.loads(text, object_pairs_hook=_unique, parse_float=Decimal, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"not UTF-8: byte {error.start + 1}") from error
    except RecursionError as error:
        raise InvalidEvent("nested too deeply") from error
    except json.JSONDecodeError as error:
        raise InvalidEvent(f"not JSON: {error.msg} at column {error.colno}") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise InvalidEvent("not JSON: a number is too long") from error
    return raw


def parse_event(raw: object, *, now: datetime, line: int | None = None) -> Event:
    """Return the event that parsed JSON says; InvalidEvent if it is none."""
    if not isinstance(raw, Mapping):
        raise InvalidEvent('not an object; an event is {"source_key": ..., "contact": ..., "name": ..., ...}')
    _only(raw, _EVENT_FIELDS, "")
    items = _items(raw.get("items"))
    value = raw.get("value")
    return Event(
        source=_text(raw, "source", LONGEST_NAME) if "source" in raw else SOURCE,
        source_key=_text(raw, "source_key", LONGEST_KEY),
        contact=_text(raw, "contact", LONGEST_KEY),
        name=_text(raw, "name", LONGEST_NAME),
        occurred_at=_instant(raw.get("occurred_at"), now),
        value=sum((item.value for item in items), Decimal(0)) if value is None else amount(value, "value"),
        properties=_properties(raw, ""),
        items=items,
        line=line,
    )


def _items(value: object) -> tuple[Item, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidEvent("items is not a list")
    return tuple(_item(item, f"items[{position}]") for position, item in enumerate(value))


def _item(raw: object, where: str) -> Item:
    if not isinstance(raw, Mapping):
        raise InvalidEvent(f"{where} is not an object")
    _only(raw, _ITEM_FIELDS, f"{where}.")
    given, value = raw.get("quantity"), raw.get("value")
    quantity = Decimal(1) if given is None else amount(given, f"{where}.quantity")
    if quantity < 0:
        raise InvalidEvent(f"{where}.quantity is below 0; what came back is an event of its own, like order.refunded")
    return Item(
        interests=_interests(raw.get("interest"), f"{where}.interest"),
        quantity=quantity,
        value=Decimal(0) if value is None else amount(value, f"{where}.value"),
        properties=_properties(raw, f"{where}."),
    )


def _interests(value: object, where: str) -> tuple[str, ...]:
    """Return the names, each once: one name or a list of them."""
    if value is None:
        return ()
    names = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(check_text(name, where, LONGEST_NAME) for name in names))


def _text(raw: Mapping[str, object], name: str, longest: int) -> str:
    """Return a required text; a whole number is taken as its digits, because shops number their orders."""
    value = raw.get(name)
    if value is None:
        raise InvalidEvent(f"{name} is missing")
    return check_text(str(value) if type(value) is int else value, name, longest)


def check_text(value: object, where: str, longest: int) -> str:
    """Return a text as we keep it, trimmed; InvalidEvent if it is none, or nothing one could look up again."""
    if not isinstance(value, str):
        raise InvalidEvent(f"{where} is not a text")
    value = value.strip()
    if not value:
        raise InvalidEvent(f"{where} is empty")
    if len(value) > longest:
        raise InvalidEvent(f"{where} is longer than {longest} characters")
    if not value.isprintable():
        raise InvalidEvent(f"{where} has a character that cannot be printed")
    return value


def amount(value: object, where: str) -> Decimal:
    """Return a number as we keep it; InvalidEvent for what is none, and for the absurdly large."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise InvalidEvent(f"{where} is not a number")
    try:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
        if number.is_finite() and abs(number) < LARGEST:
            return number.quantize(SMALLEST).normalize() + 0  # + 0: no negative zero
    except (ArithmeticError, ValueError):  # ValueError: a whole number of thousands of digits
        pass
    raise InvalidEvent(f"{where} is not a number below {LARGEST:.0e}")


def _instant(value: object, now: datetime) -> datetime:
    if value is None:
        raise InvalidEvent("occurred_at is missing")
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        instant = None
    if instant is None:
        raise InvalidEvent("occurred_at is not an instant; write it like 2011-12-01T08:26:00Z")
    if instant.tzinfo is None:
        raise InvalidEvent("occurred_at does not say its zone; end it with Z or an offset like +02:00")
    return check_instant(instant, now)


def check_instant(instant: datetime, now: datetime) -> datetime:
    """Return the instant in UTC; InvalidEvent if it cannot be when something happened."""
    try:
        instant = instant.astimezone(UTC)
    except OverflowError as error:
        raise InvalidEvent("occurred_at is out of range") from error
    if instant < EARLIEST:
        raise InvalidEvent(f"occurred_at is before {EARLIEST.year}")
    if instant > now + AHEAD:
        raise InvalidEvent("occurred_at is in the future")
    return instant


def _properties(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    value = raw.get("properties")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidEvent(f"{where}properties is not an object")
    plain: dict[str, Any] = _plain(value, f"{where}properties", DEEPEST)
    return plain


def _plain(value: object, where: str, depth: int) -> Any:
    """Return a value as PostgreSQL can keep and compare it."""
    if depth == 0:
        raise InvalidEvent(f"{where} is nested too deeply")
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidEvent(f"{where} has a character that cannot be stored")
        return value
    if isinstance(value, dict):
        return {_plain(key, where, depth): _plain(inner, where, depth - 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, where, depth - 1) for inner in value]
    if isinstance(value, Decimal | float) or (isinstance(value, int) and not isinstance(value, bool)):
        return _number(amount(value, where))
    return value


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _only(raw: Mapping[str, object], known: Iterable[str], where: str) -> None:
    for name in raw:
        if name not in known:
            raise InvalidEvent(f"{where}{name} is not a field of ours; put what is yours into properties"[:200])


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidEvent(f"{twice!r} is there twice"[:200])
    return value


def _no_constant(name: str) -> NoReturn:
    raise InvalidEvent(f"{name} is not a number")
