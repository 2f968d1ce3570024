"""The export as a page to read, print and keep: the same sections, in words, without anything from outside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dispatcher.content.pages import Say, page_language, render_page
from dispatcher.rights.exporting import SECTIONS

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def to_html(told: Mapping[str, Any]) -> str:
    """Return what `export_contact` found as one page in the person's language; every value escaped."""
    language = page_language(told["contact"].get("locale"))
    say = Say(language)
    sections = []
    for name, value in told.items():
        if name in SECTIONS:
            title, about = say(f"part_{name}"), say(f"about_{name}")
        elif isinstance(value, list | dict):  # of a later version
            title, about = name.replace("_", " ").capitalize(), ""
        else:
            continue
        sections.append({"name": name, "title": title, "about": about, "value": in_words(value)})
    made_at = f"{datetime.fromisoformat(told['made_at']):%Y-%m-%d %H:%M}"
    return render_page("export", language, {"shop": told["shop"], "made_at": made_at, "sections": sections})


def in_words(value: Any) -> Any:
    """Return the value as people write it: instants as English dates, and of a row only what there is."""
    if isinstance(value, Mapping):
        return {name: in_words(part) for name, part in value.items() if part not in (None, "", [], {})}
    if isinstance(value, list):
        return [in_words(part) for part in value]
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        at = datetime.fromisoformat(value)
        return f"{at.day} {at:%B %Y} at {at:%H:%M}"
    return value
