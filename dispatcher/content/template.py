"""A template, compiled once, and the content it becomes for one person."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from markupsafe import escape

from dispatcher.content.context import one_line
from dispatcher.content.folder import meta_of, split_name
from dispatcher.content.links import links_in
from dispatcher.content.locales import closest_locale, normal_locale
from dispatcher.content.plaintext import text_of_html, text_template_of, tidy
from dispatcher.content.samples import sample_contexts
from dispatcher.content.sandbox import Compiled, RenderFailed, TemplateInvalid
from dispatcher.content.sources import Source, default_language, sources_of

_BODY_TAG = re.compile(r"<body\b[^>]*>", re.IGNORECASE)
_PREHEADER = '<div style="display:none;max-height:0;overflow:hidden;mso-hide:all">{{ preheader }}</div>'
#: Links without which a message that names them makes no sense, and what it does with them.
_NEEDED_LINKS = {"confirm_url": "asks to confirm an opt-in", "own_data_url": "opens what we know of somebody"}


@dataclass(frozen=True, slots=True)
class Content:
    """What rendering a template for one contact gave; an SMS is its text alone."""

    subject: str
    preheader: str
    html: str | None
    text: str
    locale: str


@dataclass(frozen=True, slots=True)
class Variant:
    """The files for one language, compiled; `text` is None where the HTML part is converted message by message."""

    locale: str
    subject: Compiled | None
    preheader: Compiled | None
    html: Compiled | None
    text: Compiled | None

    @property
    def files(self) -> set[str]:
        return {part.file for part in (self.subject, self.preheader, self.html, self.text) if part}


class Template:
    """Renders content; safe to share between threads.

    `meta` is what meta.yaml says; raises InvalidDefinition or TemplateInvalid if the files are no template.
    """

    def __init__(self, channel: str, name: str, files: Mapping[str, str]) -> None:
        self.channel, self.name = channel, name
        self.meta = meta_of(files)
        self._files = dict(files)
        self._default = default_language(files)
        sources = sources_of(files)
        self._by_part: dict[str, dict[str | None, str]] = {"subject": {}, "preheader": {}, "html": {}, "text": {}}
        for name in sources:
            part, locale, kind = _split(name)
            key = part if part != "body" else "html" if kind == "html" else "text"
            self._by_part[key][locale] = name
        if not self._by_part["html"].get(None) and not self._by_part["text"].get(None):
            raise TemplateInvalid("body.html" if channel == "email" else "body.txt", 1, "is missing")
        self._compiled = {
            name: Compiled(source.file, self._text(source), html=name.endswith(".html"), places=source.places)
            for name, source in sources.items()
        }
        self._variants: dict[str, Variant] = {}

    def _text(self, source: Source) -> str:
        """Return the text to compile: with the hidden preheader, unless the HTML places it itself."""
        text = source.text
        if not source.file.endswith(".html") or not self._by_part["preheader"] or "preheader" in text:
            return text
        tag = _BODY_TAG.search(text)
        place = tag.end() if tag else 0
        return text[:place] + _PREHEADER + text[place:]

    @property
    def locales(self) -> tuple[str, ...]:
        """The languages there is a body in, the default one first."""
        others = {locale for part in ("html", "text") for locale in self._by_part[part] if locale}
        return (self._default, *sorted(others - {self._default}))

    @property
    def variables(self) -> frozenset[str]:
        """The top-level names the files use, like `contact` and `data`."""
        return frozenset().union(*(compiled.variables for compiled in self._compiled.values()))

    @cached_property
    def links(self) -> tuple[str, ...]:
        """The http(s) links that stand in the files with nothing filled in, each once."""
        return tuple(dict.fromkeys(link.url for link in links_in(self._files) if link.is_constant))

    def render(self, context: Mapping[str, Any], locale: str | None) -> Content:
        """Return the content in the closest language; `context` is `message_context`'s.

        Raises RenderFailed if a variable is not known, a limit is reached, or a marketing message lacks its way out.
        """
        content = self.compose(context, locale)
        self._check(content, context)
        return content

    def compose(self, context: Mapping[str, Any], locale: str | None) -> Content:
        """Return the content without asking whether it may be sent; raises RenderFailed."""
        variant = self.variant(locale)
        values = {**context, "locale": variant.locale}
        preheader = one_line(variant.preheader.render(values)) if variant.preheader else ""
        values["preheader"] = preheader
        subject = one_line(variant.subject.render(values)) if variant.subject else ""
        html = variant.html.render(values) if variant.html else None
        text = tidy(variant.text.render(values)) if variant.text else text_of_html(html or "")
        if self.channel == "sms":
            text = unicodedata.normalize("NFC", text).strip()  # a letter and its accent cost one unit, not two
        return Content(subject, preheader, html, text, variant.locale)

    def _check(self, content: Content, context: Mapping[str, Any]) -> None:
        """Raise RenderFailed rather than return what must not be sent."""
        if not content.text.strip():
            raise RenderFailed(f"{self.channel}/{self.name} renders to nothing")
        if self.channel == "email" and not content.subject:
            raise RenderFailed(f"{self.channel}/{self.name} has an empty subject")
        for name, what in _NEEDED_LINKS.items():
            if name in self.variables and (not context[name] or context[name] not in content.text):
                raise RenderFailed(f"{self.channel}/{self.name} {what}, and has no link for it")
        if self.meta.class_ != "marketing":
            return
        url, address = context["unsubscribe_url"], context["shop"]["postal_address"]
        if not url or url not in content.text or (content.html is not None and str(escape(url)) not in content.html):
            raise RenderFailed(f"{self.channel}/{self.name} has no unsubscribe link; use unsubscribe_url in every body")
        if self.channel == "email" and (
            not address
            or address not in " ".join(content.text.split())
            or (content.html is not None and str(escape(address)) not in content.html)
        ):
            raise RenderFailed(
                f"{self.channel}/{self.name} has no postal address; use shop.postal_address in every body"
            )

    def variant(self, locale: str | None) -> Variant:
        """Return the files for the closest language."""
        wanted = normal_locale(locale or "")
        found = self._variants.get(wanted)
        if found is None:
            if len(self._variants) > 200:  # more languages than any shop writes in: odd tags of contacts
                self._variants.clear()
            found = self._variants[wanted] = self._make_variant(wanted)
        return found

    def _make_variant(self, wanted: str) -> Variant:
        """Return the files for a language: each part its own closest variant, but the text that of the HTML."""
        body = self._by_part["html"] or self._by_part["text"]
        chosen = closest_locale(wanted, [locale for locale in body if locale])
        html = self._file("html", chosen)
        return Variant(
            locale=chosen or self._default,
            subject=self._closest("subject", wanted),
            preheader=self._closest("preheader", wanted),
            html=html,
            text=self._file("text", chosen) or (self._converted(html) if html else None),
        )

    def _file(self, part: str, locale: str | None) -> Compiled | None:
        file = self._by_part[part].get(locale)
        return self._compiled[file] if file else None

    def _closest(self, part: str, wanted: str) -> Compiled | None:
        return self._file(part, closest_locale(wanted, [locale for locale in self._by_part[part] if locale]))

    def _converted(self, html: Compiled) -> Compiled | None:
        """Return the HTML file as a text template, None unless both say the same for every sample."""
        source = text_template_of(html.source)
        if source is None:
            return None
        try:
            text = Compiled(html.file, source, html=False)
            for values in sample_contexts(locale="en"):
                if text_of_html(html.render(values)).split() != text.render(values).split():
                    return None
        except (TemplateInvalid, RenderFailed):
            return None
        return text


def _split(file: str) -> tuple[str, str | None, str]:
    try:
        return split_name(file)
    except ValueError as error:
        raise TemplateInvalid(file, 1, str(error)) from None
