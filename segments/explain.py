"""Why a contact is in a segment or not: every condition in words, whether it holds, and what was found.

`leaves` are the questions to ask, as SQL over one contact; `answers` makes the tree from what came back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement

from segments.definition import All, AnyOf, AttributeCondition, Condition, EventCondition, InterestCondition, Not
from segments.sql import (
    Vocabulary,
    attribute_value,
    compile_condition,
    event_count,
    event_sum,
    interest_score,
    newest_event,
)

HOLDS = "holds"


@dataclass(frozen=True, slots=True)
class Answer:
    """One condition, asked of one contact."""

    condition: str  #: in the words of the definition
    holds: bool
    found: Mapping[str, Any]  #: what was compared: count, last, sum, value or score
    parts: tuple[Answer, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the tree as JSON takes it."""
        found = {name: _plain(value) for name, value in self.found.items()}
        told: dict[str, Any] = {"condition": self.condition, "holds": self.holds}
        if found:
            told["found"] = found
        if self.parts:
            told["parts"] = [part.to_json() for part in self.parts]
        return told


def leaves(condition: Condition, vocabulary: Vocabulary) -> list[dict[str, ColumnElement[Any]]]:
    """Return, for each condition without parts, in reading order: its predicate (HOLDS) and what it measures."""
    return [_questions(leaf, vocabulary) for leaf in _leaves(condition)]


def answers(condition: Condition, found: Iterator[Mapping[str, Any]]) -> Answer:
    """Return the tree; `found` has the values of each of `leaves`, in their order."""
    if isinstance(condition, Not):
        part = answers(condition.condition, found)
        return Answer("not", not part.holds, {}, (part,))
    if isinstance(condition, All | AnyOf):
        parts = tuple(answers(part, found) for part in condition.conditions)
        together, word = (all, "all") if isinstance(condition, All) else (any, "any")
        return Answer(word, together(part.holds for part in parts), {}, parts)
    values = dict(next(found))
    return Answer(words(condition), values.pop(HOLDS), values)


def _leaves(condition: Condition) -> Iterator[EventCondition | AttributeCondition | InterestCondition]:
    if isinstance(condition, Not):
        yield from _leaves(condition.condition)
    elif isinstance(condition, All | AnyOf):
        for part in condition.conditions:
            yield from _leaves(part)
    else:
        yield condition


def _questions(
    leaf: EventCondition | AttributeCondition | InterestCondition, vocabulary: Vocabulary
) -> dict[str, ColumnElement[Any]]:
    asked: dict[str, ColumnElement[Any]] = {HOLDS: compile_condition(leaf, vocabulary)}
    if isinstance(leaf, AttributeCondition):
        asked["value"] = attribute_value(leaf.attribute, vocabulary)
    elif isinstance(leaf, InterestCondition):
        asked["score"] = interest_score(leaf.interest, vocabulary)
    else:
        if leaf.count is not None or (leaf.last is None and leaf.sum is None):
            asked["count"] = event_count(leaf, vocabulary)
        if leaf.last is not None:
            asked["last"] = newest_event(leaf, vocabulary)
        if leaf.sum is not None:
            asked["sum"] = event_sum(leaf, vocabulary)
    return asked


def words(leaf: EventCondition | AttributeCondition | InterestCondition) -> str:
    """Return the condition on one line, as the definition would say it in YAML."""
    kind = (
        "event"
        if isinstance(leaf, EventCondition)
        else "attribute"
        if isinstance(leaf, AttributeCondition)
        else "interest"
    )
    said = leaf.model_dump(mode="json")
    first = {kind: said.pop(kind)}
    return _flow({**first, **said}).removeprefix("{").removesuffix("}")


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return float(value) if isinstance(value, Decimal) else value
