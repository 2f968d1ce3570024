"""YAML as plain data that remembers its lines, so that every error can name file, line and field.

A small and strict YAML: one document of mappings, lists, text, numbers, `true`/`false` and `null`.  Values are read as
in YAML 1.2, so `NO` is Norway and not `false`, `012` keeps its zero, and dates stay text.  Aliases, tags, doubled keys
and tabs as indentation are refused: the first two can make a small file huge or alive, the others hide mistakes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from segments.durations import format_duration
from segments.errors import InvalidDocument

Path = tuple[str | int, ...]

LONGEST_TEXT = 100_000  # characters of one file
DEEPEST = 40  # mappings and lists within each other

_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})?(\.[0-9]{0,18})?([eE][-+]?[0-9]{1,3})?")
_CONSTANTS = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_CONSTANTS |= {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Document:
    """The data of one YAML file, and where each part of it stands."""

    data: dict[str, Any]
    lines: dict[Path, int]

    def line_of(self, path: Sequence[str | int]) -> int:
        """Return the line, from 1, of what `path` names, or of the closest thing around it."""
        return self.lines.get(self.known_part(path), 1)

    def known_part(self, path: Sequence[str | int]) -> Path:
        """Return as much of `path` as is really written in the document."""
        parts = tuple(path)
        while parts and parts not in self.lines:
            parts = parts[:-1]
        return parts


def load_document(text: str | bytes, file: str) -> Document:
    """Return what the YAML `text` says; InvalidDocument with `file:line: reason` if it cannot be read."""
    content = _as_text(text, file)
    try:
        return _Reader(content, file).read()
    except yaml.reader.ReaderError as error:
        line = content.count("\n", 0, error.position) + 1
        reason = f"a character that YAML does not allow (#x{error.character:04x})"
        raise InvalidDocument([f"{file}:{line}: {reason}"]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InvalidDocument([f"{file}:{line}: not YAML: {error.problem or error.context}"]) from error


def findings(error: ValidationError, document: Document, file: str) -> list[str]:
    """Return one line for each error: `file:line: field: what is wrong`."""
    details = error.errors(include_url=False)
    wrong_inside = {detail["loc"][:depth] for detail in details for depth in range(len(detail["loc"]))}
    found = []
    for detail in details:
        if detail["type"] == "too_short" and detail["loc"] in wrong_inside:
            continue  # pydantic counts only the parts that are right, and the wrong ones are named already
        path = tuple(part for part in detail["loc"] if part != "[key]")
        if detail["type"] != "missing":
            path = document.known_part(path)  # a short form has no place for the field that it stands for
        field = f"{field_name(path)}: " if path else ""
        found.append(f"{file}:{document.line_of(path)}: {field}{_reason(detail)}")
    return list(dict.fromkeys(found))


def field_name(path: Sequence[str | int]) -> str:
    """Return `path` as people write it: match.all[1].count.gte."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def shown(value: Any) -> str:
    """Return `value` as an error message may show it: as JSON, and short."""
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, timedelta):
        return f'"{format_duration(value)}"'
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:56]} ..."


_REASONS: dict[str, Callable[[Any], str]] = {
    "missing": lambda _: "is missing",
    "extra_forbidden": lambda _: "is not known here",
    "int_type": lambda value: f"must be a whole number, got {shown(value)}",
    "int_parsing": lambda value: f"must be a whole number, got {shown(value)}",
    "int_from_float": lambda value: f"must be a whole number, got {shown(value)}",
    "float_type": lambda value: f"must be a number, got {shown(value)}",
    "float_parsing": lambda value: f"must be a number, got {shown(value)}",
    "bool_type": lambda value: f"must be true or false, got {shown(value)}",
    "bool_parsing": lambda value: f"must be true or false, got {shown(value)}",
    "model_type": lambda value: f"must be a mapping of fields, got {shown(value)}",
    "dict_type": lambda value: f"must be a mapping of fields, got {shown(value)}",
    "list_type": lambda value: f"must be a list, got {shown(value)}",
    "tuple_type": lambda value: f"must be a list, got {shown(value)}",
}
_LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


