"""Comparisons of the language: whole counts, amounts, and values of attributes and properties.

A value is text, a number or a truth.  What is stored may be of another type than what is asked for (a CSV knows only
text), so the type that is **asked for** decides:

* a number equals a stored number, or stored text that is wholly a plain decimal number (`12`, `-0.50`);
* text equals stored text only, letter by letter; before and after go by code point, so ISO dates compare well;
* a truth equals a stored truth, or the stored text `true` or `false` in any case.

What is not there, or of a type that does not fit, equals nothing, so `ne` and `not_in` (exactly the opposites of `eq`
and `in`) hold for it.
"""

from __future__ import annotations

import difflib
import math
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from segments.yaml_lines import shown

LONGEST_LIST = 1000
LARGEST_NUMBER = 10**15


class Part(BaseModel):
    """A frozen piece of a definition; a field that it does not know, or that is left empty, is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    @model_serializer(mode="wrap")
    def _what_is_said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if value is not None}

    @model_validator(mode="before")
    @classmethod
    def _only_known_fields(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known = [field.alias or name for name, field in cls.model_fields.items()]
        wrong = [_wrong_field(key, known, value[key]) for key in value if key not in known or value[key] is None]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return value


def _wrong_field(key: Any, known: list[str], value: Any) -> InitErrorDetails:
    if key in known:
        reason = "has no value"
    elif close := difflib.get_close_matches(str(key), known, 1):
        reason = f"is not known here; did you mean {close[0]}?"
    else:
        reason = f"is not known here; write one of {', '.join(known)}"
    return InitErrorDetails(type=PydanticCustomError("value_error", reason), loc=(str(key),), input=value)


def _storable(value: str) -> str:
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("holds a character that cannot be stored (NUL or half of a pair)")
    return value


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, got {shown(value)}")  # noqa: TRY004 - pydantic collects ValueError
    if not math.isfinite(value) or abs(value) > LARGEST_NUMBER:
        raise ValueError(f"must be between -{LARGEST_NUMBER:.0e} and {LARGEST_NUMBER:.0e}")
    return value


def _scalar(value: Any) -> Any:
    if value is None:
        raise ValueError("has no value; to ask for nothing being there, write exists: false")
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return _number(value)
    raise ValueError(f"must be one text, number or truth, got {shown(value)}")


def _ordered(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number or a text, got {shown(value)}")  # noqa: TRY004 - pydantic collects ValueError
    return _number(value)


Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200), AfterValidator(_storable)]
Number = Annotated[int | float, BeforeValidator(_number)]
_AnyText = Annotated[str, StringConstraints(strict=True, max_length=1000), AfterValidator(_storable)]
Scalar = Annotated[bool | int | float | _AnyText, BeforeValidator(_scalar)]
Ordered = Annotated[int | float | _AnyText, BeforeValidator(_ordered)]
Scalars = Annotated[tuple[Scalar, ...], Field(min_length=1, max_length=LONGEST_LIST)]
Whole = Annotated[int, Field(strict=True, ge=0, le=10**9)]


def _says_something(part: Part, example: str) -> None:
    if not part.model_fields_set:
        raise ValueError(f"compares with nothing; write for example {example}")


class Counts(Part):
    """A comparison with whole numbers: all that are given must hold."""

    gte: Whole | None = None
    gt: Whole | None = None
    lte: Whole | None = None
    lt: Whole | None = None
    eq: Whole | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Counts:
        _says_something(self, "{gte: 1}")
        return self

    @property
    def least(self) -> int:
        """The smallest count that holds."""
        return max(self.gte or 0, -1 if self.gt is None else self.gt + 1, self.eq or 0)

    @property
    def most(self) -> int | None:
        """The largest count that holds; None: any; below `least`: none does."""
        tops = [self.lte, None if self.lt is None else self.lt - 1, self.eq]
        return min((top for top in tops if top is not None), default=None)


class Amounts(Part):
    """A comparison with numbers; a bare number is `eq`."""

    gte: Number | None = None
    gt: Number | None = None
    lte: Number | None = None
    lt: Number | None = None
    eq: Number | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"eq": value} if isinstance(value, int | float | str) else value

    @model_validator(mode="after")
    def _is_one(self) -> Amounts:
        _says_something(self, "{gte: 100}")
        return self


class ValueTest(Part):
    """A comparison with one stored value; all that are given must hold.  A bare value is `eq`, a bare list is `in`."""

    eq: Scalar | None = None
    ne: Scalar | None = None
    in_: Annotated[Scalars | None, Field(alias="in")] = None
    not_in: Scalars | None = None
    gt: Ordered | None = None
    gte: Ordered | None = None
    lt: Ordered | None = None
    lte: Ordered | None = None
    exists: Annotated[bool, Field(strict=True)] | None = None
    contains: Scalar | None = None  # a list holds it, or a text has it within

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return {"in": value}
        return {"eq": value} if value is None or isinstance(value, str | bool | int | float) else value

    @model_validator(mode="after")
    def _is_one(self) -> ValueTest:
        if not self.model_fields_set - {"attribute"}:
            raise ValueError("compares with nothing; write for example eq: GB, in: [GB, FR] or exists: true")
        return self
