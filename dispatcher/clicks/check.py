"""Links of a template that may not be in it: `template check` and `apply` ask here, before anybody gets it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from dispatcher.content import Finding
from dispatcher.content.context import KNOWN, PERSONAL_FIELDS
from dispatcher.content.folder import shown_path
from dispatcher.content.links import FILLED_IN, WrittenLink, links_in
from dispatcher.destinations import AllowedHosts, destination_of

#: The links that we make ourselves.
_OURS = re.compile(rf"\{{\{{-?\s*(?:{'|'.join(name for name in sorted(KNOWN) if name.endswith('_url'))})\b")
_HOST_IS_WRITTEN_OUT = re.compile(r"https?://[^/?#]+[/?#]", re.IGNORECASE)


_PERSONAL = re.compile(rf"\bcontact\.({'|'.join(PERSONAL_FIELDS)})\b")


def personal_in_links(place: str, files: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a warning for each link that carries a name or an address: it is read wherever the link is."""
    for link in links_in(files):
        if found := _PERSONAL.search(link.source):
            message = f"carries {found[0]} to every server and log on its way; use a number of the shop's own instead"
            yield Finding(shown_path(place, link.file), link.line, message, "warning")


def check_links(place: str, files: Mapping[str, str], hosts: AllowedHosts, because: str) -> Iterator[Finding]:
    """Yield a finding for each link that leads, or may lead, to a host that is not allowed.

    `place` is the template's folder; `because` says why its links are held to the list.
    """
    for link in links_in(files):
        if not _OURS.match(link.source.strip()):
            yield from _check(place, link, hosts, because)


def _check(place: str, link: WrittenLink, hosts: AllowedHosts, because: str) -> Iterator[Finding]:
    file, written = shown_path(place, link.file), link.url.partition(FILLED_IN)[0]
    if not link.is_constant and not _HOST_IS_WRITTEN_OUT.match(written):
        message = "where this link leads shows only when it is sent: its clicks are counted if the host is allowed then"
        yield Finding(file, link.line, message, "warning")
        return
    destination = destination_of(link.url.replace(FILLED_IN, "x"))
    if destination is None:
        yield Finding(file, link.line, "this link cannot be read as https://host/...; clicks on it cannot be counted")
    elif not hosts.allow(destination.host):
        message = f"leads to {destination.host}, and {because}; allowed are {hosts}: add it to [links] allowed_hosts"
        yield Finding(file, link.line, message)
