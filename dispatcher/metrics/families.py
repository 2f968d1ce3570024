"""Every metric by name: what it says, and from what it is made."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import get_args

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from dispatcher import schema
from dispatcher.feedback.inbox import Source
from dispatcher.figures import BOUNDS, Key
from dispatcher.metrics.counted import Count
from dispatcher.metrics.state import State
from dispatcher.places import TZDATA_VERSION
from dispatcher.rates.circuit import State as Circuit
from dispatcher.rates.rules import LaneName

#: Rooms that register, and so can be counted as alive.
KINDS = ("scheduler", "control", "marketing", "transactional")
_CLASSES = [*map(str, BOUNDS), "+Inf"]


def _gauge(name: str, says: str, labels: Iterable[str], samples: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(f"dispatcher_{name}", says, labels=list(labels))
    for values, value in sorted(samples.items()):
        family.add_metric(values, value)
    return family


def _one(name: str, says: str, value: float) -> Metric:
    return GaugeMetricFamily(f"dispatcher_{name}", says, value=value)


def _counter(name: str, says: str, labels: Iterable[str], samples: Mapping[tuple[str, ...], float]) -> Metric:
    family = CounterMetricFamily(f"dispatcher_{name}", says, labels=list(labels))
    for values, value in sorted(samples.items()):
        family.add_metric(values, value)
    return family


def _by_lane(samples: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    return {(lane,): value for lane, value in samples.items()}


def database_up(is_up: bool) -> Metric:
    return _one("database_up", "1 if the database answered this scrape, else 0 and most metrics are missing.", is_up)


def build_info() -> Metric:
    return InfoMetricFamily(
        "dispatcher_build",
        "What runs here.",
        value={
            "version": version("dispatcher"),
            "schema": schema.newest_revision(),
            "python": platform.python_version(),
            "tzdata": TZDATA_VERSION,
        },
    )


def scrape_seconds(seconds: float) -> Metric:
    return _one("scrape_seconds", "How long this scrape took.", seconds)


def of_count(count: Count) -> Iterator[Metric]:
    """What was counted from the ledger, in one snapshot."""
    yield _gauge(
        "messages",
        "Messages of the ledger by status and reason (of a pending one: why it was put off), at the last count.",
        ("lane", "status", "reason"),
        count.messages,
    )
    lanes = dict.fromkeys(get_args(LaneName), 0.0)
    yield _gauge(
        "lane_due_messages",
        "Messages whose time has come, in runs that may go on, not yet sending, at the last count.",
        ("lane",),
        _by_lane(lanes | dict(count.due)),
    )
    yield _gauge(
        "lane_oldest_due_seconds",
        "For how long the oldest of the due messages is due, at the last count; 0 if none is.",
        ("lane",),
        _by_lane(lanes | dict(count.oldest_due_seconds)),
    )
    yield _counter(
        "unsubscribes",
        "Unsubscribes by their answer: 200 nothing is on the wire, 202 something may be, none: it could not be given.",
        ("answer",),
        {(answer,): number for answer, number in ({"200": 0, "202": 0} | dict(count.unsubscribes)).items()},
    )
    barrier = HistogramMetricFamily(
        "dispatcher_unsubscribe_barrier_seconds", "From an unsubscribe's commit to its answer.", labels=[]
    )
    barrier.add_metric([], _cumulated(count.barrier), count.barrier_seconds)
    yield barrier
    yield _one("count_timestamp_seconds", "When the ledger was counted last.", count.counted_at)
    yield _one("count_seconds", "How long counting the ledger took.", count.seconds)


def of_state(state: State) -> Iterator[Metric]:
    """The house at this moment."""
    yield from _of_lanes(state)
    yield from _of_accounts(state)
    yield _gauge(
        "rooms_alive",
        "Rooms heard of within the last 10 seconds, by kind.",
        ("kind",),
        {(kind,): state.rooms.get(kind, 0) for kind in KINDS},
    )
    if state.clock_silent_seconds is not None:
        yield _one("clock_silent_seconds", "Since the last beat of any clock.", state.clock_silent_seconds)
    yield _one("stopped", "1 while dispatcher stop-all holds everything back.", state.stopped)
    yield _one("clock_offset_seconds", "How far the engine's clock is shifted; only a sandbox's may be.",
               state.clock_offset_seconds)  # fmt: skip
    yield _gauge(
        "runs",
        "Runs of campaigns that are not finished, by state.",
        ("state",),
        {(kind,): state.runs.get(kind, 0) for kind in ("planning", "running", "paused", "cancelled")},
    )
    yield _one("runs_braked", "Runs that paused themselves because too much went wrong.", state.braked)
    yield _one("campaigns_not_fired", "Campaigns that are due and cannot be fired.", state.campaigns_not_fired)
    yield _one("doubtful_messages", "Messages of unknown outcome that are still looked into.", state.doubtful)
    yield _gauge(
        "feedback_inbox_requests",
        "What providers told and nobody has sorted yet; failed: tried at least once; not_understood: kept to look at.",
        ("state",),
        {
            ("waiting",): state.inbox_waiting,
            ("failed",): state.inbox_failed,
            ("not_understood",): state.inbox_not_understood,
        },
    )
    yield _one(
        "feedback_inbox_oldest_seconds",
        "For how long the oldest waits, of those that are not kept to be looked at.",
        state.inbox_oldest_seconds,
    )
    yield _one("replies_to_review", "Texts in free words that somebody must read.", state.reviews)
    yield _one("unsubscribes_waiting", "Unsubscribes that wait for their answer.", state.unsubscribes_waiting)


def _of_lanes(state: State) -> Iterator[Metric]:
    """A lane without a rate has no sample: it goes as fast as its provider takes it."""
    yield _gauge(
        "lane_rate_per_second",
        "The rate a lane is allowed, as configured.",
        ("lane",),
        {(lane.name,): lane.rate_per_second for lane in state.lanes if lane.rate_per_second is not None},
    )
    yield _gauge(
        "lane_rest_seconds",
        "For how much longer a lane rests, because its provider has had enough or refuses the account; 0: at work.",
        ("lane",),
        {(lane.name,): lane.rests.total_seconds() for lane in state.lanes},
    )


def _of_accounts(state: State) -> Iterator[Metric]:
    """An account without a rate has no sample of it; of the warm-up there is none once the sender is warm."""
    yield _gauge(
        "account_rate_per_second",
        "The rate an account at a provider is allowed, as configured, in the provider's unit.",
        ("provider",),
        {(one.name,): one.configured for one in state.accounts if one.configured is not None},
    )
    yield _gauge(
        "account_rate_in_force_per_second",
        "The rate in force: lower than configured for a while after the provider said that it has enough.",
        ("provider",),
        {(one.name,): one.in_force for one in state.accounts if one.in_force is not None},
    )
    yield _gauge(
        "account_circuit",
        "1 for the state that an account's circuit is in; anything but closed: nothing goes but a probe now and then.",
        ("provider", "state"),
        {(one.name, kind): one.circuit == kind for one in state.accounts for kind in get_args(Circuit)},
    )
    yield _gauge(
        "warm_up_messages",
        "Mails of the sender's warm-up today: allowed, and used.",
        ("state",),
        {(kind,): number for kind, number in state.warm_up.items()},
    )


#: Counters of `figures`: name there, what it says, labels.
_COUNTED = (
    ("receipts", "Answers of providers, one for each message handed over.", ("lane", "provider", "outcome")),
    ("http_requests", "Requests the web rooms answered, by route.", ("route", "status")),
    ("webhook_signature_failures", "Requests of providers whose signature was missing or wrong.", ("source",)),
)
#: What is there before it was ever counted: an alert sees no increase from nothing to one.
_AT_FIRST: dict[str, dict[tuple[str, ...], float]] = {
    "webhook_signature_failures": {(source,): 0 for source in get_args(Source)},
}


def of_figures(sums: Mapping[Key, float]) -> Iterator[Metric]:
    """What the processes of the house have counted, all together since the beginning."""
    for name, says, labels in _COUNTED:
        at_first = _AT_FIRST.get(name, {})
        yield _counter(name, says, labels, at_first | {key: value for (of, key), value in sums.items() if of == name})
    family = HistogramMetricFamily(
        "dispatcher_handover_seconds", "How long a provider took for one slice of messages.",
        labels=["lane", "provider"],
    )  # fmt: skip
    for lane, provider in sorted(key for name, key in sums if name == "handover_seconds_sum"):
        classes = {
            key[-1]: value
            for (name, key), value in sums.items()
            if name == "handover_seconds" and key[:2] == (lane, provider)
        }
        total = sums["handover_seconds_sum", (lane, provider)]
        family.add_metric([lane, provider], _cumulated(classes), total)
    yield family


def _cumulated(classes: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the classes as Prometheus has them: each with all below it."""
    total, cumulated = 0.0, []
    for bound in _CLASSES:
        total += classes.get(bound, 0)
        cumulated.append((bound, total))
    return cumulated
