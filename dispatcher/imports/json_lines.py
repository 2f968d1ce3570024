"""A file of JSON lines, one event each, gzip allowed; lines of any length, without ever holding a long one."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from dispatcher.errors import NotFound, Refused

LONGEST_LINE = 1_000_000  # bytes
_BOM = b"\xef\xbb\xbf"


class JsonLines:
    """An open file of JSON lines; yields (line number, its bytes), or None for the bytes of a line that is too long."""

    def __init__(self, path: Path) -> None:
        try:
            self._raw: BinaryIO = path.open("rb")
        except FileNotFoundError as error:
            raise NotFound(f"there is no file {path}") from error
        except OSError as error:
            raise Refused(f"{path} cannot be read: {error.strerror}") from error
        self._path = path
        self.size = path.stat().st_size
        packed = self._raw.read(2) == b"\x1f\x8b"
        self._raw.seek(0)
        self._lines = cast(BinaryIO, gzip.GzipFile(fileobj=self._raw)) if packed else self._raw

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._raw.close()

    @property
    def position(self) -> int:
        """How many of the file's own bytes are read."""
        return self._raw.tell()

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        number = 0
        try:
            while text := self._lines.readline(LONGEST_LINE + 1):
                number += 1
                if number == 1:
                    text = text.removeprefix(_BOM)
                if len(text) > LONGEST_LINE:
                    self._skip_the_rest(text)
                    yield number, None
                elif text.strip():
                    yield number, text
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Refused(
                f"{self._path.name} is damaged after line {number}: it does not unpack; fetch it again"
            ) from error

    def _skip_the_rest(self, text: bytes) -> None:
        while text and not text.endswith(b"\n"):
            text = self._lines.readline(LONGEST_LINE)
