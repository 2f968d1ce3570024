"""How many links that do not work one client may try before the answer gets short.

Only the answer to a token that is none is held back: whether a token is ours is known before this is asked, so a link
that works always works, whoever has the same address.  Guessing is hopeless anyway (the shortest signature has 80
bits); this keeps it from costing us pages.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

AT_ONCE = 300
A_SECOND = 5.0
MOST_CLIENTS = 10_000


@dataclass(slots=True)
class BadLinks:
    """A bucket of tokens for each client; the one longest unseen makes room for a new one."""

    now: Callable[[], float] = time.monotonic
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def may_try(self, client: str) -> bool:
        """Whether this client may still get the page for a link that does not work; counts this one."""
        at, key = self.now(), _network(client)
        left, since = self._buckets.pop(key, (float(AT_ONCE), at))
        left = min(AT_ONCE, left + (at - since) * A_SECOND)
        self._buckets[key] = (max(left - 1, 0.0), at)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return left >= 1


def _network(client: str) -> str:
    """Return what one client cannot change of its address: all of IPv4, the first 64 bits of IPv6."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return ""
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))
