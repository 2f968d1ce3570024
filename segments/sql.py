"""A segment as one SQL predicate over a row of contacts.

Every condition is a subquery of its own, tied to the contact: PostgreSQL turns the plain ones into joins for a whole
audience, and looks them up by index for a handful of contacts.  This room knows no tables: the `Vocabulary` brings
them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    Double,
    FromClause,
    Numeric,
    ScalarSelect,
    Text,
    and_,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)

from segments.definition import (
    All,
    AnyOf,
    AttributeCondition,
    Condition,
    EventCondition,
    InterestCondition,
    Not,
    Segment,
    Where,
)
from segments.sql_values import compare_amount, test_value

_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
#: Scores are sums of powers: two that differ by less than this share are the same one, whichever way they were summed.
SCORE_TOLERANCE = 1e-9
_SMALLEST_LOG2 = -1000.0  # power() below the smallest float is an error in PostgreSQL


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tables that a segment may speak of, and the instant it speaks at.

    contact(id, attributes) · event(id, contact_id, name, occurred_at, value, properties) · event_item(event_id,
    interests, quantity, value, properties) · interest(contact_id, name, log2_mass, half_life_days)
    """

    contact: FromClause
    event: FromClause
    event_item: FromClause
    interest: FromClause
    fields: Mapping[str, ColumnElement[Any]]  #: the contact's own text columns by the names the language has for them
    as_of: datetime
    landmark: datetime  #: what log2_mass is measured from
    half_life: timedelta  #: for scores summed from the items; a stored one brings its own
    scored_event: str  #: the event whose items make the scores
    from_items: bool | None = None  #: sum scores from items: always, never, or (None) where the contact has later ones


def compile_segment(segment: Segment, vocabulary: Vocabulary) -> ColumnElement[bool]:
    """Return the predicate over a row of `vocabulary.contact`: true or false, never NULL."""
    return compile_condition(segment.match, vocabulary)


def compile_condition(condition: Condition, vocabulary: Vocabulary) -> ColumnElement[bool]:
    match condition:
        case All():
            return and_(*(compile_condition(part, vocabulary) for part in condition.conditions))
        case AnyOf():
            return or_(*(compile_condition(part, vocabulary) for part in condition.conditions))
        case Not():
            return not_(compile_condition(condition.condition, vocabulary))
        case EventCondition():
            return _event_holds(condition, vocabulary)
        case AttributeCondition():
            return test_value(condition, attribute_value(condition.attribute, vocabulary))
        case InterestCondition():
            return _score_holds(condition, vocabulary)


def attribute_value(name: str, vocabulary: Vocabulary) -> ColumnElement[Any]:
    """Return the JSONB value of a field of the contact, or of an attribute; `attr.NAME` is always the latter."""
    if (field := vocabulary.fields.get(name)) is not None:
        return func.to_jsonb(field)
    key: ColumnElement[Any] = vocabulary.contact.c.attributes[name.removeprefix("attr.")]
    return key


# Events


def _event_holds(condition: EventCondition, vocabulary: Vocabulary) -> ColumnElement[bool]:
    clauses: list[ColumnElement[bool]] = []
    if condition.count is not None:
        clauses.append(_count_holds(condition, vocabulary))
    if condition.last is not None:
        clauses.append(_last_holds(condition, vocabulary))
    if condition.sum is not None:
        clauses.append(compare_amount(condition.amount, event_sum(condition, vocabulary)))
    return and_(*clauses) if clauses else _some_event(condition, vocabulary)


def _count_holds(condition: EventCondition, vocabulary: Vocabulary) -> ColumnElement[bool]:
    assert condition.count is not None
    least, most = condition.count.least, condition.count.most
    if most is not None and most < least:
        return false()
    if most is None and least <= 1:
        return _some_event(condition, vocabulary) if least else true()
    if most == 0:
        return not_(_some_event(condition, vocabulary))
    count = event_count(condition, vocabulary)
    return count >= least if most is None else count.between(least, most)


def _last_holds(condition: EventCondition, vocabulary: Vocabulary) -> ColumnElement[bool]:
    """The newest is inside `within` and not inside `older_than`: there is one in the one, and none in the other."""
    assert condition.last is not None
    holds = _some_event(condition, vocabulary, within=condition.last.within)
    if condition.last.older_than is None:
        return holds
    return and_(holds, not_(_some_event(condition, vocabulary, within=condition.last.older_than)))


