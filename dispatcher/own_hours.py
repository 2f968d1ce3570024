"""A person's own quiet hours: one more silence, for marketing, by the clocks of every place they may be in.

Kept with the contact as a list of `{"hours": "22:00-08:00", "days": ["mon", ...]}`.  They only ever tighten: a message
must be outside the silences of the law, of the shop and of the person.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import orjson

from dispatcher.definitions import Silence

#: What `LocalSilence.source` says of them.
SOURCE = "person"


def stored(silences: Sequence[Silence]) -> str | None:
    """Return the column's JSON; None for no silence at all."""
    rows = [{"hours": str(silence).split()[0], "days": list(silence.days)} for silence in silences]
    return orjson.dumps(rows).decode() if rows else None


@lru_cache(maxsize=4096)
def read(column: str | None) -> tuple[Silence, ...]:
    """Return the silences in the column's JSON; () where there is none."""
    return tuple(Silence.model_validate(row) for row in orjson.loads(column)) if column else ()
