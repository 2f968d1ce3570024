"""The figures of an import, as JSON, the audit and the terminal take them."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any


def numbers_of(report: Any) -> dict[str, Any]:
    """Return a report's fields by name; `dataclasses.asdict` would turn a Counter inside out."""
    values = {field.name: getattr(report, field.name) for field in fields(report)}
    return {name: dict(value) if isinstance(value, Counter) else value for name, value in values.items()}
