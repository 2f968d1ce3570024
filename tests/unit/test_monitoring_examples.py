"""The example alerts and the dashboard name only what is there, and every alert says what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monitoring import DASHBOARD, FOLDER, NAME, RULES, names_of, queries
from prometheus_client.metrics_core import Metric
from test_docs import anchors

from dispatcher.metrics import families
from dispatcher.metrics.counted import Count
from dispatcher.metrics.state import State

ROOT = Path(__file__).resolve().parents[2]


def exported() -> Iterator[Metric]:
    """Yield every family as a scrape of an empty house has it."""
    state = State([], [], {}, {}, 0.0, False, 0.0, {}, 0, 0, 0, 0, 0, 0, 0.0, 0, 0, {})
    yield families.database_up(True)
    yield families.build_info()
    yield families.scrape_seconds(0.1)
    yield from families.of_state(state)
    yield from families.of_figures({})
    yield from families.of_count(Count())


EXPORTED = set().union(*(names_of(family) for family in exported()))


def test_every_metric_that_is_named_is_exported() -> None:
    named = {name for query in queries() for name in NAME.findall(query)}

    assert len(named) > 20
    assert named - EXPORTED == set()


def test_every_metric_is_in_the_alerts_or_on_the_dashboard_but_a_few() -> None:
    named = {name for query in queries() for name in NAME.findall(query)}
    shown = {family.name for family in exported() if names_of(family) & named}

    assert {family.name for family in exported()} - shown == {
        "dispatcher_build",
        "dispatcher_clock_silent_seconds",  # rooms_alive says it
        "dispatcher_clock_offset_seconds",
    }


def test_every_metric_is_explained() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    explained = {name for line in page.splitlines() if line.startswith("|") for name in NAME.findall(line)}

    assert {family.name for family in exported()} == {re.sub(r"_(total|info)$", "", name) for name in explained}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_it_is_and_where_to_read_what_to_do(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook"].partition("#")

    assert len(rule["annotations"]["summary"]) > 20
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert anchor == rule["alert"].lower()
    assert anchor in anchors(ROOT / page)


def test_every_runbook_is_of_an_alert() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")

    assert re.findall(r"^### (Dispatcher\w+)$", page, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_the_dashboard_can_be_imported_with_any_data_source() -> None:
    [variable] = DASHBOARD["templating"]["list"]
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert "id" not in DASHBOARD  # Grafana gives it one
    assert not _overlapping(panels)


def _overlapping(panels: list[dict[str, Any]]) -> bool:
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        if cells & taken or place["x"] + place["w"] > 24:
            return True
        taken |= cells
    return False


def test_prometheus_own_tool_finds_the_rules_right() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on this machine (apt: prometheus)")
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]):
        done = subprocess.run([promtool, *command], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
