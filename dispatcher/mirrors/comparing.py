"""Once a day: the provider's lists, read whole and held against ours.

What stands there and not here is taken in by the one path of feedback, under its locks, which also looks once more
whether the person has said otherwise since.  What we had taken back is taken off there.  What we want there and is
missing is pushed again.  Nothing is lifted here because it is gone there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial

import structlog
from sqlalchemy import Connection, Engine, text

from dispatcher import clock, db, suppression
from dispatcher.addresses import BadAddress, normal_email
from dispatcher.feedback.codes import enhanced_code, is_vague, speaks_of_the_address
from dispatcher.feedback.recording import record
from dispatcher.feedback.report import Report
from dispatcher.keys import KeyRing
from dispatcher.mirrors import reports
from dispatcher.mirrors.pushing import push_changes
from dispatcher.mirrors.wanted import Standing, candidates, standings_of
from dispatcher.providers.protocol import Entry, MirrorsSuppressions, TheirList, without_addresses

log = structlog.get_logger()

#: What we put there less long ago than this may not be shown yet.
SHOWN_AFTER = timedelta(minutes=15)


class What(StrEnum):
    """How an entry of theirs, or what we want there, stands to the other side."""

    AGREED = "agreed"  #: here and there
    TAKEN_IN = "taken_in"  #: was there only, of somebody we know: suppressed here now
    STRANGER = "stranger"  #: the same, of an address nobody here has: whoever brings it finds it suppressed
    TAKEN_BACK = "taken_back"  #: they said otherwise here since: taken off there
    NOT_WANTED = "not_wanted"  #: we put it there, and do not want it there any more: taken off
    NOT_HARD = "not_hard"  #: a bounce that does not speak of the address: the provider keeps it, we do not
    UNREADABLE = "unreadable"  #: no address that could be anybody's
    MISSING_THERE = "missing_there"  #: here only: pushed again
    CANNOT_BE_NAMED = "cannot_be_named"  #: here only, and nobody has the address in clear any more
    GONE_THERE = "gone_there"  #: they told us of it once, and have it no more: it stays here


#: What is no difference, or too many to list one by one.
_ONLY_COUNTED = frozenset({What.AGREED, What.STRANGER, What.UNREADABLE})
_TO_BE_PUSHED = frozenset({What.NOT_WANTED, What.MISSING_THERE, What.TAKEN_BACK})


@dataclass(slots=True)
class Comparison:
    """What became of one comparison: figures by list, then by what."""

    report_id: int | None = None  #: None: a dry run
    figures: dict[str, Counter[What]] = field(default_factory=dict)

    def count(self, list_: str, what: What, number: int = 1) -> None:
        self.figures.setdefault(list_, Counter())[what] += number

    def total(self, what: What) -> int:
        return sum(counted[what] for counted in self.figures.values())


def judge(list_: TheirList, entry: Entry, held: Standing | None, taken_back: Callable[[], bool]) -> What:
    """Return what an entry is for us; `held` is None for an address we never saw."""
    if list_.reason == "hard_bounce" and not _is_hard(entry):
        return What.NOT_HARD
    if held is None:
        return What.STRANGER
    if _agrees(list_, held):
        return What.AGREED
    if list_.name in held.mirrored:  # ours, so it says nothing of the person
        return What.NOT_WANTED if held.has_holder else What.AGREED
    if entry.at is not None and taken_back():
        return What.TAKEN_BACK
    return What.TAKEN_IN if held.has_holder else What.STRANGER


def _agrees(list_: TheirList, held: Standing) -> bool:
    """Whether we know of it.  Each reason counts by itself: one may be lifted while another stays."""
    if list_.reason in held.reasons or held.belongs_on(list_):
        return True
    return list_.reason == "unsubscribe" and held.stops_marketing


def _is_hard(entry: Entry) -> bool:
    """Whether a bounce on their list ends the address here, too: as their webhook's bounces do (ADR 27)."""
    code = enhanced_code(entry.words)
    return is_vague(code) or speaks_of_the_address(code, entry.words)


