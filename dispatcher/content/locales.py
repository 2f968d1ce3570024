"""Which language a person reads: one rule of fallback for templates and pages."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

_TAG = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|\d{3}))?(?![A-Za-z0-9])")


@lru_cache(maxsize=1024)
def normal_locale(locale: str) -> str:
    """Return the tag as we write it: `pt_br.UTF-8` is `pt-BR`; an empty string if it is none."""
    found = _TAG.match(locale.strip())
    if found is None:
        return ""
    language, script, region = found.groups()
    return "-".join(filter(None, (language.lower(), (script or "").title(), (region or "").upper())))


def closest_locale(wanted: str | None, available: Collection[str]) -> str | None:
    """Return the closest of the available locales: exact, language alone, any variant of the language; else None.

    A reader of European Portuguese gets Brazilian Portuguese rather than English.
    """
    tag = normal_locale(wanted or "")
    if not tag:
        return None
    language = tag.split("-")[0]
    variants = sorted(locale for locale in available if locale.split("-")[0] == language)
    return next((locale for locale in (tag, language, *variants) if locale in available), None)
