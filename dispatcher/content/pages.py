"""The public pages of templates/pages: what somebody sees who opens the link in a message."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dispatcher.content.locales import closest_locale

_FOLDER = Path(__file__).resolve().parents[2] / "templates" / "pages"
_DEFAULT_LANGUAGE = "en"

#: What every page knows; all may be left out.  `all_url` shows a second button that stops all advertising.
_NOTHING_KNOWN = dict.fromkeys(("shop_name", "topic_title", "masked_address", "post_url", "all_url"), "") | {
    "channel": "email"
}


def render_page(name: str, locale: str | None, context: Mapping[str, Any]) -> str:
    """Return a page as HTML in the closest language.

    `name` is unsubscribe, unsubscribed, working_on_it, confirm, confirmed or invalid_link, with or without `.html`;
    `context` may hold `shop_name`, `topic_title`, `channel`, `masked_address`, `post_url` and `all_url`.
    """
    language = closest_locale(locale, _words()) or _DEFAULT_LANGUAGE
    words = _words()[language]
    values = {**_NOTHING_KNOWN, **context}

    def say(key: str, topic: str = "") -> str:
        text: str = words[key]
        return text.format(topic=topic, by=words["by"][values["channel"]])

    page = _environment().get_template(f"{name.removesuffix('.html')}.html")
    return page.render({**values, "say": say, "language": language, "style": Markup(_style())})  # noqa: S704 - our own file


def render_evidence(values: Mapping[str, Any]) -> str:
    """Return the page that shows one contact's evidence of consent (`evidence.gather`), in English."""
    return _environment().get_template("evidence.html").render(dict(values))


def render_export(values: Mapping[str, Any]) -> str:
    """Return the page that shows a person everything there is about them (`rights.readable`), in English."""
    return _environment().get_template("export.html").render(dict(values))


def page_languages() -> frozenset[str]:
    """Return the locales that the pages are written in."""
    return frozenset(_words())


@cache
def page_policy() -> str:
    """Return the Content-Security-Policy of the pages: their own style and form, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


@cache
def _style() -> str:
    return (_FOLDER / "style.css").read_text(encoding="utf-8")


@cache
def _words() -> dict[str, dict[str, Any]]:
    words: dict[str, dict[str, Any]] = yaml.safe_load((_FOLDER / "words.yaml").read_text(encoding="utf-8"))
    return words


@cache
def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
