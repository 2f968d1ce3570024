"""One row of an order file, read the way a map says."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from decimal import Decimal
from fnmatch import translate
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from dispatcher.errors import InvalidDefinition, Refused
from dispatcher.event_json import LONGEST_KEY, LONGEST_NAME, InvalidEvent, amount, check_instant, check_text
from dispatcher.events import Item
from dispatcher.imports.csvfile import BadRow, CsvFile
from dispatcher.imports.mapping import Condition, InstantColumn, Interests, Mapping

Cells = dict[str, str]  # by column name
InterestReader = Callable[[Cells], tuple[str, ...]]

_WHOLE_NUMBER = re.compile(r"(\d+)(?:\.0*)?")
_REMEMBERED = 50_000  # texts that come again and again: times, descriptions, numbers


_checked = lru_cache(maxsize=_REMEMBERED)(check_text)


class OrderLine(NamedTuple):
    source_key: str
    contact: str
    name: str
    occurred_at: datetime
    item: Item


class LineReader:
    """Reads the rows of one file."""

    def __init__(self, mapping: Mapping, columns: Collection[str], data: Path, now: datetime) -> None:
        self._mapping = mapping
        self._columns = _Columns(columns, data)
        item = mapping.item
        self._key, self._contact = self._columns[mapping.source_key.column], self._columns[mapping.contact.column]
        self._key_text, self._contact_text = _cleaner(mapping.source_key.as_), _cleaner(mapping.contact.as_)
        self._time = self._columns[mapping.occurred_at.column]
        self._instant = _instant_reader(mapping.occurred_at, now)
        self._quantity = None if item.quantity is None else self._columns[item.quantity.column]
        self._value = None if item.value is None else self._columns[item.value.column]
        self._times = item.value is not None and item.value.times is not None
        self._properties = [(name, self._columns[column]) for name, column in item.properties.items()]
        self._interests = _interest_reader(mapping, self._columns, data)
        self._renamed = [(rule, self._test(rule.when)) for rule in mapping.renamed]
        self._left_out = [(rule, self._test(rule)) for rule in mapping.leave_out if rule.column is not None]
        self._too_little = [rule for rule in mapping.leave_out if rule.field is not None]

    def read(self, row: Cells) -> OrderLine | str:
        """Return the line a row is, or the reason it is left out; InvalidEvent if it cannot be read."""
        for rule, holds in self._left_out:
            if holds(row):
                return rule.reason
        name, sign = self._name(row)
        quantity = Decimal(1) if self._quantity is None else sign * _number(row[self._quantity], "quantity")
        value = Decimal(0) if self._value is None else _number(row[self._value], "value")
        value = amount(value * quantity, "value") if self._times else sign * value
        for little in self._too_little:
            if little.at_most is not None and (quantity if little.field == "quantity" else value) <= little.at_most:
                return little.reason
        return OrderLine(
            source_key=_checked(self._key_text(row[self._key]), self._mapping.source_key.column, LONGEST_KEY),
            contact=_checked(self._contact_text(row[self._contact]), self._mapping.contact.column, LONGEST_KEY),
            name=name,
            occurred_at=self._instant(row[self._time]),
            item=Item(
                interests=self._interests(row),
                quantity=quantity,
                value=value,
                properties={name: row[column].strip() for name, column in self._properties},
            ),
        )

    def _name(self, row: Cells) -> tuple[str, int]:
        for rule, holds in self._renamed:
            if holds(row):
                return rule.name, -1 if rule.reversed else 1
        return self._mapping.name, 1

    def _test(self, condition: Condition) -> Callable[[Cells], bool]:
        """Return the test of a column's text."""
        column = self._columns[condition.column]
        if condition.empty:
            return lambda row: not row[column].strip()
        exact = frozenset(text.upper() for text in condition.in_ or ())
        pattern = re.compile("|".join(translate(text.upper()) for text in condition.like or ()) or "(?!)")

        @lru_cache(maxsize=_REMEMBERED)
        def holds(text: str) -> bool:
            upper = text.strip().upper()
            return upper in exact or pattern.match(upper) is not None

        return lambda row: holds(row[column])


