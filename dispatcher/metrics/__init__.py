"""What /metrics says, for Prometheus: the ledger counted, the house as it stands, and what its processes counted.

Names and labels are few and fixed: lanes, statuses, reasons, providers, kinds of rooms.  No campaign, no contact, no
address: nothing that grows, and nothing of anybody's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dispatcher import figures
from dispatcher.figures import Figures
from dispatcher.metrics import families
from dispatcher.metrics.counted import Counting
from dispatcher.metrics.state import State, read_state

log = structlog.get_logger()


class Metrics:
    """Everything there is to scrape at one web room: the same at each of them, but for what is said of the process."""

    def __init__(self, database: Engine, counted_here: Figures) -> None:
        self._database, self._counted_here = database, counted_here
        self._counting = Counting(database)
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that is asked for, and its content type.

        Without a database there is what is known without: `dispatcher_database_up 0`.
        """
        encode, content_type = choose_encoder(accept)
        registry = CollectorRegistry()
        registry.register(_Once(self._collect))
        return encode(registry), content_type

    def _collect(self) -> Iterator[Metric]:
        began = time.monotonic()
        state = self._read_state()
        yield families.database_up(state is not None)
        yield families.build_info()
        if state is not None:
            yield from families.of_state(state)
            yield from families.of_figures(state.figures)
            newest = self._counting.newest()
            if newest is not None:
                yield from families.of_count(newest)
        yield from self._process.collect()
        yield families.scrape_seconds(time.monotonic() - began)

    def _read_state(self) -> State | None:
        try:
            figures.hand_in(self._database, self._counted_here)
            with self._database.begin() as connection:
                return read_state(connection)
        except SQLAlchemyError as error:
            log.warning("metrics.no_database", error=type(error).__name__)
            return None


class _Once(Collector):
    """A collector for one scrape."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        return self._collect()

    def describe(self) -> list[Metric]:
        return []
