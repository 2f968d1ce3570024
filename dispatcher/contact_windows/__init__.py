"""What must be kept for a contact: the silences and caps of every place they may be in, the shop's own, and theirs.

Every row that could apply is kept, in every candidate zone: of the country and of the part, of the address and of the
phone.  Where no part of a country is known, the row for that case holds, or every part's.  The default row is for texts
where no other has hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache, lru_cache

from dispatcher import calendars, own_hours
from dispatcher.contact_windows.rows import (
    DEFAULT_ROW,
    Row,
    changed,
    eve_silences_of,
    load_rows,
    longest_law_window,
    row_of_shop,
    silences_of,
)
from dispatcher.definitions import Cap, Shop, Silence, WindowChange
from dispatcher.places import Places, places_of
from dispatcher.quiet_hours import LocalSilence

__all__ = ["Here", "LocalRules", "Row", "load_rows", "local_rules", "longest_law_window", "rows_in_force"]

Changes = tuple[tuple[str, WindowChange], ...]
#: What the columns of a contact say of places: zone, country, subdivision, phone region;
#: and the person's own quiet hours, as they are stored.
Key = tuple[str | None, str | None, str | None, str | None, str | None]

_FIRST_TO_SEE_A_DAY = timedelta(hours=14)


class Silences(tuple[LocalSilence, ...]):
    """Silences that are asked for once per contact of an audience: their hash is computed once."""

    _hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = super().__hash__()
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


@dataclass(frozen=True, slots=True)
class Here:
    """What holds for a contact: where they may be, what is silent there, and how many messages the law lets through."""

    places: Places
    silences: tuple[LocalSilence, ...]
    caps: tuple[Cap, ...]


class LocalRules:
    """The rules of every place for one kind of message, remembered by what a contact's columns say."""

    def __init__(
        self, rows: tuple[Row, ...], channel: str, topic: str | None, own: tuple[Silence, ...],
        shop_countries: tuple[str, ...],
    ) -> None:  # fmt: skip
        self._rows, self._channel, self._topic, self._own = rows, channel, topic, own
        self._shop_countries = shop_countries
        self._known: dict[Key, Here] = {}
        self._shared: dict[Silences, Silences] = {}  # most keys have the silences of another: one object for them
        self._compiled: dict[str, tuple[tuple[Silence, ...], tuple[Silence, ...]]] = {}

    def here(
        self, zone: str | None, country: str | None, subdivision: str | None, phone_region: str | None,
        own: str | None = None,
    ) -> Here:  # fmt: skip
        """Return what holds for a contact of whom this is known; `own`: their own quiet hours, as stored."""
        key = (zone, country, subdivision, phone_region, own)
        found = self._known.get(key)
        if found is None:
            places = places_of(*key[:4], self._shop_countries)
            applied = list(self.rows_at(places))
            silences = Silences(dict.fromkeys((*self._silences(places, applied), *_own(places, own))))
            silences = self._shared.setdefault(silences, silences)
            found = self._known[key] = Here(places, silences, tuple(dict.fromkeys(self._caps(applied))))
        return found

    def rows_at(self, places: Places) -> Iterator[tuple[Row, Row | None, str | None]]:
        """Yield each row that could apply, with its country's row and the part of the country that is known."""
        needs_default = not places.jurisdictions
        for country, part in places.jurisdictions:
            of_country = [row for row in self._rows if row.country == country]
            parent = next((row for row in of_country if row.subdivision is None and row.windows is not None), None)
            unknown = [row for row in of_country if row.subdivision == "unknown"]
            of_part = [
                r for r in of_country if r.subdivision not in (None, "unknown") and part in (None, r.subdivision)
            ]
            applied = [row for row in of_country if row.subdivision is None]
            applied += unknown if part is None and _has_row_for_unknown(country) else of_part
            for row in applied:
                yield row, parent if row is not parent else None, part
            needs_default |= all(row.windows is None or row.id not in load_rows() for row in applied)
        if needs_default:
            for row in self._rows:
                if row.id == DEFAULT_ROW:
                    yield row, None, None

    def _silences(
        self, places: Places, applied: Iterable[tuple[Row, Row | None, str | None]]
    ) -> Iterator[LocalSilence]:
        for zone in places.zones:
            if self._own:
                yield LocalSilence(zone, self._own, (), "shop")
        for row, parent, part in applied:
            if row.windows is None:
                continue
            if row.id not in self._compiled:
                self._compiled[row.id] = silences_of(row, parent), eve_silences_of(row, parent)
            silences, eve = self._compiled[row.id]
            days = _calendars(row, part)
            for zone in (*places.zones, *((row.also_in,) if row.also_in else ())):
                yield LocalSilence(zone, silences, days, row.id, eve)

    def _caps(self, applied: Iterable[tuple[Row, Row | None, str | None]]) -> Iterator[Cap]:
        for row, _, _ in applied:
            for number, cap in enumerate(row.caps, 1):
                name = f"law-{row.id.lower()}" + (f"-{number}" if len(row.caps) > 1 else "")
                topics = (self._topic,) if cap.same_topic and self._topic else None
                yield Cap(name=name, max=cap.max, window=cap.window, channels=(self._channel,), topics=topics)  # type: ignore[arg-type]


