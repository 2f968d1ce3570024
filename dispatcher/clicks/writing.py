"""The links of one run's messages, as they are written into each of them.

Only links to allowed hosts are touched.  Never touched: the ways out and in (unsubscribe, preferences, confirmation),
`mailto:`, `tel:`, and the links of security messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dispatcher.content import Content, Template
from dispatcher.content.links import rewritten_html, rewritten_text
from dispatcher.definitions import Shop
from dispatcher.destinations import AllowedHosts, allowed_hosts, destination_of, utm_words, with_utm
from dispatcher.runs import Run
from dispatcher.tokens import ClickedLink, ClickTokens, click_url

#: In every preview: nothing is behind it, since nothing was sent.
PREVIEW = "preview"
#: Of one message: what a click's number may be, and more than any mail has.
MOST_LINKS = 1_000
#: Unsubscribe, preferences, confirmation, own data, click.
_OURS = ("/u/", "/p/", "/d/", "/m/", "/c/")


@dataclass(frozen=True, slots=True)
class Written:
    """A message with its links written, and the destinations that are its own alone, by number."""

    content: Content
    personal: Mapping[int, str]


@dataclass(slots=True)
class LinkWriter:
    """Writes the links of the messages of one run; `constant` numbers the destinations that all of them share."""

    public_url: str
    hosts: AllowedHosts
    utm: tuple[tuple[str, str], ...] = ()
    tokens: ClickTokens | None = None  #: None: clicks are not counted
    constant: Mapping[str, int] = field(default_factory=dict)
    _final: dict[str, str | None] = field(default_factory=dict)  # of the template's own links: where each leads

    @property
    def is_idle(self) -> bool:
        """Whether every link stays as it is."""
        return self.tokens is None and not self.utm

    def final(self, url: str) -> str | None:
        """Return where a link leads with its UTM parameters; None for one that is none of the shop's."""
        if any(url.startswith(self.public_url + path) for path in _OURS):
            return None
        destination = destination_of(url)
        if destination is None or not self.hosts.allow(destination.host):
            return None
        return with_utm(destination.url, self.utm)

    def know(self, urls: tuple[str, ...]) -> None:
        """Look at the template's own links once, not with every message."""
        self._final = {url: self.final(url) for url in urls}

    @property
    def shared(self) -> tuple[str, ...]:
        """Where the template's own links lead, in order, each place once."""
        return tuple(dict.fromkeys(url for url in self._final.values() if url is not None))

    def write(self, content: Content, tracked_id: int | None) -> Written:
        """Return the message with its links; `tracked_id` is its number, None where clicks are not counted."""
        if self.is_idle:
            return Written(content, {})
        links = _LinksOfOne(self, tracked_id)
        html = content.html and rewritten_html(content.html, links.written)
        text = rewritten_text(content.text, links.written)
        return Written(replace(content, html=html, text=text), links.personal)


class _LinksOfOne:
    """The links of one message while it is written; the same destination has the same link everywhere in it."""

    def __init__(self, writer: LinkWriter, tracked_id: int | None) -> None:
        self._writer, self._tracked_id = writer, tracked_id
        self._known: dict[str, str | None] = {}
        self.personal: dict[int, str] = {}

    def written(self, url: str) -> str | None:
        known = self._known
        if url not in known:
            known[url] = self._write(url)
        return known[url]

    def _write(self, url: str) -> str | None:
        writer = self._writer
        final = writer._final[url] if url in writer._final else writer.final(url)
        if final is None:
            return None
        if writer.tokens is None:
            return None if final == url else final
        if self._tracked_id is None:
            return f"{writer.public_url}/c/{PREVIEW}"
        number = writer.constant.get(final)
        if number is None:
            number = len(writer.constant) + len(self.personal)
            if number >= MOST_LINKS:
                return final
            self.personal[number] = final
        return click_url(writer.public_url, writer.tokens, ClickedLink(self._tracked_id, number))


def writer_for(run: Run, template: Template, shop: Shop, public_url: str, tokens: ClickTokens) -> LinkWriter:
    """Return what writes the links of a run's messages; where clicks are counted, `tracked.prepare` makes it ready."""
    says = run.campaign or run.trigger
    hosts = allowed_hosts(shop)
    if says is None or run.class_ == "security":
        return LinkWriter(public_url, hosts)
    utm = utm_words(says.utm, name=run.name, channel=run.channel)
    writer = LinkWriter(public_url, hosts, utm, tokens if says.track_clicks else None)
    if not writer.is_idle:
        writer.know(template.links)
    return writer
