"""Comparisons as SQL over JSONB and numeric columns.  Every answer is true or false, never NULL; every value is bound.

The rules of types are those of `segments.values`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Numeric,
    Text,
    and_,
    any_,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from segments.values import Amounts, ValueTest

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "eq": operator.eq,
}
#: What counts as a number in text; bounded, so that the cast cannot fail.
PLAIN_NUMBER = "^-?[0-9]{1,100}([.][0-9]{1,100})?$"


def compare_amount(amounts: Amounts, column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return whether a numeric `column`, which is never NULL, is as asked."""
    asked = ((name, getattr(amounts, name)) for name in _COMPARE)
    return and_(*(_COMPARE[name](column, _bound_number(value)) for name, value in asked if value is not None))


def test_value(test: ValueTest, value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return whether the JSONB `value` (NULL: nothing there) is as asked."""
    clauses: list[ColumnElement[bool]] = []
    if test.exists is not None:
        there = _certain(func.jsonb_typeof(value) != "null")
        clauses.append(there if test.exists else not_(there))
    if test.eq is not None:
        clauses.append(_is_any_of([test.eq], value))
    if test.ne is not None:
        clauses.append(not_(_is_any_of([test.ne], value)))
    if test.in_ is not None:
        clauses.append(_is_any_of(test.in_, value))
    if test.not_in is not None:
        clauses.append(not_(_is_any_of(test.not_in, value)))
    for name in ("gt", "gte", "lt", "lte"):
        if (wanted := getattr(test, name)) is not None:
            clauses.append(_certain(_COMPARE[name](*_ordered_pair(value, wanted))))
    if test.contains is not None:
        clauses.append(_contains(test.contains, value))
    return and_(*clauses)


def _certain(clause: ColumnElement[Any]) -> ColumnElement[bool]:
    return func.coalesce(clause, false())


def _bound_number(value: int | float) -> ColumnElement[Decimal]:
    return literal(Decimal(repr(value)), Numeric())


def _text_of(value: ColumnElement[Any]) -> ColumnElement[str]:
    """The text of a JSONB scalar, without quotes."""
    return value.op("#>>", return_type=Text())(literal_column("'{}'::text[]"))


def _as_text(value: ColumnElement[Any]) -> ColumnElement[str]:
    """The value if it is text, compared by code point; else NULL."""
    return case((func.jsonb_typeof(value) == "string", _text_of(value))).collate("C")


def _as_number(value: ColumnElement[Any]) -> ColumnElement[Decimal]:
    """The value if it is a number, or text that is wholly one; else NULL."""
    is_number = and_(func.jsonb_typeof(value).in_(("string", "number")), _text_of(value).regexp_match(PLAIN_NUMBER))
    return case((is_number, cast(_text_of(value), Numeric())))


def _as_truth(value: ColumnElement[Any]) -> ColumnElement[str]:
    """`true` or `false` if the value is a truth or says one; else NULL or other text."""
    kinds = func.jsonb_typeof(value).in_(("string", "boolean"))
    return case((kinds, func.lower(_text_of(value).collate("C"))))


def _ordered_pair(
    value: ColumnElement[Any], wanted: str | int | float
) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    if isinstance(wanted, str):
        return _as_text(value), literal(wanted, Text())
    return _as_number(value), _bound_number(wanted)


def _is_any_of(wanted: Sequence[Any], value: ColumnElement[Any]) -> ColumnElement[bool]:
    texts = [one for one in wanted if isinstance(one, str)]
    truths = ["true" if one else "false" for one in wanted if isinstance(one, bool)]
    numbers = [Decimal(repr(one)) for one in wanted if not isinstance(one, str | bool)]
    clauses: list[ColumnElement[bool]] = []
    if texts:
        clauses.append(_certain(_as_text(value) == any_(literal(texts, ARRAY(Text())))))
    if truths:
        clauses.append(_certain(_as_truth(value) == any_(literal(truths, ARRAY(Text())))))
    if numbers:
        clauses.append(_certain(_as_number(value) == any_(literal(numbers, ARRAY(Numeric())))))
    return or_(*clauses)


def _contains(wanted: Any, value: ColumnElement[Any]) -> ColumnElement[bool]:
    """A list holds an element equal to it; or it is text, and within the stored text."""
    a_list = case((func.jsonb_typeof(value) == "array", value), else_=literal_column("'[]'::jsonb"))
    element = func.jsonb_array_elements(a_list, type_=JSONB()).column_valued("element")
    holds = exists(select(literal(1)).where(_is_any_of([wanted], element)))
    if not isinstance(wanted, str):
        return holds
    return or_(holds, _certain(func.strpos(_as_text(value), literal(wanted, Text())) > 0))
