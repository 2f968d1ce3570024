"""What a process counts while it works and no row of the ledger says: how long providers take, what was refused.

Counted in memory, handed in every few seconds by adding to the rows of `figure`; so sums belong to the house, only
rise, and outlive whoever counted.  A process that is killed takes its last seconds with it: nothing that is decided
by, and nothing that the ledger could say, is counted here.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping

from sqlalchemy import Connection, Engine, text

#: Upper bounds of the classes of a duration, in seconds; the last class has none.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 45.0)
HAND_IN_SECONDS = 2.0

Key = tuple[str, tuple[str, ...]]  # name, labels

_ADD = text("""
INSERT INTO figure (name, labels, value) VALUES (:name, :labels, :value)
ON CONFLICT (name, labels) DO UPDATE SET value = figure.value + excluded.value
""")


class Figures:
    """What this process has counted and not yet handed in.  Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: dict[Key, float] = defaultdict(float)

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        with self._lock:
            self._counted[name, labels] += by

    def time(self, name: str, *labels: str, seconds: float) -> None:
        """Count a duration in its class (the last label is the class's upper bound) and in the sum of all."""
        place = bisect_left(BOUNDS, seconds)
        bound = str(BOUNDS[place]) if place < len(BOUNDS) else "+Inf"
        with self._lock:
            self._counted[name, (*labels, bound)] += 1
            self._counted[f"{name}_sum", labels] += max(seconds, 0.0)

    def hand_in(self, transaction: Callable[[Mapping[Key, float]], None]) -> None:
        """Give what was counted to `transaction`; if that fails it is kept for the next time."""
        with self._lock:
            counted, self._counted = self._counted, defaultdict(float)
        if not counted:
            return
        try:
            transaction(counted)
        except BaseException:
            with self._lock:
                for key, value in counted.items():
                    self._counted[key] += value
            raise


def hand_in(database: Engine, figures: Figures) -> None:
    """Add what was counted to the house's sums, in one transaction of its own."""

    def add(counted: Mapping[Key, float]) -> None:
        rows = [  # in the order of the key, so that two who do so at once wait for each other and not in a circle
            {"name": name, "labels": list(labels), "value": value} for (name, labels), value in sorted(counted.items())
        ]
        with database.begin() as connection:
            connection.execute(_ADD, rows)

    figures.hand_in(add)


def read(connection: Connection) -> dict[Key, float]:
    """Return the sums of the house."""
    rows = connection.execute(text("SELECT name, labels, value FROM figure"))
    return {(row.name, tuple(row.labels)): row.value for row in rows}
