"""When a run must pause itself."""

from __future__ import annotations

import pytest

from dispatcher.brake import LIMITS, explain_brake, verdict_on


@pytest.mark.parametrize(
    ("tried", "audience", "troubles", "because"),
    [
        (1_000, 100_000, {"bounces": 51}, "bounces"),
        (1_000, 100_000, {"bounces": 50}, None),  # exactly the limit is not over it
        (999, 100_000, {"bounces": 900}, None),  # its first hundredth is not out yet
        (49, 1_000, {"bounces": 49}, None),
        (50, 1_000, {"bounces": 5}, "bounces"),
        (20, 20, {"bounces": 5}, "bounces"),  # a small run is judged when all of it is out
        (20, 20, {"bounces": 4}, None),  # four of anything are chance
        (500, 10_000, {"complaints": 2}, None),
        (500, 10_000, {"complaints": 3}, "complaints"),
        (1_000, 10_000, {"complaints": 3}, None),
        (1_000, 10_000, {"render failures": 51}, "render failures"),
        (1_000, 10_000, {"unknown outcomes": 100}, None),
        (1_000, 10_000, {"unknown outcomes": 101}, "unknown outcomes"),
        (1_000, 10_000, {}, None),
        (0, 0, {}, None),
    ],
)
def test_a_run_is_judged(tried: int, audience: int, troubles: dict[str, int], because: str | None) -> None:
    verdict = verdict_on(tried, audience, troubles)

    assert (verdict and verdict["because"]) == because


@pytest.mark.parametrize("name", LIMITS)
def test_the_reason_says_how_many_and_what_to_do(name: str) -> None:
    verdict = verdict_on(1_000, 1_000, {name: 400})
    assert verdict is not None

    line = explain_brake(verdict)
    assert f"400 {name} in 1,000 messages, 40.0%" in line
    assert "campaign resume" in line