def _reason(detail: Any) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in _REASONS:
        return _REASONS[kind](value)
    if kind == "string_type":
        quotes = "; put it in quotes" if isinstance(value, bool | int | float) else ""
        return f"must be text, got {shown(value)}{quotes}"
    if kind == "string_pattern_mismatch" and context.get("pattern") == _NAME:
        return f"must be a name of lower-case letters, digits, - and _ (at most 63), got {shown(value)}"
    if kind == "literal_error":
        return f"must be {context['expected']}, got {shown(value)}"
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"must be {words} {_limit(context[key])}, got {shown(value)}"
    if kind in ("too_short", "too_long"):
        least = kind == "too_short"
        length = context["min_length" if least else "max_length"]
        return f"must have at {'least' if least else 'most'} {length} of them, got {context['actual_length']}"
    if kind == "string_too_short":
        return "must not be empty"
    message = str(context.get("error") or detail["msg"]).replace("Input should be", "must be")
    return message if kind == "value_error" else f"{message[:1].lower()}{message[1:]}, got {shown(value)}"


def _limit(limit: Any) -> str:
    text = str(limit)
    if text.startswith("datetime.timedelta("):  # all that pydantic tells of the limit of a length of time
        return format_duration(timedelta(**{unit: int(n) for unit, n in re.findall(r"(days|seconds)=(\d+)", text)}))
    return text


def _as_text(raw: str | bytes, file: str) -> str:
    text = raw if isinstance(raw, str) else _decoded(raw, file)
    text = text.removeprefix("\ufeff")
    if len(text) > LONGEST_TEXT:
        raise InvalidDocument([f"{file}:1: longer than {LONGEST_TEXT} characters"])
    for number, line in enumerate(text.splitlines(), 1):
        if "\t" in line[: len(line) - len(line.lstrip())]:
            raise InvalidDocument([f"{file}:{number}: a tab at the beginning of the line; indent with spaces"])
    return text


def _decoded(raw: bytes, file: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidDocument([f"{file}:{line}: not UTF-8; save the file as UTF-8"]) from error


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


class _Reader:
    """Builds the data from the parser's events: nothing is constructed but plain values."""

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._lines: dict[Path, int] = {}
        self._events: Iterator[Event] = yaml.parse(text, Loader=yaml.SafeLoader)

    def read(self) -> Document:
        data: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error(event, "a second document (---); write one in each file")
                data = self._value(next(self._events), ())
        if data is None:
            raise InvalidDocument([f"{self._file}:1: the file is empty"])
        if not isinstance(data, dict):
            raise InvalidDocument([f"{self._file}:1: must be a mapping of fields (name: ...), got {shown(data)}"])
        return Document(data, self._lines)

    def _value(self, event: Event, path: Path) -> Any:
        self._lines.setdefault(path, _line(event))
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
            raise self._error(event, "anchors and aliases (& and *) are not taken; write it out", path)
        if (tag := getattr(event, "tag", None)) is not None:
            raise self._error(event, f"tags ({tag}) are not taken; write plain values", path)
        if len(path) > DEEPEST:
            raise self._error(event, f"nested more than {DEEPEST} deep")
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path)
        return self._scalar(event, path)

    def _mapping(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(key := next(self._events), MappingEndEvent):
            if not isinstance(key, ScalarEvent):
                raise self._error(key, "a key must be plain text", path)
            name = str(self._text(key, path))
            inner = (*path, name)
            if name in found:
                raise self._error(key, f"is there twice, first on line {self._lines[inner]}", inner)
            self._lines[inner] = _line(key)
            found[name] = self._value(next(self._events), inner)
        return found

    def _sequence(self, path: Path) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            found.append(self._value(event, (*path, len(found))))
        return found

    def _scalar(self, event: Any, path: Path) -> Any:
        text = self._text(event, path)
        return plain_value(text) if event.style is None else text

    def _text(self, event: Any, path: Path) -> str:
        text: str = event.value
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise self._error(event, "holds a character that cannot be stored (NUL or half of a pair)", path)
        return text

    def _error(self, event: Event, reason: str, path: Path = ()) -> InvalidDocument:
        field = f"{field_name(path)}: " if path else ""
        return InvalidDocument([f"{self._file}:{_line(event)}: {field}{reason}"])


def plain_value(text: str) -> Any:
    """Return what an unquoted scalar says: null, a truth, a number, or the text itself."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and any(character.isdigit() for character in re.split("[eE]", text)[0]):
        number = float(text)
        return number if math.isfinite(number) else text
    return text
