"""The rows that did not come in: a CSV with line and reason, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self

from dispatcher.errors import Refused

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")  # ASVS 5.0 1.2.10


class Rejects:
    """Collects what is set aside; the file appears whole when the import ends, or not at all.

    No path: only counts.  Nothing set aside: no file, but one of an earlier time is emptied.  The file can be read by
    its owner only: the original cells are in it.
    """

    def __init__(self, path: Path | None, columns: Sequence[str] = ()) -> None:
        self.path, self._columns = path, columns
        self.count = 0
        self._file: IO[str] | None = None
        self._writer: Any = None

    def __enter__(self) -> Self:
        if self.path is not None and not self.path.parent.is_dir():
            raise Refused(f"there is no folder {self.path.parent} to write {self.path.name} in")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._file is None and self.path is not None and self.path.exists():
            self._begin(self.path)
        if self._file is None:
            return
        temporary = Path(self._file.name)
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        if kind is None and self.path is not None:
            temporary.replace(self.path)
        else:
            temporary.unlink()

    @property
    def written(self) -> Path | None:
        """The file, if there is something in it."""
        return self.path if self.count else None

    def add(self, line: int, reason: str, cells: Sequence[str] = ()) -> None:
        """Set one row aside."""
        self.count += 1
        if self.path is None:
            return
        if self._file is None:
            self._begin(self.path)
        self._writer.writerow([line, _harmless(reason), *map(_harmless, cells)])

    def _begin(self, path: Path) -> None:
        try:
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed on exit
                "w", encoding="utf-8", newline="", dir=path.parent, prefix=f".{path.name}.", delete=False
            )
        except OSError as error:
            raise Refused(f"{path} cannot be written: {error.strerror}") from error
        self._writer = csv.writer(self._file)
        self._writer.writerow(["line", "reason", *map(_harmless, self._columns)])


def _harmless(cell: str) -> str:
    """Return the cell so that no spreadsheet takes it for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
