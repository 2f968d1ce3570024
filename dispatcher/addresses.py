"""One normal form per address, so that the same mailbox or phone is always the same row; and the rows themselves."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from importlib import resources

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from sqlalchemy import Connection, text

from dispatcher.errors import DispatcherError
from dispatcher.keys import KeyRing


class BadAddress(DispatcherError):  # noqa: N818 - named for what it says, like the rest of its family
    """Not an address we could ever send to; says why, without repeating it."""


LONGEST_EMAIL = 254  # RFC 5321: a path is at most 256 with its angle brackets
_LONGEST_LOCAL = 64
_LONGEST_DOMAIN = 253
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PLAIN_EMAIL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)*{_LABEL}", re.ASCII)
_PHONE = re.compile(r"[\d\s+()\[\]./\-\u2010-\u2015\u2212\uff0b]+")


def normal_email(value: str) -> str:
    """Return the normal form: lower case, the domain in ASCII (IDNA), nothing else folded.

    Raises BadAddress for whatever a mailbox of today cannot be: quoted or non-ASCII names before the @ (no provider of
    ours takes them), domain literals, comments, and anything over the lengths of RFC 5321.
    """
    if len(value) > 4 * LONGEST_EMAIL:
        raise BadAddress("is too long for an e-mail address")
    if _PLAIN_EMAIL.fullmatch(value) is None:
        value = _with_ascii_domain(value)
    local, _, domain = value.lower().rpartition("@")
    if len(local) > _LONGEST_LOCAL or len(domain) > _LONGEST_DOMAIN or len(local) + len(domain) + 1 > LONGEST_EMAIL:
        raise BadAddress("is too long for an e-mail address")
    _, dot, top = domain.rpartition(".")
    if top.isdigit():
        raise BadAddress("has an e-mail domain that ends in a number")
    if not dot and len(top) != 2:  # a few country domains receive mail themselves; every other is a forgotten .com
        raise BadAddress("has an e-mail domain without a dot")
    return f"{local}@{domain}"


def _with_ascii_domain(value: str) -> str:
    """Return an address that is not plain ASCII with its domain as IDNA; the well-kept library knows the rules."""
    try:
        found = validate_email(value, check_deliverability=False, globally_deliverable=False, allow_smtputf8=False)
    except (EmailNotValidError, UnicodeError, ValueError) as error:
        raise BadAddress(_email_complaint(value)) from error
    return f"{found.local_part}@{found.ascii_domain}"


def _email_complaint(value: str) -> str:
    if value.count("@") != 1:
        return "is not an e-mail address: it needs exactly one @"
    if any(character.isspace() or not character.isprintable() for character in value):
        return "is not an e-mail address: it has a blank or a control character"
    if not value.rpartition("@")[0].isascii():
        return "is an e-mail address with letters before the @ that no provider delivers"
    return "is not an e-mail address"


def normal_phone(value: str, country: str | None) -> str:
    """Return the number in E.164; `country` (ISO 3166-1) reads numbers written without a country code.

    Possible is enough: valid numbers cannot be told from invalid ones offline (the fictitious British and French ranges
    are "not valid").  Raises BadAddress for what no SMS can reach.
    """
    if _PHONE.fullmatch(value) is None:
        raise BadAddress("is not a phone number: it has other signs than digits")
    region = country if country in phonenumbers.SUPPORTED_REGIONS else None
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException as error:
        if error.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE:
            raise BadAddress(
                "is a phone number without a country code, and the contact's country is not known"
            ) from error
        raise BadAddress("is not a phone number") from error
    if not phonenumbers.is_possible_number(number):
        raise BadAddress("is not a phone number: it has too few or too many digits for its country")
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


@lru_cache
def _countries() -> frozenset[str]:
    table = resources.files("tzdata").joinpath("zoneinfo/iso3166.tab").read_text(encoding="utf-8")
    return frozenset(line[:2] for line in table.splitlines() if not line.startswith("#"))


def normal_country(value: str) -> str:
    """Return the ISO 3166-1 alpha-2 code in upper case; ValueError if there is none."""
    code = value.upper()
    code = "GB" if code == "UK" else code  # the one that everybody writes
    if code not in _countries():
        raise ValueError("is not a two-letter country code (ISO 3166-1)")
    return code


def ensure_addresses(
    connection: Connection, key_ring: KeyRing, wanted: Collection[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """Return the address row of each (channel, normal form), making those that are missing."""
    by_hash = {(channel, key_ring.address_hash(channel, normal)): (channel, normal) for channel, normal in wanted}
    found: dict[tuple[str, str], int] = {}
    # read, make, and read what another writer made in between
    for statement in (_READ_ADDRESSES, _MAKE_ADDRESSES, _READ_ADDRESSES):
        missing = [key for key, address in by_hash.items() if address not in found]
        if missing:
            channels, hashes = zip(*missing, strict=True)
            rows = connection.execute(statement, {"channels": list(channels), "hashes": list(hashes)})
            found.update((by_hash[row.channel, bytes(row.hash)], row.id) for row in rows)
    return found


_WANTED = "unnest(CAST(:channels AS text[]), CAST(:hashes AS bytea[])) AS wanted(channel, hash)"
_READ_ADDRESSES = text(
    f"SELECT address.id, channel, hash FROM address JOIN {_WANTED} USING (channel, hash)"  # noqa: S608 - a constant
)
# in one order, so that two writers of the same new addresses wait for each other instead of dying in a deadlock
_MAKE_ADDRESSES = text(
    f"""INSERT INTO address (channel, hash) SELECT channel, hash FROM {_WANTED} ORDER BY channel, hash
        ON CONFLICT DO NOTHING RETURNING id, channel, hash"""  # noqa: S608 - a constant
)
