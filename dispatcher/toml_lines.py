"""Where each key of a TOML text stands: `tomllib` reads the values and forgets the lines."""

from __future__ import annotations

import re
import tomllib

from segments.errors import InvalidDocument
from segments.yaml_lines import Document

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEY = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_KEY})\s*\]\]?\s*(?:#.*)?$")
_PAIR = re.compile(rf"\s*({_KEY})\s*=")

Path = tuple[str | int, ...]


def load_toml(content: bytes, file: str) -> Document:
    """Return the data and its lines; InvalidDocument with `file:line: reason` if it is not TOML."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidDocument([f"{file}:{line}: not UTF-8; save the file as UTF-8"]) from error
    try:
        return Document(tomllib.loads(text), key_lines(text))
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        line = int(found[1]) if found and found[1] else max(1, len(text.splitlines()))
        reason = str(error)[: found.start()] if found else str(error)
        raise InvalidDocument([f"{file}:{line}: not TOML: {reason[:1].lower()}{reason[1:]}"]) from error


def key_lines(text: str) -> dict[Path, int]:
    """Return the line, from 1, of each table and key, by its path; entries of `[[lists]]` are counted from 0."""
    lines: dict[Path, int] = {}
    table: Path = ()
    entries: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _inside(_parts(header[2]), entries)
            if header[1] == "[[":
                entries[table] = entries.get(table, -1) + 1
                lines.setdefault(table, number)
                table = (*table, entries[table])
            lines.setdefault(table, number)
        elif pair := _PAIR.match(line):
            lines.setdefault((*table, *_parts(pair[1])), number)
    return lines


def _parts(key: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(_PART, key)]


def _inside(parts: list[str], entries: dict[Path, int]) -> Path:
    """Return the path of a header; a name of a list stands for its newest entry, unless it is the last part."""
    path: Path = ()
    for number, part in enumerate(parts):
        path = (*path, part)
        if path in entries and number < len(parts) - 1:
            path = (*path, entries[path])
    return path
