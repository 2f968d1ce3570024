"""Every route of the application, so that a test can ask all of them, those that are written later included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

#: What stands for a parameter of a path.
FILLED = {"message_id": "01930000-0000-7000-8000-000000000000", "run_id": "01930000-0000-7000-8000-000000000000"}


@dataclass(frozen=True)
class Asked:
    """One method of one route, with a path that it matches."""

    method: str
    route: str
    path: str

    @property
    def is_safe(self) -> bool:
        return self.method in ("GET", "HEAD", "OPTIONS")

    def __str__(self) -> str:
        return f"{self.method} {self.route}"


def every_route(app: FastAPI, tokens: dict[str, str]) -> list[Asked]:
    """Return every method of every route; `tokens` has a good token by the route's beginning, like `/u/`."""
    found = [
        Asked(method, path, _filled(path, tokens))
        for path, methods in _routes(app.routes)
        for method in sorted(methods)
    ]
    assert len({asked.route for asked in found}) > 15
    return found


def _routes(routes: Any) -> Iterator[tuple[str, set[str]]]:
    for route in routes:
        if (inner := getattr(route, "original_router", None)) is not None:
            yield from _routes(inner.routes)
        elif getattr(route, "methods", None):
            yield route.path, set(route.methods)


def _filled(path: str, tokens: dict[str, str]) -> str:
    token = next((token for begins, token in tokens.items() if path.startswith(begins)), "x")
    return re.sub(
        r"\{(\w+)(?::\w+)?\}", lambda found: token if found[1] == "token" else FILLED.get(found[1], "x"), path
    )
