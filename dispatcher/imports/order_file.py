"""The lines of orders, gathered into events.

The lines of one order may stand anywhere in the file, so the database gathers them, in a temporary table that is gone
with the transaction: memory stays flat however long the file is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, text

from dispatcher.event_json import InvalidEvent
from dispatcher.events import Event, Item
from dispatcher.imports.csvfile import BadRow, CsvFile
from dispatcher.imports.mapping import Mapping
from dispatcher.imports.order_lines import LineReader, OrderLine

Reject = Callable[[int, str], None]

MOST_ITEMS = 10_000  # of one event; more is a map with the wrong column as key
_LINES_A_FETCH = 5_000

_CREATE = text("""
    CREATE TEMPORARY TABLE staged_line (
        line integer, source_key text, contact text, name text, occurred_at timestamptz, item text
    ) ON COMMIT DROP
""")
_COPY = "COPY staged_line (line, source_key, contact, name, occurred_at, item) FROM STDIN"
_MIXED = text("""
    DELETE FROM staged_line USING (
        SELECT source_key, (array_agg(contact ORDER BY line))[1] AS contact, (array_agg(name ORDER BY line))[1] AS name,
               min(line) AS line
        FROM staged_line
        GROUP BY source_key HAVING min(contact) <> max(contact) OR min(name) <> max(name)
    ) AS first
    WHERE staged_line.source_key = first.source_key
      AND (staged_line.contact <> first.contact OR staged_line.name <> first.name)
    RETURNING staged_line.line, staged_line.source_key, first.line AS first_line
""")
_CROWDED = text("""
    DELETE FROM staged_line WHERE source_key IN (
        SELECT source_key FROM staged_line GROUP BY source_key HAVING count(*) > :most
    ) RETURNING line, source_key
""")
_NEWEST = text("SELECT max(at) FROM (SELECT min(occurred_at) AS at FROM staged_line GROUP BY source_key) AS event")
# By contact, so that each page of events touches few of them, and each of them once.
_GATHERED = text("""
    SELECT contact, source_key, name, occurred_at, line, item FROM staged_line ORDER BY contact, source_key, line
""").execution_options(stream_results=True, yield_per=_LINES_A_FETCH)


def stage(
    connection: Connection,
    path: Path,
    mapping: Mapping,
    *,
    now: datetime,
    left_out: Counter[str],
    reject: Reject,
    progress: Callable[[int, int], None],
) -> tuple[int, int]:
    """Read the file into the temporary table; return how many rows and bytes it has."""
    connection.execute(text("SET LOCAL work_mem = '64MB'"))
    connection.execute(_CREATE)
    count = 0

    def bad(row: BadRow) -> None:
        nonlocal count
        count += 1
        reject(row.line, row.reason)

    with CsvFile(path) as file:
        reader = LineReader(mapping, file.columns, path, now)
        with connection.connection.cursor().copy(_COPY) as copy:
            for row in file.rows(bad=bad):
                count += 1
                try:
                    line = reader.read(row.values)
                except InvalidEvent as error:
                    reject(row.line, str(error))
                    continue
                if isinstance(line, str):
                    left_out[line] += 1
                else:
                    copy.write_row(_staged(row.line, line))
                if count % _LINES_A_FETCH == 0:
                    progress(file.position, file.size)
        progress(file.size, file.size)
    _set_mixed_aside(connection, reject)
    return count, file.size


def newest(connection: Connection) -> datetime | None:
    """Return when the newest event was, or None if there is none."""
    at: datetime | None = connection.execute(_NEWEST).scalar_one()
    return at


def gathered(connection: Connection, source: str) -> Iterator[Event]:
    """Yield the events, contact by contact; each happened when its earliest line did."""
    rows = connection.execute(_GATHERED)
    for (contact, source_key), lines in groupby(rows, key=lambda row: (row[0], row[1])):
        yield _event(source, contact, source_key, list(lines))


def _staged(number: int, line: OrderLine) -> tuple[Any, ...]:
    item = line.item
    packed = orjson.dumps((item.interests, str(item.quantity), str(item.value), item.properties)).decode()
    return number, line.source_key, line.contact, line.name, line.occurred_at, packed


def _event(source: str, contact: str, source_key: str, lines: list[Any]) -> Event:
    items = tuple(_item(item) for *_, item in lines)
    return Event(
        source=source,
        source_key=source_key,
        contact=contact,
        name=lines[0][2],
        occurred_at=min(line[3] for line in lines),
        value=sum((item.value for item in items), Decimal(0)),
        items=items,
        line=lines[0][4],
    )


def _item(packed: str) -> Item:
    interests, quantity, value, properties = orjson.loads(packed)
    return Item(tuple(interests), Decimal(quantity), Decimal(value), properties)


def _set_mixed_aside(connection: Connection, reject: Reject) -> None:
    """Take out the lines that cannot belong to the order they name."""
    for row in connection.execute(_MIXED).all():
        reject(row.line, f"{row.source_key} is of another contact or kind on line {row.first_line}")
    for row in connection.execute(_CROWDED, {"most": MOST_ITEMS}).all():
        reject(row.line, f"{row.source_key} has more than {MOST_ITEMS:,} lines")
