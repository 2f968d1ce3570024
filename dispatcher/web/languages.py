"""Which language the reader of a page wants."""

from __future__ import annotations

import re

from dispatcher.content.locales import closest_locale
from dispatcher.content.pages import page_language, page_languages

_PART = re.compile(r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)\s*(?:;\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?")
_MOST_PARTS = 20


def wanted_locale(accept_language: str, otherwise: str | None) -> str | None:
    """Return the best locale of an Accept-Language header that the pages have, else `otherwise` (the contact's own)."""
    for tag in _by_preference(accept_language):
        if closest_locale(tag, page_languages()) is not None:
            return tag
    return otherwise


def chosen_locale(asked: str | None, contact: str | None, accept_language: str) -> str:
    """Return the language of somebody's page: what the switch asks for, else the contact's own, else the reader's."""
    for tag in (asked, contact):
        if tag and closest_locale(tag, page_languages()) is not None:
            return page_language(tag)
    return page_language(wanted_locale(accept_language, None))


def _by_preference(accept_language: str) -> list[str]:
    found = (_PART.fullmatch(part) for part in accept_language[:500].split(",")[:_MOST_PARTS])
    weighted = [(float(part[2] or 1), part[1]) for part in found if part]
    return [tag for weight, tag in sorted(weighted, key=lambda pair: -pair[0]) if weight > 0]
