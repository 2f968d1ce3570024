"""Reading any CSV file a shop may hand us: encodings, delimiters, line ends and damage of every kind.

Good rows come out whatever their neighbours look like; each bad one is handed over with its line and the reason.  Line
numbers are those of the file as an editor shows it: the line on which a row begins.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self, cast

from dispatcher.errors import NotFound, Refused

LONGEST_LINE = 1_000_000  # characters; a longer one is damage, not data
MOST_LINES_IN_A_CELL = 1_000
_LONGEST_CELL = LONGEST_LINE
_DELIMITERS = ",;\t|"
_SAMPLE_BYTES = 65_536
_EXCEL_HINT = re.compile(r"sep=(.)\s*", re.IGNORECASE)
_TOO_LONG = "\0"  # stands for a line that was skipped; no line has a zero byte, they are taken out
_LONE_BYTES = re.compile("[\udc80-\udcff]")  # how surrogateescape shows bytes that are not UTF-8


class Row(NamedTuple):
    line: int
    values: dict[str, str]  # by column name; unnamed columns are left out


@dataclass(frozen=True, slots=True)
class BadRow:
    line: int
    reason: str
    cells: list[str]


class CsvFile:
    """An open CSV file: its columns, then its rows, once.  Refused if it cannot be one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._raw, self.size = _open(path)
        try:
            stream = self._raw if not _is_gzip(self._raw) else cast(BinaryIO, gzip.GzipFile(fileobj=self._raw))
            self._lines = _Lines(stream, path)
            self.delimiter, self._reader_options = ",", {"skipinitialspace": False}
            self.columns = self._read_header()
        except BaseException:
            self._raw.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    @property
    def position(self) -> int:
        """How many bytes of `size` have been taken from the file, for a progress bar."""
        return self._raw.tell()

    def rows(self, *, bad: Callable[[BadRow], None]) -> Iterator[Row]:
        """Yield each good row; hand each bad one to `bad`.  Rows without a single filled cell are nobody's."""
        columns, width, delimiter = self.columns, len(self.columns), self.delimiter
        named = all(columns)
        for line, text in self._lines:
            if text == _TOO_LONG:
                bad(BadRow(line, f"the line is longer than {LONGEST_LINE:,} characters", []))
                continue
            if '"' in text or self._reader_options["skipinitialspace"]:
                cells = self._quoted_row(line, text, width)
            else:
                cells = text.rstrip("\r\n").split(delimiter)
            if isinstance(cells, BadRow):
                bad(cells)
                continue
            if len(cells) != width:
                if not any(map(str.strip, cells)):
                    continue
                if len(cells) < width or any(map(str.strip, cells[width:])):
                    bad(BadRow(line, f"the row has {len(cells)} cells, the header has {width}", cells))
                    continue
            elif cells == columns and width > 1:
                bad(BadRow(line, "the header line again", cells))
                continue
            values = dict(zip(columns, cells, strict=False))
            if not named:
                values.pop("", None)
            if any(values.values()):
                yield Row(line, values)

    def _read_header(self) -> list[str]:
        """Return the column names of the first line that is not blank, and learn the delimiter from it."""
        said = None
        for line, text in self._lines:
            if text == _TOO_LONG:
                raise Refused(
                    f"{self.path.name}, line {line} is longer than {LONGEST_LINE:,} characters: not a CSV file"
                )
            if line == 1 and (hint := _EXCEL_HINT.fullmatch(text)):
                said = hint[1]
                continue
            if not text.strip():
                continue
            self.delimiter = said or _delimiter_of(text)
            self._reader_options = {"skipinitialspace": f"{self.delimiter} " in text and self.delimiter != "\t"}
            cells = self._quoted_row(line, text, None)
            if isinstance(cells, BadRow):
                raise Refused(f"{self.path.name}, line {line}: {cells.reason}, so the columns cannot be told")
            return self._named_once(line, [" ".join(cell.split()) for cell in cells])
        raise Refused(f"{self.path.name} is empty: its first line must name the columns")

    def _named_once(self, line: int, columns: list[str]) -> list[str]:
        twice = [name for name, count in Counter(columns).items() if name and count > 1]
        if twice:
            raise Refused(
                f"{self.path.name}, line {line}: more than one column is called {', '.join(twice)}; "
                "rename or remove all but one, so that it is clear which counts"
            )
        return columns

    def _quoted_row(self, line: int, text: str, width: int | None) -> list[str] | BadRow:
        """Return the cells of a row that has quotes, taking further lines while a quote is open.

        If the quote is never closed, or closes where no row of `width` cells comes out, only this line is bad:
        the lines taken are given back, since they may well be good rows of their own.
        """
        taken: list[tuple[int, str]] = []
        cells, whole = self._cells(text), text
        while cells is None and len(taken) < MOST_LINES_IN_A_CELL and len(whole) < _LONGEST_CELL:
            following = self._lines.next_line()
            if following is None:
                break
            taken.append(following)
            if following[1] == _TOO_LONG:
                break
            whole += following[1]
            if '"' in following[1]:
                cells = self._cells(whole)
        if taken and (cells is None or (width is not None and len(cells) != width)):
            self._lines.give_back(taken)
            return BadRow(line, "a quote is opened and never closed", [text.rstrip("\r\n")])
        return cells if cells is not None else BadRow(line, "a quote is opened and never closed", [text.rstrip("\r\n")])

    def _cells(self, text: str) -> list[str] | None:
        """Return the cells of one complete row, or None if a quote is still open."""
        options = {"delimiter": self.delimiter, **self._reader_options}
        try:
            return _only_row(csv.reader(io.StringIO(text, newline=""), strict=True, **options))  # type: ignore[arg-type]
        except csv.Error as error:
            if "unexpected end" in str(error):
                return None
        # text after a closing quote, as in `"VIP" customer,...`: sloppy, but clear as long as it is all on one line
        if re.search("[\r\n].", text):
            return []
        return _only_row(csv.reader([text], **options))  # type: ignore[arg-type]


