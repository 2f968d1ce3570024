"""How the tests of the command line run a command, and what they ask afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ended]


def audited(database: Engine) -> list[tuple[str, str]]:
    with database.connect() as connection:
        return [(row.action, row.subject) for row in connection.execute(text("SELECT * FROM audit ORDER BY id"))]
