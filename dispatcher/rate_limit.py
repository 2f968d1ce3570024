"""How many requests an API key may make, counted for all web rooms together.

The count is in the broker: one short call, no row of the ledger that requests would queue for.  It is a leaky bucket
(GCRA) that holds a minute's worth: a key that was quiet may make all of them at once, and then one for each that leaks
out.  What is lost with the broker is a minute's count, and while it is away each room counts for itself: the limit
protects us from a program gone wild, and must never be why an order confirmation is not taken.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from math import ceil
from typing import Protocol

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatcher.errors import DispatcherError

log = structlog.get_logger()

WINDOW_SECONDS = 60
_PATIENCE_SECONDS = 0.2
#: After the broker did not answer it is not asked again for this long.
_LEFT_ALONE_SECONDS = 5.0
_PREFIX = "dispatcher:requests:"

# KEYS: the bucket; ARGV: microseconds a request takes to leak out, how many it holds.  Kept is when it will be empty.
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local empty_at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0'))
local leak, full = tonumber(ARGV[1]), ARGV[1] * ARGV[2]
local over = empty_at + leak - now - full
if over > 0 then return {0, math.ceil(over), math.ceil(empty_at - now)} end
empty_at = empty_at + leak
redis.call('SET', KEYS[1], string.format('%.0f', empty_at), 'PX', math.ceil((empty_at - now) / 1000))
return {1, 0, math.ceil(empty_at - now)}
"""


class TooMany(DispatcherError):  # noqa: N818 - named for what it says, like the rest of its family
    """The key has made all the requests it may make for now."""

    def __init__(self, allowance: Allowance) -> None:
        super().__init__(f"this key makes {allowance.limit} requests a minute; try again in {allowance.wait_seconds} s")
        self.allowance = allowance


@dataclass(frozen=True, slots=True)
class Allowance:
    """Where a key stands after a request."""

    limit: int  #: requests in WINDOW_SECONDS
    left: int  #: how many could follow at once
    reset_seconds: int  #: until it has all of them again
    wait_seconds: int = 0  #: of a refused request: how long to wait

    @property
    def headers(self) -> dict[str, str]:
        """Return it as draft-ietf-httpapi-ratelimit-headers has it; Retry-After of RFC 9110 if it was refused."""
        shown = {
            "RateLimit-Policy": f'"key";q={self.limit};w={WINDOW_SECONDS}',
            "RateLimit": f'"key";r={self.left};t={self.reset_seconds}',
        }
        return {**shown, "Retry-After": str(self.wait_seconds)} if self.wait_seconds else shown


class RateLimit(Protocol):
    def take(self, key_id: int, limit: int) -> Allowance:
        """Count one request; TooMany if there is none left."""


@dataclass(slots=True)
class LocalRateLimit:
    """Counts for this process alone."""

    _empty_at: dict[int, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, key_id: int, limit: int) -> Allowance:
        leak = WINDOW_SECONDS / limit
        with self._lock:
            now = time.monotonic()
            empty_at = max(now, self._empty_at.get(key_id, 0.0))
            over = empty_at + leak - now - WINDOW_SECONDS
            if over <= 0:
                self._empty_at[key_id] = empty_at = empty_at + leak
        return _allowance(limit, over, empty_at - now)


class SharedRateLimit:
    """Counts in the broker; for this process alone while the broker is away."""

    def __init__(self, broker_url: str) -> None:
        self._client = redis.Redis.from_url(
            broker_url, socket_timeout=_PATIENCE_SECONDS, socket_connect_timeout=_PATIENCE_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        self._take = self._client.register_script(_TAKE)
        self._away_until = 0.0
        self._local = LocalRateLimit()

    def take(self, key_id: int, limit: int) -> Allowance:
        if time.monotonic() < self._away_until:
            return self._local.take(key_id, limit)
        leak = WINDOW_SECONDS * 1_000_000 / limit
        try:
            taken, over, level = self._take(keys=[f"{_PREFIX}{key_id}"], args=[leak, limit])
        except (redis.RedisError, OSError) as error:
            self._away_until = time.monotonic() + _LEFT_ALONE_SECONDS
            log.warning("requests.counted_here", error=type(error).__name__, seconds=_LEFT_ALONE_SECONDS)
            return self._local.take(key_id, limit)
        return _allowance(limit, -1.0 if taken else over / 1_000_000, level / 1_000_000)


def _allowance(limit: int, over: float, level: float) -> Allowance:
    """Return what is left; TooMany if the request came `over` seconds too early."""
    left = max(0, int((WINDOW_SECONDS - level) * limit / WINDOW_SECONDS + 1e-6))
    if over > 0:
        raise TooMany(Allowance(limit, 0, ceil(level), max(1, ceil(over))))
    return Allowance(limit, left, ceil(level))
