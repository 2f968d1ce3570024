"""How often a provider's records are asked about what is in doubt: a few at a time, each again later and later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

from dispatcher.doubt import Doubtful
from dispatcher.providers.http import Answer, Exchange, retry_wait
from dispatcher.providers.protocol import boot_seconds

#: A record may lag some seconds behind; what it does not show after an hour it hardly ever will.
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=20), timedelta(hours=1)
#: The account may not read the records: that changes when somebody changes it.
_NOT_OURS_PAUSE = timedelta(hours=1)
_AWAY_PAUSE = timedelta(minutes=1)


class Askings:
    """Whom to ask about next.  Kept in this process only: another one asks again, which does no harm."""

    def __init__(self, at_once: int, *, now: Callable[[], float] = boot_seconds) -> None:
        self._at_once = at_once
        self._now = now
        self._lock = threading.Lock()
        self._asked: dict[UUID, tuple[float, int]] = {}  # when again, and how often it was asked
        self._rests_until = 0.0

    def next(self, doubtful: Sequence[Doubtful]) -> list[Doubtful]:
        """Return those whose turn it is, and count them as asked."""
        with self._lock:
            now = self._now()
            if now < self._rests_until:
                return []
            wanted = {one.message_id for one in doubtful}
            self._asked = {number: asked for number, asked in self._asked.items() if number in wanted}
            due = [one for one in doubtful if self._asked.get(one.message_id, (0.0, 0))[0] <= now]
            for one in due[: self._at_once]:
                times = self._asked.get(one.message_id, (0.0, 0))[1]
                pause = min(_FIRST_PAUSE * 2 ** min(times, 12), _LONGEST_PAUSE)
                self._asked[one.message_id] = (now + pause.total_seconds(), times + 1)
            return due[: self._at_once]

    def is_at_rest(self) -> bool:
        """Whether the last answer was one that makes asking again useless for a while."""
        with self._lock:
            return self._now() < self._rests_until

    def heed(self, exchange: Exchange) -> Answer | None:
        """Return an answer that says something; else rest as long as it takes to be worth asking again."""
        if isinstance(exchange, Answer) and exchange.status == 200 and exchange.whole:
            return exchange
        pause = _AWAY_PAUSE
        if isinstance(exchange, Answer):
            if exchange.status == 429:
                pause = retry_wait(exchange.headers)
            elif exchange.status in (401, 402, 403, 404):
                pause = _NOT_OURS_PAUSE
        with self._lock:
            self._rests_until = max(self._rests_until, self._now() + pause.total_seconds())
        return None
