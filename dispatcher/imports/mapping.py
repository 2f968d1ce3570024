"""How the columns of an order file become events: `--map FILE.yaml`.

One row is one line of an order, and all lines with the same source key become one event.

    source_key: InvoiceNo                                  # a column
    contact: {column: CustomerID, as: whole_number}        # "17850.0" is contact 17850
    occurred_at: {column: InvoiceDate, format: "%Y-%m-%d %H:%M:%S", zone: UTC}
    name: order.placed
    renamed:                                               # the first that holds gives another name
      - {name: order.refunded, when: {column: InvoiceNo, like: "C*"}, reversed: true}
    item:
      quantity: Quantity
      value: {column: UnitPrice, times: quantity}
      properties: {product: StockCode}
      interests: {column: Description, rules_from: interests.yaml, else: other}
    leave_out:                                             # the first that holds is the reason that is counted
      - {reason: guest, column: CustomerID, empty: true}
      - {reason: not_positive, field: quantity, at_most: 0}

`reversed: true` says that the shop writes these quantities and values with a minus: what comes in is positive, and it
is the name that tells a refund from an order.  Rules are tried on the upper-cased text, first match wins.  Interests
may also be looked up: `{table: products.csv.gz, key: product_id, columns: [department, product_category]}`.  A file
named in a map is looked for beside the map, then beside the data.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from dispatcher.definitions import Definition, Zone
from dispatcher.errors import InvalidDefinition, NotFound
from dispatcher.events import SOURCE
from segments.errors import InvalidDocument
from segments.yaml_lines import findings, load_document

Text = Annotated[str, Field(min_length=1, max_length=200)]
D = TypeVar("D", bound=Definition)


def _column(value: Any) -> Any:
    """Take `InvoiceNo` for `{column: InvoiceNo}`."""
    return {"column": value} if isinstance(value, str) else value


def _list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Texts = Annotated[tuple[Text, ...], BeforeValidator(_list), Field(min_length=1)]


class TextColumn(Definition):
    """A column whose text is taken, trimmed; `as: whole_number` cleans a number that went through a spreadsheet."""

    column: Text
    as_: Annotated[Literal["text", "whole_number"], Field(alias="as")] = "text"


class InstantColumn(Definition):
    column: Text
    format: Text | None = None  # as of strptime; none: ISO 8601
    zone: Zone | None = None  # of times that do not say theirs

    @field_validator("format")
    @classmethod
    def _can_be_read(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                datetime.strptime(datetime(2011, 12, 9, 12, 50).strftime(value), value)  # noqa: DTZ001, DTZ007 - a trial
            except ValueError as error:
                raise ValueError(f"{value!r} is not a format of a time; write it like %Y-%m-%d %H:%M:%S") from error
        return value


class NumberColumn(Definition):
    column: Text
    times: Literal["quantity"] | None = None


class Rule(Definition):
    interest: Text
    regex: str

    @model_validator(mode="after")
    def _compiles(self) -> Rule:
        try:
            re.compile(self.regex)
        except re.error as error:
            raise ValueError(f"regex of {self.interest} is not one: {error}") from error
        return self


class RuleFile(Definition):
    """A file of rules, YAML or JSON; whatever note it carries is its own."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]


class Interests(Definition):
    """Where an item's interests come from: rules on a column's text, columns themselves, or a look-up table."""

    column: Text | None = None
    rules: tuple[Rule, ...] = ()
    rules_from: Text | None = None
    else_: Annotated[Text | None, Field(alias="else")] = None
    columns: tuple[Text, ...] = ()
    table: Text | None = None
    key: Text | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Interests:
        by_rules = bool(self.rules) + (self.rules_from is not None)
        if by_rules > 1 or by_rules != (self.column is not None) or bool(by_rules) == bool(self.columns):
            raise ValueError(
                "write column with rules or rules_from, or else columns (for a look-up with table and key)"
            )
        if (self.table is None) != (self.key is None) or (self.table is not None and by_rules):
            raise ValueError("a look-up needs table, key and columns")
        return self


class Condition(Definition):
    """Something that holds for a row or not: one test on one column, or on the item's quantity or value."""

    column: Text | None = None
    field: Literal["value", "quantity"] | None = None
    empty: Literal[True] | None = None
    in_: Annotated[Texts | None, Field(alias="in")] = None  # in any case of letters, as are patterns
    like: Texts | None = None  # patterns with * and ?
    at_most: Decimal | None = None

    @model_validator(mode="after")
    def _one_test(self) -> Condition:
        if (self.column is None) == (self.field is None):
            raise ValueError("write either column or field (quantity or value)")
        of_text = (self.empty is not None) + (self.in_ is not None or self.like is not None)
        if self.column is not None and (of_text != 1 or self.at_most is not None):
            raise ValueError("a column is tested by empty: true, or by in: [...] and like: [...]")
        if self.field is not None and (of_text or self.at_most is None):
            raise ValueError("quantity and value are tested by at_most: NUMBER")
        return self


class LeftOut(Condition):
    reason: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class Renamed(Definition):
    name: Text
    when: Condition
    reversed: bool = False

    @model_validator(mode="after")
    def _on_a_column(self) -> Renamed:
        if self.when.column is None:
            raise ValueError("an event is renamed by a column: it decides how quantity and value are read")
        return self


class ItemColumns(Definition):
    quantity: Annotated[NumberColumn | None, BeforeValidator(_column)] = None
    value: Annotated[NumberColumn | None, BeforeValidator(_column)] = None
    properties: dict[Text, Text] = Field(default_factory=dict)
    interests: Annotated[Interests | None, BeforeValidator(_column)] = None

    @model_validator(mode="after")
    def _times_what_is_there(self) -> ItemColumns:
        if self.quantity is not None and self.quantity.times is not None:
            raise ValueError("quantity cannot be multiplied by itself")
        if self.value is not None and self.value.times is not None and self.quantity is None:
            raise ValueError("value is times quantity, and there is no quantity")
        return self


class Mapping(Definition):
    """One map file."""

    source: Text = SOURCE
    source_key: Annotated[TextColumn, BeforeValidator(_column)]
    contact: Annotated[TextColumn, BeforeValidator(_column)]
    occurred_at: Annotated[InstantColumn, BeforeValidator(_column)]
    name: Text
    renamed: tuple[Renamed, ...] = ()
    item: ItemColumns = ItemColumns()
    leave_out: tuple[LeftOut, ...] = ()

    _folder: Path = PrivateAttr(default=Path())

    def find(self, name: str, data: Path) -> Path:
        """Return where a file named in the map is: beside the map, else beside the data."""
        for folder in (self._folder, data.parent):
            if (folder / name).is_file():
                return folder / name
        raise NotFound(f"the map names {name}, which is neither beside the map nor beside {data.name}")

    def rules(self, data: Path) -> Sequence[Rule]:
        """Return the interest rules, from their own file if the map names one."""
        interests = self.item.interests
        if interests is None:
            return ()
        return _read(RuleFile, self.find(interests.rules_from, data)).rules if interests.rules_from else interests.rules


def read_mapping(path: Path) -> Mapping:
    """Return the map in a file; InvalidDefinition names every finding with file, line and field."""
    mapping = _read(Mapping, path)
    mapping._folder = path.parent
    return mapping


def _read(kind: type[D], path: Path) -> D:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}") from error
    try:
        document = load_document(text, str(path))
    except InvalidDocument as error:
        raise InvalidDefinition(error.findings) from error
    try:
        return kind.model_validate(document.data)
    except ValidationError as error:
        raise InvalidDefinition(findings(error, document, str(path))) from error
