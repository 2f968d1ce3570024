"""One row of a contacts file: what it says of a person, and what of it cannot be used."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, cast
from zoneinfo import ZoneInfo

from dispatcher.addresses import BadAddress, normal_country, normal_email, normal_phone
from dispatcher.consent import CONSENT, MONTHS_IN_FORCE, Action, Basis
from dispatcher.contacts import Particulars
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing

LONGEST_ID = 200
LONGEST_TEXT = 1_000
LONGEST_NAME = 200
_CHANNELS = {"email": "email", "sms": "phone"}  # channel -> the field that holds its address
_CONSENT_PARTS = ("consent", "opt_in_level", "consent_at", "consent_source", "consent_basis")
CONSENT_FIELDS = tuple(f"{channel}_{part}" for channel in _CHANNELS for part in _CONSENT_PARTS)
_NAMES = ("first_name", "last_name", "postal_code")
_PLACES = ("country", "subdivision", "timezone", "locale")
_FIELDS = frozenset(("contact_id", "email", "phone", "topic", *_NAMES, *_PLACES, *CONSENT_FIELDS))
#: What else our own pages and API call a field.
_ALSO_CALLED = {"zone": "timezone", "external_id": "contact_id"}
_ATTRIBUTE = re.compile(r"attr\.([^\s.][^.]{0,99})")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]+")
_LOCALE = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|[0-9]{3}))?")
_SUBDIVISION = re.compile(r"(?:[A-Z]{2}-)?([A-Z0-9]{1,3})")

#: What shops call the state of a consent; None: says nothing.
CONSENT_WORDS: dict[str, Action | None] = {
    "subscribed": "granted",
    "yes": "granted",
    "true": "granted",
    "unsubscribed": "withdrawn",
    "pending": "requested",
    "not_subscribed": None,
    "no": None,  # a box that was not ticked, not an opt-out
    "false": None,
    "invalid": None,
    "redacted": None,
    "": None,
}
_OPT_IN_LEVELS = ("single_opt_in", "confirmed_opt_in")


class Rejected(Exception):  # noqa: N818 - what happens to the row
    """Nothing of this row can be used; says why."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a row says of consent on a channel."""

    channel: str
    topics: tuple[str, ...]
    action: Action
    occurred_at: datetime | None
    source: str
    opt_in_level: str | None
    basis: Basis = CONSENT


class Note(NamedTuple):
    """Why something that was said of a contact is not taken as it was said."""

    field: str
    reason: str
    then: str  #: what a file's row becomes of it

    def __str__(self) -> str:
        return f"{self.field} {self.reason}{self.then}"


@dataclass(slots=True)
class ContactRow:
    line: int | None  #: None: it is of no file
    particulars: Particulars
    claims: list[Claim]
    notes: list[Note] = field(default_factory=list)  #: what was left out, and why
    topicless: list[str] = field(default_factory=list)  #: channels with a consent that is for no topic of the shop
    unaccepted: list[str] = field(default_factory=list)  #: channel and basis, where no topic accepts that basis


