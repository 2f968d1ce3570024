"""The file of what was set aside."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path

import pytest

from dispatcher.errors import Refused
from dispatcher.imports.rejects import Rejects


def test_it_appears_whole_when_the_import_ends_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "rejected.csv"
    with Rejects(path, ["id", "name"]) as rejects:
        rejects.add(7, "no name", ["1", ""])
        assert not path.exists()

    assert path.read_text(encoding="utf-8").splitlines() == ["line,reason,id,name", "7,no name,1,"]
    assert path.stat().st_mode & 0o077 == 0
    assert rejects.written == path
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("cell", ["=HYPERLINK(1)", "+1", "-2+3", "@SUM(1)", "\tx", "\rx"])
def test_no_cell_is_a_formula(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "rejected.csv"
    with Rejects(path, [cell]) as rejects:
        rejects.add(2, "bad", [cell])

    with path.open(encoding="utf-8", newline="") as file:
        assert [row[2] for row in csv.reader(file)] == [f"'{cell}"] * 2


def test_an_import_that_fails_leaves_nothing_and_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "rejected.csv"
    path.write_text("earlier")

    with contextlib.suppress(RuntimeError), Rejects(path) as rejects:
        rejects.add(1, "bad")
        raise RuntimeError

    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_set_aside_is_no_file_or_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "rejected.csv"
    with Rejects(path):
        pass
    assert not path.exists()

    path.write_text("of an earlier import")
    with Rejects(path) as rejects:
        pass
    assert path.read_text().strip() == "line,reason"
    assert rejects.written is None


def test_a_folder_that_is_not_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no folder"), Rejects(tmp_path / "nowhere" / "rejected.csv"):
        pass
