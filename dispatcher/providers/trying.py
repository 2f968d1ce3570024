"""Asking a provider's API about our own account: what every such question has in common."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from dispatcher.asking import Answered, Unreachable, ask
from dispatcher.providers.protocol import Trial


def ask_account(
    what: str, url: str, headers: Mapping[str, str], seconds: float, *, refused: str
) -> tuple[Answered | None, Trial]:
    """Return the answer, if it is a 200, and the finding; `refused`: what to do if they do not take our credentials."""
    try:
        said = ask("GET", url, headers=headers, seconds=seconds)
    except Unreachable as error:
        return None, Trial(None, f"{what} cannot be reached: {error}", "is the network open from here?")
    ahead = said.dated - said.asked_at if said.dated is not None else None
    if said.status == 200:
        return said, Trial(ok=True, detail=f"{what} knows our account", ahead=_rounded(ahead))
    if said.status in (401, 404):
        return None, Trial(False, f"{what} refuses our credentials ({said.status})", refused, _rounded(ahead))
    if said.status == 403:  # they are known, but may not ask this
        to_do = "dispatcher template send tries them with one mail to yourself"
        return None, Trial(None, f"{what} does not tell us about our account (403)", to_do, _rounded(ahead))
    return None, Trial(None, f"{what} answers {said.status}", "look at its status page", _rounded(ahead))


def _rounded(ahead: timedelta | None) -> timedelta | None:
    """Both are cut to the second: less than one is no difference."""
    if ahead is None:
        return None
    whole = round(ahead.total_seconds() + 0.5)  # a date is up to a second old when it is written
    return timedelta(seconds=0 if abs(whole) <= 1 else whole)
