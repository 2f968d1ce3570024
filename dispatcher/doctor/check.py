"""One finding of `doctor`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Verdict = Literal["ok", "look", "wrong"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it is, and where it is not right what to do."""

    name: str
    verdict: Verdict  #: `look`: works, but somebody should know
    detail: str
    to_do: str = ""


def at_most_look(check: Check) -> Check:
    """Return the finding as one that keeps nobody from working: what is not in use yet cannot be wrong yet."""
    return replace(check, verdict="look") if check.verdict == "wrong" else check
