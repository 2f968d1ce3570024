"""The language of segments: who is meant, as frozen models.  `segments/README.md` shows it by example.

A condition is one of `all`, `any`, `not`, `event`, `attribute`, `interest`, and its kind is known by that key alone, so
that a mistake inside is reported once and for the kind that was meant.
"""

from __future__ import annotations

import difflib
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from segments.durations import Duration
from segments.errors import InvalidDocument, InvalidSegment
from segments.values import Amounts, Counts, Number, Part, Text, ValueTest
from segments.yaml_lines import findings, load_document, shown

MOST_CONDITIONS = 100
DEEPEST_NESTING = 10

KINDS = ("event", "attribute", "interest", "all", "any", "not")

Window = Annotated[Duration, Field(gt=timedelta(0))]
Interests = Annotated[
    tuple[Text, ...],
    Field(min_length=1, max_length=100),
    BeforeValidator(lambda value: value if isinstance(value, list | tuple) else (value,)),
]
Properties = Annotated[dict[Text, ValueTest], Field(min_length=1, max_length=20)]


def _of_its_kind(value: Any, _: ValidatorFunctionWrapHandler) -> Any:
    """Return the condition, read as the kind that its key names."""
    if isinstance(value, Part):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"must be one condition, like {{attribute: country, eq: GB}}, got {shown(value)}")  # noqa: TRY004
    kinds = [kind for kind in KINDS if kind in value]
    if len(kinds) > 1:
        raise ValueError(f"is two conditions at once ({kinds[0]} and {kinds[1]}); list them under all: or any:")
    if not kinds:
        keys = ", ".join(map(str, value)) or "nothing"
        close = [near[0] for key in value if (near := difflib.get_close_matches(str(key), KINDS, 1))]
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"is no condition (it has {keys}); it needs one of {', '.join(KINDS)}{hint}")
    return _MODELS[kinds[0]].model_validate(value)


Condition = Annotated[
    "All | AnyOf | Not | EventCondition | AttributeCondition | InterestCondition", WrapValidator(_of_its_kind)
]
Conditions = Annotated[tuple[Condition, ...], Field(min_length=1)]


class All(Part):
    """Every condition holds."""

    conditions: Annotated[Conditions, Field(alias="all")]


class AnyOf(Part):
    """At least one condition holds."""

    conditions: Annotated[Conditions, Field(alias="any")]


class Not(Part):
    """The condition does not hold; what is unknown does not hold, so its opposite does."""

    condition: Annotated[Condition, Field(alias="not")]

    @model_validator(mode="before")
    @classmethod
    def _only_one(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("not"), list):
            reason = "not takes one condition; put several under any: (none of them) or all: (not all of them)"
            raise ValueError(reason)  # noqa: TRY004 - pydantic collects ValueError
        return value


class ItemWhere(Part):
    """Fields of an item."""

    quantity: Amounts | None = None
    value: Amounts | None = None
    properties: Properties | None = None

    @model_validator(mode="after")
    def _names_something(self) -> ItemWhere:
        if not self.model_fields_set:
            raise ValueError("names nothing; write quantity, value or properties")
        return self


class Where(Part):
    """Which events count.  `interest` and `item` are about one item, and all hold on the same one; `value` and
    `properties` are the event's own."""

    interest: Interests | None = None  # any of these
    item: ItemWhere | None = None
    value: Amounts | None = None
    properties: Properties | None = None

    @model_validator(mode="after")
    def _names_something(self) -> Where:
        if not self.model_fields_set:
            raise ValueError("names nothing; write interest, item, value or properties")
        return self

    @property
    def is_about_items(self) -> bool:
        return self.interest is not None or self.item is not None


class Last(Part):
    """When the newest matching event was: `within: W` in (as_of - W, as_of], `older_than: W` before that, but ever."""

    older_than: Window | None = None
    within: Window | None = None

    @model_validator(mode="after")
    def _is_possible(self) -> Last:
        if not self.model_fields_set:
            raise ValueError("says no time; write {older_than: 7d} or {within: 7d}")
        if self.older_than is not None and self.within is not None and self.older_than >= self.within:
            raise ValueError("never holds: older_than must be shorter than within")
        return self