class _Columns:
    """Which columns a file has; a map that names another one is wrong."""

    def __init__(self, columns: Collection[str], file: Path) -> None:
        self._columns, self._file = columns, file

    def __getitem__(self, name: str | None) -> str:
        if name is None or name not in self._columns:
            there = ", ".join(filter(None, self._columns))
            raise InvalidDefinition(
                [f"the map names the column {name}, which {self._file.name} does not have; it has {there}"]
            )
        return name


def _cleaner(kind: str) -> Callable[[str], str]:
    if kind == "text":
        return str.strip

    @lru_cache(maxsize=_REMEMBERED)
    def whole_number(text: str) -> str:
        found = _WHOLE_NUMBER.fullmatch(text.strip())
        if found is None:
            raise InvalidEvent(f"{text.strip()[:40]!r} is not a whole number")
        return found[1]

    return whole_number


def _instant_reader(column: InstantColumn, now: datetime) -> Callable[[str], datetime]:
    zone = ZoneInfo(column.zone) if column.zone else None

    @lru_cache(maxsize=_REMEMBERED)
    def read(text: str) -> datetime:
        text = text.strip()
        try:
            at = datetime.strptime(text, column.format) if column.format else datetime.fromisoformat(text)  # noqa: DTZ007
        except ValueError as error:
            form = f"of the form {column.format}" if column.format else "ISO 8601"
            raise InvalidEvent(f"{column.column} is not {form}") from error
        if at.tzinfo is None:
            if zone is None:
                raise InvalidEvent(f"{column.column} does not say its zone; the map may: zone: UTC")
            at = at.replace(tzinfo=zone)
        return check_instant(at, now)

    return read


@lru_cache(maxsize=_REMEMBERED)
def _number(text: str, where: str) -> Decimal:
    return amount(text.strip(), where)


def _interest_reader(mapping: Mapping, columns: _Columns, data: Path) -> InterestReader:
    """Return what tells a row's interests, the broadest first."""
    interests = mapping.item.interests
    if interests is None:
        return lambda _: ()
    if interests.table is not None:
        return _look_up(mapping, interests, columns, data)
    if interests.columns:
        names = [columns[name] for name in interests.columns]
        return lambda row: _names(row, names)
    column = columns[interests.column]
    rules = [(rule.interest, re.compile(rule.regex)) for rule in mapping.rules(data)]
    otherwise = () if interests.else_ is None else (interests.else_,)

    @lru_cache(maxsize=_REMEMBERED)
    def by_rules(text: str) -> tuple[str, ...]:
        upper = text.upper()
        return next(((name,) for name, regex in rules if regex.search(upper)), otherwise)

    return lambda row: by_rules(row[column])


def _look_up(mapping: Mapping, interests: Interests, columns: _Columns, data: Path) -> InterestReader:
    """Return what finds a row's interests in the table the map names; a key that is not there has none."""
    path = mapping.find(interests.table or "", data)
    key = columns[interests.key]
    otherwise = () if interests.else_ is None else (interests.else_,)
    table: dict[str, tuple[str, ...]] = {}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # thousands of products, few pairs of names
    with CsvFile(path) as file:
        there = _Columns(file.columns, path)
        key_there, wanted = there[interests.key], [there[name] for name in interests.columns]
        for row in file.rows(bad=_refuse_table(path)):
            names = _names(row.values, wanted)
            table[row.values[key_there].strip()] = shared.setdefault(names, names)
    return lambda row: table.get(row[key].strip()) or otherwise


def _refuse_table(path: Path) -> Callable[[BadRow], None]:
    """Return what refuses a look-up table with a bad row: half a table would give wrong interests in silence."""

    def refuse(row: BadRow) -> None:
        raise Refused(f"{path.name}, line {row.line}: {row.reason}")

    return refuse


def _names(row: Cells, columns: Sequence[str]) -> tuple[str, ...]:
    names = (row[column].strip() for column in columns)
    return tuple(dict.fromkeys(check_text(name, "interest", LONGEST_NAME) for name in names if name))