class FieldReader:
    """Reads what is said of a contact, field by field in our names; of a file's row or of a program's request."""

    def __init__(
        self, *, key_ring: KeyRing, topics: Mapping[str, Sequence[str]], bases: Mapping[str, Sequence[str]], source: str
    ) -> None:
        self._key_ring, self._topics, self._bases, self._source = key_ring, topics, bases, source

    def read(
        self, line: int | None, given: Mapping[str, str], attributes: Mapping[str, str], *, fields: Collection[str]
    ) -> ContactRow:
        """Return what is said; Rejected if it is about nobody.  `fields`: those that could have been given."""
        notes: list[Note] = []
        country = _checked(given, "country", normal_country, notes)
        email = _checked(given, "email", normal_email, notes)
        particulars = Particulars(
            external_id=self._external_id(given, email, fields),
            email=email,
            phone=_checked(given, "phone", lambda value: normal_phone(value, country), notes),
            country=country,
            zone=_checked(given, "timezone", _zone, notes),
            locale=_checked(given, "locale", _locale, notes),
            subdivision=_checked(given, "subdivision", _subdivision, notes),
            **{name: _checked(given, name, _name, notes) for name in _NAMES},
            attributes=_checked_attributes(attributes, notes),
        )
        row = ContactRow(line, particulars, [], notes)
        for channel in _CHANNELS:
            self._claim(row, channel, given, fields)
        return row

    def _external_id(self, given: Mapping[str, str], email: str | None, fields: Collection[str]) -> str:
        if "contact_id" not in fields and email is not None:  # a list of addresses: each is its own name, hashed
            return f"email-{self._key_ring.address_hash('email', email).hex()[:16]}"
        external_id = given.get("contact_id")
        if external_id is None:
            raise Rejected("contact_id is empty" if "contact_id" in fields else "there is no usable email")
        if len(external_id) > LONGEST_ID or not external_id.isprintable():
            raise Rejected(f"contact_id is longer than {LONGEST_ID} characters, or has some that cannot be shown")
        return external_id

    def _claim(self, row: ContactRow, channel: str, given: Mapping[str, str], fields: Collection[str]) -> None:
        """Add what is said of consent on this channel, if anything."""
        word = given.get(f"{channel}_consent", "").casefold().replace(" ", "_")
        if word not in CONSENT_WORDS:
            row.notes.append(Note(f"{channel}_consent", "is not a state we know", ", so it counts as none"))
        action = CONSENT_WORDS.get(word)
        if action is None:
            return
        topics = tuple(self._topics.get(channel, ()))
        if "topic" in fields:
            topics = tuple(topic for topic in topics if topic == given.get("topic", "").casefold())
        if not topics:
            row.topicless.append(channel)
            return
        basis = given.get(f"{channel}_consent_basis", CONSENT).casefold() if action == "granted" else CONSENT
        if basis not in (CONSENT, *MONTHS_IN_FORCE):
            known = ", ".join((CONSENT, *MONTHS_IN_FORCE))
            row.notes.append(Note(f"{channel}_consent_basis", f"is none of {known}", "; left out"))
            return
        topics = tuple(topic for topic in topics if basis == CONSENT or basis in self._bases.get(topic, ()))
        if not topics:
            row.unaccepted.append(f"{channel} {basis}")
            return
        occurred_at = _checked(given, f"{channel}_consent_at", _instant, row.notes)
        if basis != CONSENT and occurred_at is None:
            reason = f"needs {channel}_consent_at, the time of the purchase or inquiry"
            row.notes.append(Note(basis, reason, "; left out"))
            return
        level = given.get(f"{channel}_opt_in_level")
        if level not in (*_OPT_IN_LEVELS, None):
            reason = f"is none of {', '.join(_OPT_IN_LEVELS)}"
            row.notes.append(Note(f"{channel}_opt_in_level", reason, "; it counts as single"))
            level = None
        said = given.get(f"{channel}_consent_source")
        source = self._source if row.line is None else f"{self._source}:{row.line}"
        row.claims.append(
            Claim(
                channel, topics, action,
                occurred_at, f"{said[:100]} ({source})" if said else source, level, cast("Basis", basis),
            )
        )  # fmt: skip


class ContactReader:
    """Reads the rows of one file; its columns are ours, or mapped to ours."""

    def __init__(
        self,
        columns: Sequence[str],
        *,
        key_ring: KeyRing,
        topics: Mapping[str, Sequence[str]],
        bases: Mapping[str, Sequence[str]],
        mapping: Mapping[str, str] | None,
        source: str,
    ) -> None:
        self._fields = FieldReader(key_ring=key_ring, topics=topics, bases=bases, source=source)
        self._column, self._attributes = _columns_of(columns, mapping or {})
        if "contact_id" not in self._column and "email" not in self._column:
            there = ", ".join(filter(None, columns))
            raise Refused(
                f"no column says who a row is about; there are {there}. "
                "Say which one does with --map COLUMN=contact_id (or at least COLUMN=email)"
            )
        used = {*self._column.values(), *self._attributes.values()}
        self.ignored = [column for column in columns if column and column not in used]

    def read(self, line: int, cells: Mapping[str, str]) -> ContactRow:
        """Return what the row says; Rejected if it is about nobody."""
        given = {name: value for name, column in self._column.items() if (value := cells[column].strip())}
        attributes = {name: cells[column].strip() for name, column in self._attributes.items()}
        return self._fields.read(line, given, attributes, fields=self._column)


