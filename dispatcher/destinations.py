"""Where a link may lead, and what is added to it.  Values only.

A click is answered with a redirect only to a host that the shop named itself: in `[links] allowed_hosts`, or, where it
names none, the domain it sends from and everything below that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_plus

from dispatcher.definitions import Shop, Utm

#: Scheme, authority, rest; no user name, no backslash (browsers read it as a slash), nothing that cannot be printed.
_URL = re.compile(r"(https?)://([^\s/?#@\\]+)([/?#][^\x00-\x1f\x7f]*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::(\d{1,5}))?")
_USUAL_PORTS = {"http": "80", "https": "443"}
#: Everything of ASCII that may stand in a URL as it is, and the percent sign: what is encoded stays as it was encoded.
_KEPT = "!#$%&'()*+,/:;=?@[]~"
LONGEST_URL = 2_000


@dataclass(frozen=True, slots=True)
class Destination:
    """An absolute http(s) URL, in ASCII; `host` is in lower case, with its port where that is not the usual one."""

    url: str
    host: str


def destination_of(url: str) -> Destination | None:
    """Return where a link leads as a browser would take it; None for what is no plain http(s) URL of a host."""
    found = _URL.fullmatch(url.strip())
    if found is None:
        return None
    scheme, authority, rest = found[1].lower(), found[2].lower(), found[3] or ""
    if not authority.isascii():
        name, colon, port = authority.partition(":")
        try:
            authority = name.encode("idna").decode("ascii") + colon + port
        except UnicodeError:
            return None
    host = _AUTHORITY.fullmatch(authority)
    if host is None or ".." in host[1]:
        return None
    port = "" if host[2] in (None, _USUAL_PORTS[scheme]) else f":{host[2]}"
    try:
        whole = f"{scheme}://{authority}{quote(rest, safe=_KEPT)}"
    except UnicodeEncodeError:  # half a surrogate pair
        return None
    return Destination(whole, host[1] + port) if len(whole) <= LONGEST_URL else None


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The hosts that links may lead to: `shop.example` is that host, `*.shop.example` every host below it."""

    patterns: tuple[str, ...]

    def allow(self, host: str) -> bool:
        return any(host == pattern or (pattern[0] == "*" and host.endswith(pattern[1:])) for pattern in self.patterns)

    def __str__(self) -> str:
        return ", ".join(self.patterns)


def allowed_hosts(shop: Shop) -> AllowedHosts:
    """Return the shop's own list, else the domain it sends from with everything below it."""
    if shop.links.allowed_hosts is not None:
        return AllowedHosts(shop.links.allowed_hosts)
    domain = shop.shop.from_email.rpartition("@")[2].lower()
    return AllowedHosts((domain, f"*.{domain}"))


def with_utm(url: str, words: Iterable[tuple[str, str]]) -> str:
    """Return the URL with these parameters behind its query; one that it has already stays the author's.

    Query and fragment stay byte for byte as they were.
    """
    base, mark, fragment = url.partition("#")
    path, _, query = base.partition("?")
    present = {unquote_plus(pair.partition("=")[0]) for pair in query.split("&")}
    added = "&".join(f"{name}={quote(value, safe='')}" for name, value in words if name not in present)
    if not added:
        return url
    between = "&" if query and not query.endswith("&") else ""
    return f"{path}?{query}{between}{added}{mark}{fragment}"


def utm_words(utm: Utm | None, *, name: str, channel: str) -> tuple[tuple[str, str], ...]:
    """Return the UTM parameters of a campaign or trigger called `name`; none without `utm`."""
    if utm is None:
        return ()
    words: Mapping[str, str] = {
        "utm_source": utm.source,
        "utm_medium": utm.medium or channel,
        "utm_campaign": utm.campaign or name,
    }
    return tuple(words.items())
