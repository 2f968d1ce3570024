"""The public pages of templates/pages: what somebody sees who opens the link in a message."""

from __future__ import annotations

import base64
import hashlib
import re
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

_HYPHEN = re.compile(r"(?<=\be)-(?=mail)", re.IGNORECASE)
_UNBROKEN = "\N{NON-BREAKING HYPHEN}"

#: What every page knows; all may be left out.  `all_url` shows a second button that stops all advertising, `more_url` a
#: link to everything else one can choose.
_NOTHING_KNOWN = dict.fromkeys(
    ("shop_name", "topic_title", "masked_address", "post_url", "all_url", "more_url"), ""
) | {"channel": "email"}

#: The languages of the pages by their own names, in the order they are offered.
LANGUAGES = {
    "en": "English", "de": "Deutsch", "es": "Español", "fr": "Français", "pt-BR": "Português", "ro": "Română",
}  # fmt: skip


class Say:
    """The words of the pages in one language."""

    def __init__(self, language: str, channel: str = "email", *, unbroken: bool = True) -> None:
        self._words, self._channel, self._unbroken = _words()[language], channel, unbroken

    def __call__(self, key: str, **values: str) -> str:
        """Return the text; `values` fill its places, `channel` says by what: `by e-mail`.

        `unbroken`: for a page, where "e-mail" must not end one line and begin the next.
        """
        by: str = self._words["by"][values.pop("channel", self._channel)]
        text: str = self._words[key]
        if self._unbroken:
            text, by = _HYPHEN.sub(_UNBROKEN, text), _HYPHEN.sub(_UNBROKEN, by)
        return text.format(by=by, **values)


def page_language(locale: str | None) -> str:
    """Return the language of the pages that is the closest."""
    return closest_locale(locale, _words()) or _DEFAULT_LANGUAGE


def render_page(name: str, locale: str | None, context: Mapping[str, Any]) -> str:
    """Return a page as HTML in the closest language.

    `name` is that of a file in templates/pages, with or without `.html`.  `context` may hold `shop_name`,
    `topic_title`, `channel`, `masked_address`, `post_url`, `all_url` and `more_url`; the pages of the preference centre
    and of a person's own data need what `web.preferences` and `web.own_data` give them.
    """
    language = page_language(locale)
    values = {**_NOTHING_KNOWN, **context}
    page = _environment().get_template(f"{name.removesuffix('.html')}.html")
    more = {"say": Say(language, values["channel"]), "language": language, "languages": LANGUAGES}
    return page.render({**values, **more, "style": Markup(_style())})  # noqa: S704 - our own file


def render_evidence(values: Mapping[str, Any]) -> str:
    """Return the page that shows one contact's evidence of consent (`evidence.gather`), in English."""
    return _environment().get_template("evidence.html").render(dict(values))


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
