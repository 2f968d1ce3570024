"""The benchmarks come to their end, so that their figures can be taken again; how fast is not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.thorough
def test_a_small_benchmark_prints_each_figure_beside_its_floor() -> None:
    small = [sys.executable, "-m", "benchmarks", "--contacts", "500", "--naive", "50"]
    done = subprocess.run(small, cwd=REPOSITORY, capture_output=True, text=True, timeout=200)

    assert done.returncode == 0, done.stderr
    for figure in ("import contacts", "x the floor (aim: under 3)", "x the plan", "the floor's rate (aim: over 5)"):
        assert figure in done.stdout.replace("[/]", ""), done.stdout
