"""How much this process has lately handed to each provider: where to begin for an account that has no rate."""

from __future__ import annotations

import threading
from collections import deque

from dispatcher.providers.protocol import boot_seconds

_WINDOW_SECONDS = 5.0


class Meter:
    """Counts units handed over in the last few seconds.  Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, deque[tuple[float, int]]] = {}

    def count(self, provider: str, units: int) -> None:
        with self._lock:
            counts = self._counts.setdefault(provider, deque())
            counts.append((boot_seconds(), units))
            self._forget(counts)

    def per_second(self, provider: str) -> float:
        """Return units a second, of this process alone."""
        with self._lock:
            counts = self._counts.get(provider, deque())
            self._forget(counts)
            if not counts:
                return 0.0
            return sum(units for _, units in counts) / max(boot_seconds() - counts[0][0], 1.0)

    @staticmethod
    def _forget(counts: deque[tuple[float, int]]) -> None:
        while counts and counts[0][0] < boot_seconds() - _WINDOW_SECONDS:
            counts.popleft()
