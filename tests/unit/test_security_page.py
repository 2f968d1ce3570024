"""The security page names what is there: every file, every test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| (\d+\.\d+\.\d+|webhooks)", line)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_a_row_names_a_test_that_is_there_and_a_place_that_is_there(row: str) -> None:
    _, _, what, where, tests, _ = (cell.strip() for cell in row.split("|"))
    named = re.findall(r"`([^`]+)`", tests)
    files = re.findall(r"`([^`]+)`", where)

    assert what
    assert named
    assert files or where == "everywhere"
    for file in files:
        assert (ROOT / file).is_file(), file
    for test in named:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test


def test_the_page_covers_the_checklist() -> None:
    covered = set(re.findall(r"\d+\.\d+\.\d+", "".join(row.split("|")[1] for row in ROWS)))

    assert covered >= {
        "1.2.10", "1.3.6", "1.3.7", "1.3.11", "1.3.12", "2.3.3", "2.4.1", "3.4.1", "3.5.3", "3.7.2", "4.1.2", "4.1.3",
        "9.1.1", "9.1.2", "9.2.2", "11.2.4", "11.5.1", "13.2.4", "14.1.1", "14.2.1", "14.3.2", "15.3.2", "15.3.4",
        "15.4.2", "16.2.5", "16.4.1", "16.5.1", "16.5.3",
    }  # fmt: skip


def test_a_report_goes_to_the_repository_and_to_no_invented_address() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")

    assert "private vulnerability reporting" in text
    assert "@" not in text
