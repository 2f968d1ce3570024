"""Versions of a resource: what a program saw must be what it changes (RFC 9110, If-Match and If-None-Match)."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header

from dispatcher.errors import Changed, InvalidFields

_ONE = re.compile(r'"([\x21\x23-\x7e]{1,100})"')

IfMatch = Annotated[
    str | None,
    Header(max_length=120, description="change it only if this is still its `ETag`; `*`: only if it is there"),
]
IfNoneMatch = Annotated[str | None, Header(max_length=120, description="`*`: make it only if it is not there yet")]


def etag(version: str | int) -> str:
    return f'"{version}"'


def wanted_version(if_match: str | None, if_none_match: str | None = None) -> str | None:
    """Return the version that is expected: its text, `*` for any, an empty one for none yet; None: nothing was asked.

    InvalidFields for what is no such header: a condition that is not understood must not count as none.
    """
    if if_none_match is not None:
        if if_match is not None or if_none_match.strip() != "*":
            raise InvalidFields([("header.if-none-match", "is `*`, and not together with If-Match")])
        return ""
    if if_match is None or if_match.strip() == "*":
        return None if if_match is None else "*"
    found = _ONE.fullmatch(if_match.strip())
    if found is None:
        raise InvalidFields([("header.if-match", 'is one ETag in quotes, like "3", or `*`')])
    return found[1]


def require_version(expected: str | None, present: str | None) -> None:
    """Changed unless what is there (None: nothing) is what was expected."""
    if expected is None or expected == (present or "") or (expected == "*" and present is not None):
        return
    raise Changed("it was changed since you read it; read it again" if present else "there is no such thing yet")