def _only_row(reader: Iterator[list[str]]) -> list[str]:
    rows = list(reader)
    return rows[0] if len(rows) == 1 else []


def _delimiter_of(header: str) -> str:
    outside_quotes = re.sub(r'"[^"]*"?', "", header)
    return max(_DELIMITERS, key=outside_quotes.count)


def _open(path: Path) -> tuple[BinaryIO, int]:
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:  # a folder, or no right to read it
        raise Refused(f"{path} cannot be read: {error.strerror}") from error
    return file, path.stat().st_size


def _is_gzip(file: BinaryIO) -> bool:
    magic = file.read(2)
    file.seek(0)
    return magic == b"\x1f\x8b"


class _Lines:
    """The numbered lines of a file as text, each with its line end."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._path = path
        self._given_back: deque[tuple[int, str]] = deque()
        buffered = io.BufferedReader(cast(io.RawIOBase, stream), 2 * _SAMPLE_BYTES)
        encoding, bom = self._sniff(buffered)
        buffered.read(len(bom))
        self._text = io.TextIOWrapper(
            buffered, encoding, errors="surrogateescape" if encoding == "utf-8" else "replace", newline=""
        )
        self._fresh = self._numbered()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        given_back = self._given_back
        while True:
            if given_back:
                yield given_back.popleft()
                continue
            for item in self._fresh:
                yield item
                if given_back:
                    break
            else:
                if not given_back:
                    return

    def next_line(self) -> tuple[int, str] | None:
        return self._given_back.popleft() if self._given_back else next(self._fresh, None)

    def give_back(self, lines: list[tuple[int, str]]) -> None:
        self._given_back.extendleft(reversed(lines))

    def _numbered(self) -> Iterator[tuple[int, str]]:
        number = 0
        try:
            for number, raw in enumerate(iter(lambda: self._text.readline(LONGEST_LINE), ""), 1):
                yield number, self._cleaned(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Refused(
                f"{self._path.name} is damaged after line {number}: it does not unpack; fetch it again"
            ) from error

    def _cleaned(self, text: str) -> str:
        if len(text) == LONGEST_LINE:
            self._skip_to_line_end(text)
            return _TOO_LONG
        if not text.isascii() and _LONE_BYTES.search(text):
            text = _other_encoding(text)
        return text.replace("\0", "") if "\0" in text else text

    def _skip_to_line_end(self, text: str) -> None:
        while text and text[-1] not in "\r\n":
            text = self._text.readline(LONGEST_LINE)

    def _sniff(self, buffered: io.BufferedReader[io.RawIOBase]) -> tuple[str, bytes]:
        """Return the encoding and the byte order mark to skip.  Bytes that are not UTF-8 are settled line by line."""
        try:
            sample = buffered.peek(_SAMPLE_BYTES)[:_SAMPLE_BYTES]
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Refused(f"{self._path.name} is damaged: it does not unpack; fetch it again") from error
        if sample.startswith(b"PK\x03\x04"):
            raise Refused(f"{self._path.name} is a spreadsheet or a zip archive; save the sheet as CSV (UTF-8) first")
        for encoding, bom in (
            ("utf-8", codecs.BOM_UTF8),
            ("utf-32-le", codecs.BOM_UTF32_LE),  # before utf-16: begins with the same bytes
            ("utf-32-be", codecs.BOM_UTF32_BE),
            ("utf-16-le", codecs.BOM_UTF16_LE),
            ("utf-16-be", codecs.BOM_UTF16_BE),
        ):
            if sample.startswith(bom):
                return encoding, bom
        # most letters of a CSV are ASCII, and in UTF-16 every one of those has a zero byte beside it
        if sample[1::2].count(0) > len(sample) / 4:
            return "utf-16-le", b""
        if sample[0::2].count(0) > len(sample) / 4:
            return "utf-16-be", b""
        return "utf-8", b""


def _other_encoding(text: str) -> str:
    """Return a line that was not UTF-8 as what it then is: Windows-1252, or Latin-1 where that has no such letter."""
    raw = text.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("cp1252")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


csv.field_size_limit(_LONGEST_CELL)
