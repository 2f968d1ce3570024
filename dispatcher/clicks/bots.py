"""Was it hardly a person who clicked?  Values only.

Mail scanners, link previews and prefetching browsers open links, too.  They are answered like everybody, and their
clicks are kept apart.  Nothing here needs, or keeps, an address of the network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

#: A person has to see the message first.
TOO_SOON = timedelta(seconds=5)
#: Nobody opens two links of one message in this time.
BURST = timedelta(seconds=1)

HEAD, PREFETCH, AGENT, SOON, TOGETHER = "head", "prefetch", "agent", "soon", "together"

_PREFETCHES = re.compile(r"prefetch|prerender|preview", re.IGNORECASE)
# What names itself: scanners of mail, crawlers, link previews of messengers, programs.
_AGENTS = re.compile(
    r"(?<!cu)bot\b|crawl|spider|slurp|scan(?:ner|ning)|preview|barracuda|proofpoint|mimecast|symantec|messagelabs|"
    r"fireeye|trend ?micro|sophos|forcepoint|zscaler|cloudmark|virustotal|safelinks|office365|microsoft office|"
    r"googleimageproxy|facebookexternalhit|facebot|whatsapp|telegram|slack|skypeuri|discord|linkedin|viber|"
    r"headless|phantomjs|puppeteer|playwright|selenium|"
    r"curl|wget|python|aiohttp|httpx|java/|go-http|ruby|perl|libwww|okhttp|axios|node-fetch|undici|powershell|winhttp",
    re.IGNORECASE,
)
_LONGEST_LOOKED_AT = 500


@dataclass(frozen=True, slots=True)
class Look:
    """One request for a link, as far as it says who asks."""

    method: str
    user_agent: str
    purposes: tuple[str, ...] = ()  #: Sec-Purpose, Purpose, X-Purpose, X-Moz


def bot_reason(look: Look, *, clicked_at: datetime, arrived_at: datetime | None) -> str | None:
    """Return why this was hardly a person, None if nothing speaks against one.

    `arrived_at` is when the message was handed over or delivered, whichever was later; None: it is still under way.
    """
    if look.method == "HEAD":
        return HEAD
    if any(_PREFETCHES.search(purpose[:_LONGEST_LOOKED_AT]) for purpose in look.purposes):
        return PREFETCH
    agent = look.user_agent[:_LONGEST_LOOKED_AT].strip()
    if not agent or _AGENTS.search(agent):
        return AGENT
    if arrived_at is None or clicked_at - arrived_at < TOO_SOON:
        return SOON
    return None