class EventCondition(Part):
    """Of the contact's events up to as_of: how many, when the newest, how much.  With none of these: at least one."""

    event: Text
    where: Where | None = None
    within: Window | None = None  # only events in (as_of - W, as_of]
    count: Counts | None = None
    last: Last | None = None
    sum: Literal["value", "quantity"] | None = None
    gte: Number | None = None  # what the sum is compared with
    gt: Number | None = None
    lte: Number | None = None
    lt: Number | None = None
    eq: Number | None = None

    @model_validator(mode="after")
    def _sum_is_compared(self) -> EventCondition:
        compared = [key for key in ("gte", "gt", "lte", "lt", "eq") if key in self.model_fields_set]
        if compared and self.sum is None:
            raise ValueError(
                f"{compared[0]} stands alone; write count: {{{compared[0]}: ...}}, or sum: value beside it"
            )
        if self.sum is not None and not compared:
            raise ValueError("sum is compared with nothing; write for example gte: 5000 beside it")
        return self

    @property
    def is_about_items(self) -> bool:
        return self.where is not None and self.where.is_about_items

    @property
    def amount(self) -> Amounts:
        """What the sum is compared with."""
        return Amounts.model_validate(self.model_dump(include={"gte", "gt", "lte", "lt", "eq"}))


class AttributeCondition(ValueTest):
    """A field of the contact: one of its own (country, zone ...) or one of its attributes."""

    attribute: Text


class Scores(Part):
    """A comparison with a decayed score.  It shrinks all the time, so nothing asks for an exact one."""

    gte: Annotated[Number, Field(ge=0)] | None = None
    gt: Annotated[Number, Field(ge=0)] | None = None
    lte: Annotated[Number, Field(ge=0)] | None = None
    lt: Annotated[Number, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Scores:
        if not self.model_fields_set:
            raise ValueError("compares with nothing; write for example {gte: 2}")
        return self


class InterestCondition(Part):
    """How much the contact cares for one interest: items ordered, each halved every half-life."""

    interest: Text
    score: Scores


_MODELS: dict[str, type[Part]] = {
    "event": EventCondition,
    "attribute": AttributeCondition,
    "interest": InterestCondition,
    "all": All,
    "any": AnyOf,
    "not": Not,
}


def _not_a_monster(value: Any) -> Any:
    """Refuse before anything recurses: too many conditions, or too deep."""
    waiting, seen = [(value, 1)], 0
    while waiting:
        condition, depth = waiting.pop()
        if not isinstance(condition, dict):
            continue
        seen += 1
        if depth > DEEPEST_NESTING:
            raise ValueError(f"nests conditions more than {DEEPEST_NESTING} deep")
        if seen > MOST_CONDITIONS:
            raise ValueError(
                f"has more than {MOST_CONDITIONS} conditions; `in` and lists of interests hold many values"
            )
        for key in ("all", "any", "not"):
            inner = condition.get(key)
            waiting += [(part, depth + 1) for part in (inner if isinstance(inner, list | tuple) else [inner])]
    return value


class Segment(Part):
    """A named rule: who is meant."""

    name: Annotated[str, Field(strict=True, pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    match: Annotated[Condition, BeforeValidator(_not_a_monster)]


for _model in (All, AnyOf, Not, Segment):
    _model.model_rebuild()


def parse_segment(text: str | bytes, file: str) -> Segment:
    """Return the segment that the YAML `text` defines; InvalidSegment names each mistake: `file:line: field: ...`."""
    try:
        document = load_document(text, file)
    except InvalidDocument as error:
        raise InvalidSegment(error.findings) from error
    try:
        return Segment.model_validate(document.data)
    except ValidationError as error:
        raise InvalidSegment(findings(error, document, file)) from error


def to_json(segment: Segment) -> dict[str, Any]:
    """Return the definition as JSON takes it: what the ledger and a run's snapshot keep."""
    return segment.model_dump(mode="json")


def from_json(value: dict[str, Any]) -> Segment:
    """Return the segment that `to_json` wrote."""
    return Segment.model_validate(value)
