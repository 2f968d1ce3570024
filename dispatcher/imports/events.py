"""Events from a file: JSON lines, one event each, or order lines as CSV with a map.

Streaming and safe to repeat: what is recorded already stays as it is, so an import that was cut short is simply run
again.  A bad line is set aside with its number and the reason, and the others go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine

from dispatcher.clock import read_now
from dispatcher.errors import Refused
from dispatcher.event_json import AHEAD, InvalidEvent, load_event
from dispatcher.events import Event, record_events
from dispatcher.imports import order_file
from dispatcher.imports.json_lines import LONGEST_LINE, JsonLines
from dispatcher.imports.mapping import Mapping
from dispatcher.imports.order_file import Reject
from dispatcher.imports.rejects import Rejects
from dispatcher.keys import KeyRing
from dispatcher.triggers.arrivals import Outcome, Starting

#: One transaction: what a bulk writer may hold locked, and what it may hold in memory.
CONTACTS_A_PAGE = 500
EVENTS_A_PAGE = 2_000
ITEMS_A_PAGE = 10_000

#: Called with (done, whole): bytes, of which one half is reading and the other recording if a file is read twice.
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class EventReport:
    """What became of the lines of a file, and of the events they told."""

    read: int = 0  # lines, but for blank ones
    new: int = 0
    same: int = 0
    refused: int = 0  # the key is recorded with another body, or the contact was erased
    items: int = 0  # of the new events
    rejected: int = 0  # lines that could not be read
    left_out: Counter[str] = field(default_factory=Counter)  # lines the map leaves out, by its reasons
    contacts_created: int = 0
    messages_started: int = 0  # by triggers
    rejects_file: Path | None = None  # with the rejected lines and the refused events, if there are any


def import_events(
    database: Engine,
    key_ring: KeyRing,
    path: Path,
    *,
    mapping: Mapping | None = None,
    rebase: datetime | None = None,
    rejects: Path | None = None,
    progress: Progress | None = None,
    triggers: bool = True,
) -> EventReport:
    """Record the events of a file; return what became of them.

    With `triggers`, those whose message would be due in the last hour or later start it; times that `rebase` makes up
    start nothing.

    `rebase` shifts all times so that the newest event is then.  What is set aside goes to `rejects`, a line each.
    """
    with database.connect() as connection:
        now = read_now(connection)
    if rebase is not None and rebase > now + AHEAD:
        raise Refused("events cannot be rebased into the future")
    with Rejects(rejects) as rejected:
        starting = Starting.RECENT if triggers and rebase is None else Starting.NOTHING
        reading = _Reading(path, now, rebase, rejected, progress or _unseen, starting)
        if mapping is None:
            reading.refuse_csv()
            _record(database, key_ring, reading.json_events(), reading)
        else:
            with database.connect() as staging:
                _record(database, key_ring, reading.order_events(staging, mapping), reading)
    reading.report.rejects_file = rejected.written
    return reading.report


def _record(database: Engine, key_ring: KeyRing, events: Iterable[Event], reading: _Reading) -> None:
    """Record the events, page by page, each in a transaction of its own."""
    for page in _pages(events):
        with database.begin() as connection:
            recorded = record_events(connection, key_ring, page, starting=reading.starting)
        report = reading.report
        report.new += recorded.new
        report.same += recorded.same
        report.refused += len(recorded.refused)
        report.items += recorded.items
        report.contacts_created += recorded.contacts_created
        report.messages_started += sum(step.outcome is Outcome.STARTED for step in recorded.steps)
        for refusal in recorded.refused:
            reading.rejects.add(refusal.event.line or 0, refusal.reason)


def _pages(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Yield the events in pages that stay within every bound."""
    page: list[Event] = []
    contacts: set[str] = set()
    items = 0
    for event in events:
        page.append(event)
        contacts.add(event.contact)
        items += len(event.items)
        if len(page) >= EVENTS_A_PAGE or len(contacts) >= CONTACTS_A_PAGE or items >= ITEMS_A_PAGE:
            yield page
            page, contacts, items = [], set(), 0
    if page:
        yield page


@dataclass(slots=True)
class _Reading:
    """One file on its way in."""

    path: Path
    now: datetime
    rebase: datetime | None
    rejects: Rejects
    progress: Progress
    starting: Starting
    report: EventReport = field(default_factory=EventReport)

    def refuse_csv(self) -> None:
        if ".csv" in self.path.suffixes:
            raise Refused(f"{self.path.name} is a CSV file: say with --map FILE.yaml how its columns become events")

    def reject(self, line: int, reason: str) -> None:
        self.report.rejected += 1
        self.rejects.add(line, reason)

    def json_events(self) -> Iterator[Event]:
        """Yield the events of JSON lines; to know the newest one, a file to be rebased is read twice."""
        if self.rebase is None:
            yield from self._json_events(self.reject, self.progress)
            return
        newest = max(
            (e.occurred_at for e in self._json_events(_ignore, lambda done, whole: self.progress(done, 2 * whole))),
            default=self.rebase,
        )
        events = self._json_events(self.reject, lambda done, whole: self.progress(whole + done, 2 * whole))
        yield from _shifted(events, self.rebase - newest)

    def _json_events(self, reject: Reject, progress: Progress) -> Iterator[Event]:
        self.report.read = 0
        with JsonLines(self.path) as lines:
            for number, line in lines:
                self.report.read += 1
                if line is None:
                    reject(number, f"longer than {LONGEST_LINE:,} bytes")
                    continue
                try:
                    yield load_event(line, now=self.now, line=number)
                except InvalidEvent as error:
                    reject(number, str(error))
                if number % 1_000 == 0:
                    progress(lines.position, lines.size)
            progress(lines.size, lines.size)

    def order_events(self, staging: Connection, mapping: Mapping) -> Iterator[Event]:
        """Yield the events that the lines of a CSV make."""
        lines, size = order_file.stage(
            staging, self.path, mapping, now=self.now, left_out=self.report.left_out, reject=self.reject,
            progress=lambda done, whole: self.progress(done, 2 * whole),
        )  # fmt: skip
        self.report.read = lines
        newest = order_file.newest(staging)
        events = order_file.gathered(staging, mapping.source)
        if self.rebase is not None and newest is not None:
            events = _shifted(events, self.rebase - newest)
        done = 0
        for event in events:
            yield event
            done += len(event.items)
            self.progress(size + size * done // max(lines, 1), 2 * size)
        self.progress(2 * size, 2 * size)


def _shifted(events: Iterable[Event], by: timedelta) -> Iterator[Event]:
    return (replace(event, occurred_at=event.occurred_at + by) for event in events)


def _unseen(done: int, whole: int) -> None:
    """For whoever does not want to see it."""


def _ignore(line: int, reason: str) -> None:
    """For the first of two readings: the second one reports."""
