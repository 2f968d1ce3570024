"""The example alert rules and the dashboard, as tests read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.metrics_core import Metric

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "monitoring"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
#: A name of ours in a query or in a text.
NAME = re.compile(r"\b(?:dispatcher|process)_[a-z_]+\b")


def queries() -> Iterator[str]:
    """Yield every query of the rules and of the dashboard."""
    yield from (rule["expr"] for rule in RULES)
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def names_of(family: Metric) -> set[str]:
    """Return what a family's samples are called."""
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}
    return {f"{family.name}{ending}" for ending in endings.get(family.type, ("",))}