def _columns_of(columns: Sequence[str], mapping: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return which column holds each field, and which each attribute; what is mapped goes before what is called so."""
    by_name = {column.casefold(): column for column in columns if column}
    if unknown := [column for column in mapping if column.casefold() not in by_name]:
        there = ", ".join(by_name.values())
        raise Refused(f"the map names the column {unknown[0]}, which is not there; there are {there}")
    found: dict[str, str] = {}
    for column, name in mapping.items():
        wanted = _ALSO_CALLED.get(name, name)
        if wanted not in _FIELDS and not _ATTRIBUTE.fullmatch(wanted):
            raise Refused(
                f"the map gives {column} to {name}, which is no field; write attr.NAME, {', '.join(sorted(_FIELDS))}"
            )
        if wanted in found:
            raise Refused(f"the map gives two columns to {wanted}: {found[wanted]} and {column}")
        found[wanted] = by_name[column.casefold()]
    mapped = set(found.values())
    for folded, column in sorted(by_name.items(), key=lambda one: one[0] in _ALSO_CALLED):  # our own names first
        name = column if _ATTRIBUTE.fullmatch(column) else _ALSO_CALLED.get(folded, folded)
        if column not in mapped and (name in _FIELDS or _ATTRIBUTE.fullmatch(name)):
            found.setdefault(name, column)
    attributes = {match[1]: column for name, column in found.items() if (match := _ATTRIBUTE.fullmatch(name))}
    return {name: column for name, column in found.items() if name in _FIELDS}, attributes


def _checked_attributes(given: Mapping[str, str], notes: list[Note]) -> dict[str, Any]:
    named = {f"attr.{name}": value for name, value in given.items()}
    checked = {name: _checked(named, f"attr.{name}", _text, notes) for name in given}
    return {name: value for name, value in checked.items() if value is not None}


def _checked(given: Mapping[str, str], name: str, check: Any, notes: list[Note]) -> Any:
    """Return the field as `check` makes it; None, with a note, if it is not usable."""
    value = given.get(name)
    if not value:
        return None
    try:
        return check(value)
    except (BadAddress, ValueError) as error:
        notes.append(Note(name, str(error), "; the contact was taken in without it"))
        return None


def _name(value: str) -> str:
    return _text(value, LONGEST_NAME)


def _text(value: str, longest: int = LONGEST_TEXT) -> str:
    if len(value) > longest:
        raise ValueError(f"is longer than {longest:,} characters")
    return " ".join(_CONTROL.sub(" ", value).split())


@lru_cache(maxsize=1024)
def _zone(value: str) -> str:
    try:
        return ZoneInfo(value).key
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("is not a time zone (an IANA name like Europe/London)") from error


@lru_cache(maxsize=1024)
def _locale(value: str) -> str:
    found = _LOCALE.fullmatch(value)
    if found is None:
        raise ValueError("is not a locale (like pt-BR)")
    language, script, region = found.groups()
    return "-".join(filter(None, (language.lower(), script and script.title(), region and region.upper())))


@lru_cache(maxsize=1024)
def _subdivision(value: str) -> str:
    found = _SUBDIVISION.fullmatch(value.upper())
    if found is None:
        raise ValueError("is not a subdivision code (ISO 3166-2, like CA or US-CA)")
    return found[1]


def _instant(value: str) -> datetime:
    try:
        at = datetime.fromisoformat(value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("is not a time (ISO 8601, like 2026-12-01T10:00:00Z)") from error
