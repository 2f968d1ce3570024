"""The clock's arrow: import-linter looks at packages, and scheduler.py is a single file."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def imported(path: Path) -> set[str]:
    """Return the top-level names a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_nobody_imports_the_clock() -> None:
    names = ("dispatcher", "segments", "workers", "migrations")
    rooms = [path for name in names for path in (ROOT / name).rglob("*.py")]

    assert len(rooms) > 50
    assert [str(path.relative_to(ROOT)) for path in rooms if "scheduler" in imported(path)] == []


def test_the_clock_knows_the_hands() -> None:
    assert "workers" in imported(ROOT / "scheduler.py")