def _own(places: Places, own: str | None) -> Iterator[LocalSilence]:
    if own is not None:
        for zone in places.zones:
            yield LocalSilence(zone, own_hours.read(own), (), own_hours.SOURCE)


@cache
def _has_row_for_unknown(country: str) -> bool:
    """Return whether we ship a row for those of whom no part is known: a shop that takes it away means it."""
    return any(row.country == country and row.subdivision == "unknown" for row in load_rows().values())


def _calendars(row: Row, part: str | None) -> tuple[str, ...]:
    """Return the row's calendars, with those of the part that is known: it has the country's days and its own."""
    own = f"{row.country}-{part}"
    if not row.calendars or part is None or not calendars.is_known(own):
        return row.calendars
    return tuple(dict.fromkeys((*(name for name in row.calendars if name != f"{row.country}-*"), own)))


def local_rules(shop: Shop, channel: str, class_: str, topic: str | None, now: datetime) -> LocalRules:
    """Return what must be kept by messages of this channel, class and topic, by the rows in force at `now`.

    Rows of places are about marketing.  A transactional text heeds the shop's own quiet hours and the default row's
    night; nothing else that is transactional heeds any, as `gates` knows.
    """
    own = shop.quiet_hours.sms if channel == "sms" else shop.quiet_hours.email
    changes = tuple(sorted(shop.contact_windows.items()))
    day = (now + _FIRST_TO_SEE_A_DAY).date()
    return _rules(channel, class_, topic, own, changes, shop.shop.countries, day)


@lru_cache(maxsize=64)
def _rules(
    channel: str, class_: str, topic: str | None, own: tuple[Silence, ...], changes: Changes,
    shop_countries: tuple[str, ...], day: date,
) -> LocalRules:  # fmt: skip
    rows = rows_in_force(channel, changes, day)
    if class_ != "marketing":
        rows = tuple(row for row in rows if row.id == DEFAULT_ROW)
    return LocalRules(rows, channel, topic, own, shop_countries)


def rows_in_force(channel: str, changes: Changes, day: date) -> tuple[Row, ...]:
    """Return the rows for a channel that are in force on a day, as the shop has changed them, and its own."""
    by_id = dict(changes)
    rows = [row for row in load_rows().values() if row.effective <= day]
    rows = [changed(row, by_id[row.id]) if row.id in by_id else row for row in rows if not _is_off(by_id.get(row.id))]
    rows += [row_of_shop(name, change) for name, change in changes if name not in load_rows()]
    return tuple(row for row in rows if channel in row.channels)


def _is_off(change: WindowChange | None) -> bool:
    return change is not None and change.off
