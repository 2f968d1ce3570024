"""Four real worker processes at a rate: they never pass it, and do not fall far below."""

from __future__ import annotations

import pytest

from benchmarks.rates import Case, measure

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize(
    "case",
    [
        Case("lane", '[rates]\n"email.marketing" = "60/s"\n', 60, 60),
        Case("account", "[rates.accounts]\nsandbox = {per_second = 60, burst = 40}\n", 48, 32),
    ],
    ids=lambda case: case.name,
)
def test_four_workers_together_never_pass_a_rate_and_reach_it(case: Case) -> None:
    kept = measure(case, seconds=12)

    assert kept.most <= case.burst + 0.001
    assert kept.reached > 0.8  # the benchmark asks for 95 % of a machine that does nothing else