def compare(
    database: Engine,
    key_ring: KeyRing,
    provider: MirrorsSuppressions,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _whole: None,
) -> Comparison:
    """Compare every list, carry out what follows and keep what was different; a dry run only counts.

    ListsUnavailable: what was taken in up to there stays, and the report says why it is not complete.
    """
    comparison = Comparison()
    lists = provider.suppression_lists()
    if not dry_run:
        push_changes(database, key_ring, provider)
    with database.begin() as connection:
        now = clock.read_now(connection)
        if not dry_run:
            comparison.report_id = reports.begin(connection, provider.name, now)
    round_ = _Round(database, key_ring, provider, lists, now, comparison)
    for place, list_ in enumerate(lists):
        progress(place, len(lists) + 1)
        round_.read(list_)
    progress(len(lists), len(lists) + 1)
    round_.look_for_missing()
    round_.look_for_gone()
    if not dry_run:
        push_changes(database, key_ring, provider)
        with database.begin() as connection:
            reports.finish(connection, comparison.report_id, comparison.figures)
    progress(len(lists) + 1, len(lists) + 1)
    log.info("mirror.compared", provider=provider.name, dry_run=dry_run,
             **{what: number for what in What if (number := comparison.total(what))})  # fmt: skip
    return comparison


@dataclass(slots=True)
class _Round:
    """One comparison under way."""

    database: Engine
    key_ring: KeyRing
    provider: MirrorsSuppressions
    lists: Sequence[TheirList]
    now: datetime
    comparison: Comparison
    seen: dict[str, set[int]] = field(default_factory=dict)  #: by list: the addresses that stand there

    @property
    def writes(self) -> bool:
        return self.comparison.report_id is not None

    def read(self, list_: TheirList) -> None:
        """Read one list from its beginning to its end."""
        last_page: frozenset[bytes] = frozenset()
        for page in self.provider.entries(list_, self.now):
            entries = self._readable(list_, page)
            # The list may move on while we turn the page.
            self._take(list_, {hash_: one for hash_, one in entries.items() if hash_ not in last_page})
            last_page = frozenset(entries)

    def _readable(self, list_: TheirList, page: Sequence[Entry]) -> dict[bytes, tuple[str, Entry]]:
        """Return the entries with their addresses in normal form, by its hash."""
        entries: dict[bytes, tuple[str, Entry]] = {}
        for entry in page:
            try:
                address = normal_email(entry.address.strip())
            except BadAddress:
                self.comparison.count(list_.name, What.UNREADABLE)
                continue
            entries.setdefault(self.key_ring.address_hash("email", address), (address, entry))
        return entries

    def _take(self, list_: TheirList, entries: Mapping[bytes, tuple[str, Entry]]) -> None:
        """Judge some entries, and do what follows."""
        seen = self.seen.setdefault(list_.name, set())
        found: dict[What, list[tuple[str, Entry, int | None]]] = {}
        with self.database.connect() as connection:
            ids = {bytes(row.hash): row.id for row in connection.execute(_BY_HASH, {"hashes": list(entries)})}
            held = {s.address_id: s for s in self._standings(connection, list(ids.values()))}
            for hash_, (address, entry) in entries.items():
                address_id = ids.get(hash_)
                standing = None if address_id is None else held[address_id]
                what = judge(list_, entry, standing, partial(_taken_back, connection, address_id, list_, entry))
                found.setdefault(what, []).append((address, entry, address_id))
            seen.update(ids.values())
        for what, some in found.items():
            self.comparison.count(list_.name, what, len(some))
        if self.writes:
            self._act(list_, found)

    def _standings(self, connection: Connection, ids: Sequence[int]) -> list[Standing]:
        return standings_of(connection, self.key_ring, self.provider.name, self.lists, ids)

    def _act(self, list_: TheirList, found: dict[What, list[tuple[str, Entry, int | None]]]) -> None:
        news = [*found.get(What.TAKEN_IN, ()), *found.get(What.STRANGER, ())]
        told = [_report(self.provider.name, list_, address, entry) for address, entry, _ in news]
        record(self.database, self.key_ring, told)
        ids = {what: [number for _, _, number in some if number is not None] for what, some in found.items()}
        taken_back = [(number, entry.at) for _, entry, number in found.get(What.TAKEN_BACK, ()) if number is not None]
        db.insist(lambda: self._write(list_, ids, taken_back), mirror=list_.name)

    def _write(
        self,
        list_: TheirList,
        ids: Mapping[What, Sequence[int]],
        taken_back: Sequence[tuple[int, datetime | None]] = (),
    ) -> None:
        """Keep what was different, and see to it that it is pushed."""
        with self.database.begin() as connection:
            for what, some in ids.items():
                self._note(connection, list_.name, what, some)
                if what in _TO_BE_PUSHED:
                    connection.execute(_CHANGE, {"ids": sorted(some)})
            for address_id, at in taken_back:
                connection.execute(_TO_TAKE_OFF, {"address_id": address_id, "reason": list_.reason, "at": at})

    def _note(self, connection: Connection, list_: str, what: What, ids: Sequence[int]) -> None:
        if what not in _ONLY_COUNTED and self.comparison.report_id is not None:
            reports.note(connection, self.comparison.report_id, list_, what, ids)

    def look_for_missing(self) -> None:
        """Push again what we want there and did not find."""
        with self.database.connect() as reading:
            pages = candidates(reading, self.lists)
            for ids in pages:
                standings = self._standings(reading, ids)
                for list_ in self.lists:
                    self._push_again(list_, [s for s in standings if self._is_missing(list_, s)])

    def _is_missing(self, list_: TheirList, held: Standing) -> bool:
        put_at = held.mirrored.get(list_.name)
        return (
            held.belongs_on(list_)
            and held.address_id not in self.seen.get(list_.name, ())
            and (put_at is None or put_at < self.now - SHOWN_AFTER)
        )

    def _push_again(self, list_: TheirList, missing: Sequence[Standing]) -> None:
        named = [s.address_id for s in missing if s.address is not None]
        unnamed = [s.address_id for s in missing if s.address is None]
        for what, ids in ((What.MISSING_THERE, named), (What.CANNOT_BE_NAMED, unnamed)):
            if not ids:
                continue
            self.comparison.count(list_.name, what, len(ids))
            if self.writes:
                db.insist(partial(self._write, list_, {what: ids}), mirror=list_.name)

    def look_for_gone(self) -> None:
        """Count what the provider told us of once, and its list has no more."""
        by_reason = {one.reason: one.name for one in self.lists if one.stops is None}
        values = {"provider": self.provider.name, "reasons": list(by_reason), "before": self.now - SHOWN_AFTER}
        gone: dict[str, list[int]] = {}
        with self.database.connect() as connection:
            for row in connection.execute(_TOLD_BY_THEM, values, execution_options={"yield_per": 1_000}):
                name = by_reason[row.reason]
                if row.address_id not in self.seen.get(name, ()):
                    gone.setdefault(name, []).append(row.address_id)
        for name, ids in gone.items():
            self.comparison.count(name, What.GONE_THERE, len(ids))
            if self.writes:
                with self.database.begin() as connection:
                    self._note(connection, name, What.GONE_THERE, ids)


