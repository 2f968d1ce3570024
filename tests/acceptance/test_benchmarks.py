"""The benchmarks come to their end, so that their figures can be taken again; how fast is not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

SMALL = {
    "benchmarks --contacts 500 --naive 50": (
        "import contacts", "x the floor (aim: under 3)", "x the plan", "the floor's rate (aim: over 5)",
    ),
    "benchmarks.feedback --messages 500": ("stored and answered", "in the ledger"),
    "benchmarks.latency --contacts 500": ("on a quiet house", "by event", "by message"),
    "benchmarks.storefronts --orders 50 --edits 50": ("everything sorted", "floor: orders by import events"),
}  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("what", SMALL)
def test_a_small_benchmark_prints_each_figure_beside_its_floor(what: str) -> None:
    command = [sys.executable, "-m", *what.split()]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=200)

    assert done.returncode == 0, done.stderr
    for figure in SMALL[what]:
        assert figure in done.stdout.replace("[/]", ""), done.stdout
