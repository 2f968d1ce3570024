"""The export as a page: complete, escaped, and without anything from outside."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dispatcher.content.pages import LANGUAGES, Say
from dispatcher.rights.exporting import SECTIONS
from dispatcher.rights.readable import to_html

TOLD: dict[str, Any] = {
    "format": "dispatcher contact export",
    "version": 1,
    "made_at": "2026-12-01T10:05:00.000000Z",
    "shop": "Tea & Co",
    **{name: [] for name in SECTIONS},
    "contact": {"external_id": "17850", "first_name": "<b>Ana</b>", "last_name": None, "attributes": {"club": "gold"}},
    "events": [
        {"name": "order.placed", "occurred_at": "2026-01-03T09:30:00.000000Z", "value": 15.3,
         "items": [{"interests": ["christmas", "home"], "quantity": 2}]}
    ],
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_section_has_a_title_and_a_sentence(language: str) -> None:
    say = Say(language)

    assert all(say(f"part_{name}") and say(f"about_{name}").endswith(".") for name in SECTIONS)


def test_it_speaks_the_persons_language() -> None:
    page = to_html(TOLD | {"contact": TOLD["contact"] | {"locale": "de-AT"}})

    assert '<html lang="de">' in page
    assert "<h1>Alles, was Tea &amp; Co über Sie gespeichert hat</h1>" in page
    assert ">Woher wir es wissen</h2>" in page
    assert '<div lang="en">' in page


def test_it_reads_as_a_page() -> None:
    page = to_html(TOLD)

    assert "<h1>Everything Tea &amp; Co holds about you</h1>" in page
    assert "Made at 2026-12-01 10:05." in page
    assert "<dt>occurred at</dt><dd>3 January 2026 at 09:30</dd>" in page
    assert "christmas, home" in page
    assert re.findall(r'href="#(\w+)"', page) == re.findall(r'<h2 id="(\w+)"', page) == list(SECTIONS)


def test_what_people_wrote_is_escaped_and_nothing_is_fetched() -> None:
    page = to_html(TOLD)

    assert "&lt;b&gt;Ana&lt;/b&gt;" in page
    assert "<b>Ana" not in page
    assert not re.search(r"""<script|<link|<img|<iframe|src=|url\(|https?://""", page)


def test_a_section_that_has_no_title_yet_is_shown_all_the_same() -> None:
    page = to_html(TOLD | {"clicks_of_theirs": [{"at": "2026-01-03T09:30:00.000000Z"}]})

    assert ">Clicks of theirs</h2>" in page
