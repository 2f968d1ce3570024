"""The export as a page to read, print and keep: the same sections, in words, without anything from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatcher.content import render_export

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
    known = [name for name in told if name in TITLES]
    more = [name for name, value in told.items() if name not in TITLES and isinstance(value, list | dict)]
    sections = [
        {"name": name, "title": TITLES[name][0], "explained": TITLES[name][1], "value": told[name]} for name in known
    ]
    sections += [
        {"name": name, "title": name.replace("_", " ").capitalize(), "explained": "", "value": told[name]}
        for name in more
    ]
    return render_export({"shop": told["shop"], "made_at": told["made_at"], "sections": sections})