def _some_event(
    condition: EventCondition, vocabulary: Vocabulary, *, within: timedelta | None = None
) -> ColumnElement[bool]:
    event = vocabulary.event.alias()
    clauses = _matches(condition, vocabulary, event)
    if within is not None:
        clauses.append(event.c.occurred_at > _window_start(vocabulary.as_of, within))
    return exists(select(literal(1)).select_from(event).where(*clauses).correlate(vocabulary.contact))


def event_count(condition: EventCondition, vocabulary: Vocabulary) -> ScalarSelect[Any]:
    """Return how many of the contact's events match."""
    event = vocabulary.event.alias()
    counted = select(func.count()).select_from(event).where(*_matches(condition, vocabulary, event))
    return counted.correlate(vocabulary.contact).scalar_subquery()


def newest_event(condition: EventCondition, vocabulary: Vocabulary) -> ScalarSelect[Any]:
    """Return when the contact's newest matching event was; NULL without one."""
    event = vocabulary.event.alias()
    newest = select(func.max(event.c.occurred_at)).where(*_matches(condition, vocabulary, event))
    return newest.correlate(vocabulary.contact).scalar_subquery()


def event_sum(condition: EventCondition, vocabulary: Vocabulary) -> ColumnElement[Any]:
    """Return the sum over the matching items if the condition is about items, else over the events; 0 without any.

    Only items have a quantity, so a sum of it is over all items of the matching events.
    """
    event = vocabulary.event.alias()
    if condition.is_about_items or condition.sum == "quantity":
        item = vocabulary.event_item.alias()
        summed = (
            select(func.sum(item.c[condition.sum or "value"]))
            .select_from(event.join(item, item.c.event_id == event.c.id))
            .where(*_event_matches(condition, vocabulary, event), *_item_matches(condition.where, item))
        )
    else:
        summed = select(func.sum(event.c.value)).where(*_event_matches(condition, vocabulary, event))
    return func.coalesce(summed.correlate(vocabulary.contact).scalar_subquery(), literal(0, Numeric()))


def _matches(condition: EventCondition, vocabulary: Vocabulary, event: FromClause) -> list[ColumnElement[bool]]:
    """What holds of an event that counts: its own fields, and that one of its items has everything asked of an item."""
    clauses = _event_matches(condition, vocabulary, event)
    if condition.is_about_items:
        item = vocabulary.event_item.alias()
        about = [item.c.event_id == event.c.id, *_item_matches(condition.where, item)]
        clauses.append(exists(select(literal(1)).select_from(item).where(*about).correlate(event)))
    return clauses


def _event_matches(condition: EventCondition, vocabulary: Vocabulary, event: FromClause) -> list[ColumnElement[bool]]:
    clauses: list[ColumnElement[bool]] = [
        event.c.contact_id == vocabulary.contact.c.id,
        event.c.name == literal(condition.event, Text()),
        event.c.occurred_at <= _instant(vocabulary.as_of),
    ]
    if condition.within is not None:
        clauses.append(event.c.occurred_at > _window_start(vocabulary.as_of, condition.within))
    if condition.where is not None and condition.where.value is not None:
        clauses.append(compare_amount(condition.where.value, event.c.value))
    if condition.where is not None and condition.where.properties is not None:
        clauses += [test_value(test, event.c.properties[key]) for key, test in condition.where.properties.items()]
    return clauses


def _item_matches(where: Where | None, item: FromClause) -> list[ColumnElement[bool]]:
    clauses: list[ColumnElement[bool]] = []
    if where is not None and where.interest is not None:
        clauses.append(_has_any_of(item, where.interest))
    if where is not None and where.item is not None:
        if where.item.quantity is not None:
            clauses.append(compare_amount(where.item.quantity, item.c.quantity))
        if where.item.value is not None:
            clauses.append(compare_amount(where.item.value, item.c.value))
        clauses += [test_value(test, item.c.properties[key]) for key, test in (where.item.properties or {}).items()]
    return clauses


def _has_any_of(item: FromClause, names: Sequence[str]) -> ColumnElement[bool]:
    return item.c.interests.bool_op("&&")(literal(list(names), ARRAY(Text())))


def _instant(at: datetime) -> ColumnElement[datetime]:
    return literal(at, DateTime(timezone=True))


def _window_start(as_of: datetime, window: timedelta) -> ColumnElement[datetime]:
    """The last instant before the window (as_of - window, as_of]."""
    return _instant(as_of - window if as_of - _EARLIEST > window else _EARLIEST)


# Interest scores


