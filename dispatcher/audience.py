"""Who a segment means now: the language bound to our tables.

Only contacts that are neither merged into another nor erased are ever in an audience.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    and_,
    cast,
    column,
    func,
    insert,
    literal,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from dispatcher import interests
from dispatcher.errors import NotFound
from dispatcher.tables import audience_page, contact, event, event_item, interest
from dispatcher.tables import segment as segment_table
from segments.definition import Segment, from_json
from segments.explain import Answer, answers, leaves
from segments.sql import Vocabulary, compile_segment

PAGE_SIZE = 5000

#: The contact's own fields, by the names the language has for them.
FIELDS: dict[str, ColumnElement[Any]] = {
    "external_id": contact.c.external_id,
    "country": contact.c.country,
    "subdivision": contact.c.subdivision,
    "locale": contact.c.locale,
    "zone": contact.c.zone,
    "timezone": contact.c.zone,
}

_NOT_GONE = and_(contact.c.merged_into.is_(None), contact.c.erased_at.is_(None))


def vocabulary(*, as_of: datetime, half_life: timedelta, from_items: bool | None = None) -> Vocabulary:
    """Return what a segment may speak of: our tables, as they were at `as_of`."""
    return Vocabulary(
        contact=contact,
        event=event,
        event_item=event_item,
        interest=interest,
        fields=FIELDS,
        as_of=as_of,
        landmark=interests.LANDMARK,
        half_life=half_life,
        scored_event=interests.COUNTED,
        from_items=from_items,
    )


def predicate(
    segment: Segment, *, as_of: datetime, half_life: timedelta, from_items: bool | None = None
) -> ColumnElement[bool]:
    """Return the predicate over `tables.contact`; `from_items`: sum scores from items always, never, or as needed."""
    words = vocabulary(as_of=as_of, half_life=half_life, from_items=from_items)
    return and_(_NOT_GONE, compile_segment(segment, words))


def count(connection: Connection, segment: Segment, as_of: datetime) -> int:
    """Return how many contacts the segment means at `as_of`."""
    return connection.scalar(select(func.count()).select_from(contact).where(_bound(connection, segment, as_of))) or 0


def contact_ids(connection: Connection, segment: Segment, as_of: datetime) -> list[int]:
    """Return the contacts it means, ascending."""
    chosen = select(contact.c.id).where(_bound(connection, segment, as_of)).order_by(contact.c.id)
    return list(connection.scalars(chosen))


def sample(connection: Connection, segment: Segment, as_of: datetime, limit: int) -> list[tuple[int, str]]:
    """Return some of them, id and external id; always the same ones of the same audience, in no meaningful order."""
    chosen = (
        select(contact.c.id, contact.c.external_id)
        .where(_bound(connection, segment, as_of))
        .order_by(func.md5(contact.c.external_id), contact.c.id)
        .limit(limit)
    )
    return [(row.id, row.external_id) for row in connection.execute(chosen)]


def members(connection: Connection, segment: Segment, as_of: datetime, contact_ids: Collection[int]) -> set[int]:
    """Return those of `contact_ids` that the segment means.

    OFFSET 0 keeps the planner from joining everybody's events for the sake of a few contacts: each is looked up by
    index, even while the statistics of a fresh import are missing.
    """
    ids = func.unnest(literal(list(contact_ids), ARRAY(BigInteger)))
    asked = ids.table_valued(column("id", BigInteger), name="asked").render_derived()
    bound = _bound(connection, segment, as_of)
    one = select(contact.c.id).where(contact.c.id == asked.c.id, bound).correlate(asked).offset(literal_column("0"))
    meant = one.lateral("meant")
    return set(connection.scalars(select(meant.c.id).select_from(asked.join(meant, true()))))


def freeze(
    connection: Connection, run_id: UUID, segment: Segment, as_of: datetime, page_size: int = PAGE_SIZE
) -> tuple[int, int]:
    """Write the run's audience down, page by page of ascending contact ids; return how many contacts and pages."""
    place = func.row_number().over(order_by=contact.c.id) - 1
    numbered = (
        select(contact.c.id, cast(place // page_size, Integer).label("page"))
        .where(_bound(connection, segment, as_of))
        .subquery()
    )
    ids = func.array_agg(aggregate_order_by(numbered.c.id, numbered.c.id))
    pages = select(literal(run_id), numbered.c.page, ids).group_by(numbered.c.page)
    written = (
        insert(audience_page)
        .from_select(["run_id", "page", "contact_ids"], pages)
        .returning(func.cardinality(audience_page.c.contact_ids))
    )
    sizes = list(connection.scalars(written))
    return sum(sizes), len(sizes)


def load_segment(connection: Connection, name: str) -> Segment:
    """Return the segment of that name; NotFound says which there are."""
    found = connection.scalar(select(segment_table.c.definition).where(segment_table.c.name == name))
    if found is not None:
        return from_json(found)
    names = list(connection.scalars(select(segment_table.c.name).order_by(segment_table.c.name)))
    if close := difflib.get_close_matches(name, names, 1):
        raise NotFound(f"there is no segment {name}; did you mean {close[0]}?")
    known = (
        f"there are {', '.join(names)}"
        if names
        else "there are none yet: write segments/*.yaml and run dispatcher apply"
    )
    raise NotFound(f"there is no segment {name}; {known}")


def why_not(connection: Connection, segment: Segment, as_of: datetime, contact_id: int) -> Answer:
    """Return every condition of the segment with its truth for one contact, and what was found instead."""
    words = vocabulary(as_of=as_of, half_life=interests.read_half_life(connection))
    asked = leaves(segment.match, words)
    columns = [column.label(f"c{i}_{name}") for i, leaf in enumerate(asked) for name, column in leaf.items()]
    row = connection.execute(select(*columns).select_from(contact).where(contact.c.id == contact_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no contact with id {contact_id}")
    values = iter(row)
    return answers(segment.match, iter([{name: next(values) for name in leaf} for leaf in asked]))


def _bound(connection: Connection, segment: Segment, as_of: datetime) -> ColumnElement[bool]:
    return predicate(segment, as_of=as_of, half_life=interests.read_half_life(connection))
