"""The links of a message: found in a template's source, and written anew in what it became for one person.

A link is the `href` of a tag that can be pressed (Outlook's `v:` shapes included, which stand in comments), or what
looks like `https://...` in a text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from jinja2 import TemplateSyntaxError

from dispatcher.content.sandbox import tokens
from dispatcher.content.sources import sources_of

#: Stands for every character of a Jinja2 piece, so that what is found in the marked source stands there in the source.
FILLED_IN = "\ue000"

# Attributes in quotes are passed over whole: a > in one does not end the tag.  Possessive, and never past the next tag,
# so that no text is slow.
_TAG = re.compile(r"""<(?:a|area|v:[a-z]+)\s(?:[^<>"']|"[^"]*"|'[^']*')*+>""", re.IGNORECASE)
_HREF = re.compile(r"""(\shref\s*=\s*)(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_IN_TEXT = re.compile(r"""https?://[^\s<>"]+""", re.IGNORECASE)
_AFTER_A_LINK = ".,;:!?)]}'…»”’"
_PRESSED = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WrittenLink:
    """A link as it stands in a file of a template."""

    file: str
    line: int
    url: str  #: with FILLED_IN for what rendering fills in
    source: str  #: as it is written

    @property
    def is_constant(self) -> bool:
        return FILLED_IN not in self.url


def links_in(files: Mapping[str, str]) -> Iterator[WrittenLink]:
    """Yield the http(s) links of a template, and those that begin with something filled in, each once."""
    yielded = set()
    for name, source in sorted(sources_of(files).items()):
        marked = _marked(source.text)
        found = _hrefs(marked) if name.endswith(".html") else _in_text(marked)
        for start, end, url in found:
            link = WrittenLink(*source.place(start), url, source.text[start:end])
            if (_PRESSED.match(url) or url.startswith(FILLED_IN)) and link not in yielded:
                yielded.add(link)
                yield link


def _marked(source: str) -> str:
    """Return the source with its Jinja2 pieces covered up, as long as before; an empty text if it is no template."""
    covered: list[str] = []
    inside = False
    try:
        for _, kind, text in tokens(source):
            inside = inside or kind.endswith("_begin")
            covered.append(FILLED_IN * len(text) if inside else text)
            inside = inside and not kind.endswith("_end")
    except TemplateSyntaxError:
        return ""
    return "".join(covered)


def _hrefs(text: str) -> Iterator[tuple[int, int, str]]:
    for tag in _TAG.finditer(text):
        if found := _HREF.search(tag[0]):
            group = found.lastindex or 2
            start = tag.start() + found.start(group)
            yield start, start + len(found[group]), html.unescape(found[group]).strip()


def _in_text(text: str) -> Iterator[tuple[int, int, str]]:
    for found in _IN_TEXT.finditer(text):
        url = found[0].rstrip(_AFTER_A_LINK)
        yield found.start(), found.start() + len(url), url


def rewritten_html(text: str, written: Callable[[str], str | None]) -> str:
    """Return the HTML with each link as `written` says; None leaves it byte for byte as it is."""
    parts: list[str] = []
    done = 0
    for tag in _TAG.finditer(text):
        found = _HREF.search(text, tag.start(), tag.end())
        if found is None:
            continue
        url = html.unescape(found[found.lastindex or 2]).strip()
        new = written(url) if _PRESSED.match(url) else None
        if new is not None:
            parts += (text[done : found.end(1)], '"', html.escape(new), '"')
            done = found.end()
    return "".join((*parts, text[done:]))


def rewritten_text(text: str, written: Callable[[str], str | None]) -> str:
    """Return the text with each link as `written` says; None leaves it as it is."""

    def link(found: re.Match[str]) -> str:
        url = found[0].rstrip(_AFTER_A_LINK)
        new = written(url)
        return found[0] if new is None else new + found[0][len(url) :]

    return _IN_TEXT.sub(link, text)