def _score_holds(condition: InterestCondition, vocabulary: Vocabulary) -> ColumnElement[bool]:
    score, clauses = condition.score, []
    if score.gte is not None:
        clauses.append(_score_reaches(condition.interest, score.gte, vocabulary, above=False))
    if score.gt is not None:
        clauses.append(_score_reaches(condition.interest, score.gt, vocabulary, above=True))
    if score.lte is not None:
        clauses.append(not_(_score_reaches(condition.interest, score.lte, vocabulary, above=True)))
    if score.lt is not None:
        clauses.append(not_(_score_reaches(condition.interest, score.lt, vocabulary, above=False)))
    return and_(*clauses)


def _score_reaches(interest: str, bound: float, vocabulary: Vocabulary, *, above: bool) -> ColumnElement[bool]:
    """Whether the score is at least `bound`, or above it.

    Stored scores count all items ever, so they are never below the score at an earlier `as_of`: that is summed from
    the items only for contacts whose stored one reaches the bound and who have ordered since.
    """
    if bound == 0 and not above:
        return true()
    share = 1 + SCORE_TOLERANCE if above else 1 - SCORE_TOLERANCE
    summed = score_from_items(interest, vocabulary)
    from_items = summed >= literal(bound * share, Double()) if bound else summed > literal(0.0, Double())
    if vocabulary.from_items:
        return from_items
    row = vocabulary.interest.alias()
    clauses = _row_of(interest, row, vocabulary)
    if bound:
        clauses.append(_log2_score(row, vocabulary) >= literal(math.log2(bound * share), Double()))
    if vocabulary.from_items is None:
        clauses.append(or_(not_(_ordered_since(vocabulary)), from_items))
    return exists(select(literal(1)).select_from(row).where(*clauses).correlate(vocabulary.contact))


def interest_score(interest: str, vocabulary: Vocabulary) -> ColumnElement[float]:
    """Return the contact's score at as_of; 0 without any."""
    if vocabulary.from_items:
        return score_from_items(interest, vocabulary)
    row = vocabulary.interest.alias()
    log2 = func.least(func.greatest(_log2_score(row, vocabulary), _SMALLEST_LOG2), -_SMALLEST_LOG2)
    found = select(func.power(literal(2.0, Double()), log2)).where(*_row_of(interest, row, vocabulary))
    stored = func.coalesce(found.correlate(vocabulary.contact).scalar_subquery(), literal(0.0, Double()))
    if vocabulary.from_items is False:
        return stored
    return case((_ordered_since(vocabulary), score_from_items(interest, vocabulary)), else_=stored)


def score_from_items(interest: str, vocabulary: Vocabulary) -> ColumnElement[float]:
    """Return the score as the direct sum over the items up to as_of: 2^-(age / half-life) each."""
    event, item = vocabulary.event.alias(), vocabulary.event_item.alias()
    age: ColumnElement[float] = cast(func.extract("epoch", _instant(vocabulary.as_of) - event.c.occurred_at), Double())
    log2 = func.greatest(-age / literal(vocabulary.half_life.total_seconds(), Double()), _SMALLEST_LOG2)
    summed = (
        select(func.sum(func.power(literal(2.0, Double()), log2)))
        .select_from(event.join(item, item.c.event_id == event.c.id))
        .where(
            event.c.contact_id == vocabulary.contact.c.id,
            event.c.name == literal(vocabulary.scored_event, Text()),
            event.c.occurred_at <= _instant(vocabulary.as_of),
            _has_any_of(item, [interest]),
        )
    )
    return func.coalesce(summed.correlate(vocabulary.contact).scalar_subquery(), literal(0.0, Double()))


def _row_of(interest: str, row: FromClause, vocabulary: Vocabulary) -> list[ColumnElement[bool]]:
    return [row.c.contact_id == vocabulary.contact.c.id, row.c.name == literal(interest, Text())]


def _log2_score(row: FromClause, vocabulary: Vocabulary) -> ColumnElement[float]:
    days = (vocabulary.as_of - vocabulary.landmark) / timedelta(days=1)
    log2: ColumnElement[float] = row.c.log2_mass - literal(days, Double()) / row.c.half_life_days
    return log2


def _ordered_since(vocabulary: Vocabulary) -> ColumnElement[bool]:
    event = vocabulary.event.alias()
    later = select(literal(1)).where(
        event.c.contact_id == vocabulary.contact.c.id,
        event.c.name == literal(vocabulary.scored_event, Text()),
        event.c.occurred_at > _instant(vocabulary.as_of),
    )
    return exists(later.correlate(vocabulary.contact))