_BY_HASH = text("SELECT id, hash FROM address WHERE channel = 'email' AND hash = ANY(:hashes)")
_CHANGE = text("""
INSERT INTO mirror_change (address_id) SELECT unnest(CAST(:ids AS bigint[]))
ON CONFLICT (address_id) DO UPDATE SET version = mirror_change.version + 1, retry_at = NULL
""")
# Where a later yes took it back there was nothing here to lift: as of the entry itself, then.
_TO_TAKE_OFF = text("""
INSERT INTO suppression_lift (address_id, reason, lifted_at) VALUES (:address_id, :reason, :at)
ON CONFLICT (address_id, reason) DO UPDATE SET removed_there_at = NULL
""")
_TOLD_BY_THEM = text("""
SELECT address_id, reason FROM suppression
WHERE source LIKE 'feedback: ' || :provider || '%'
  AND reason = ANY(:reasons) AND created_at < :before ORDER BY id
""")


def _taken_back(connection: Connection, address_id: int | None, list_: TheirList, entry: Entry) -> bool:
    return (
        address_id is not None
        and entry.at is not None
        and suppression.was_taken_back(connection, address_id, list_.reason, entry.at)
    )


def _report(provider: str, list_: TheirList, address: str, entry: Entry) -> Report:
    """Return the entry as feedback; of an address that nobody here has, only its hash is kept."""
    stamp = entry.at.isoformat() if entry.at else ""
    return Report(
        f"{provider}.list", "email", f"{list_.name}\0{address}\0{stamp}",
        {"list": list_.name, "at": stamp, "words": without_addresses(entry.words)},
        occurred_at=entry.at, address=address, code=list_.name, suppress=list_.reason, listed=True,
        hard=True if list_.reason == "hard_bounce" else None,
    )  # fmt: skip
