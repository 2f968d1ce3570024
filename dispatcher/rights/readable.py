"""The export as a page to read, print and keep: the same sections, in words, without anything from outside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dispatcher.content import render_export

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")

#: What each section is called, and one sentence on it.
TITLES: dict[str, tuple[str, str]] = {
    "contact": ("Who you are to us", "What the shop told us about you, and the ids it knows you by."),
    "merged_contacts": ("Merged", "Records that turned out to be yours, too, and were joined with this one."),
    "addresses": (
        "Your addresses",
        "We find you by a keyed hash of each address; the address itself is kept encrypted.",
    ),
    "places": ("Where you may be", "What we go by so as not to write to you at night."),
    "consent": ("What you allow", "Your present choice for each topic on each channel."),
    "consent_evidence": ("How we know", "Each time you, or the shop for you, said yes or no."),
    "suppressions": ("What we must not use", "Addresses that nothing of the kind goes to any more, and why."),
    "suppressions_lifted": ("What we may use again", "Addresses that were closed, and opened again since."),
    "provider_lists": ("At our providers", "Lists of theirs where we have put your addresses, so that they stop, too."),
    "unsubscribes": ("Your goodbyes", "Each time you unsubscribed, and what we answered."),
    "messages": ("Messages", "What was sent to you, and what was not, and why. The text itself is not kept."),
    "feedback": ("What became of them", "What mail servers and providers reported about messages to you."),
    "replies": ("Your texts", "What you texted to us."),
    "events": ("What you did in the shop", "What the shop told us of your orders and visits."),
    "interests": ("What you seem to like", "Counted from your orders; it fades as time passes."),
    "audit": ("Who looked or changed", "What people of the shop, or the engine, did with your record."),
    "erasure": ("Erasure", "Whether you asked to be erased, and what was done."),
}


def to_html(told: Mapping[str, Any]) -> str:
    """Return what `export_contact` found as one page; every value escaped."""
    sections = []
    for name, value in told.items():
        if name in TITLES or isinstance(value, list | dict):
            title, explained = TITLES.get(name, (name.replace("_", " ").capitalize(), ""))
            sections.append({"name": name, "title": title, "explained": explained, "value": in_words(value)})
    made_at = in_words(told["made_at"])
    return render_export({"shop": told["shop"], "made_at": made_at, "sections": sections})


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
