"""Whose business a request in the inbox is that is no feedback about a message of ours."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine

from dispatcher import replies, storefronts
from dispatcher.feedback.inbox import STOREFRONTS, Mail
from dispatcher.keys import KeyRing


def take(database: Engine, key_ring: KeyRing, mails: Sequence[Mail]) -> list[str | None]:
    """Give each to whoever knows what to do; return for each why no sense can be made of it, or None."""
    told = iter(storefronts.take(database, key_ring, [mail for mail in mails if mail.source in STOREFRONTS]))
    flaws = []
    for mail in mails:
        if mail.source in STOREFRONTS:
            flaws.append(next(told))
        else:
            replies.take(database, key_ring, mail)
            flaws.append(None)
    return flaws
