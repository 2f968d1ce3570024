"""Whose business a request in the inbox is that is no feedback about a message of ours."""

from __future__ import annotations

from sqlalchemy import Engine

from dispatcher import replies, storefronts
from dispatcher.feedback.inbox import Mail
from dispatcher.keys import KeyRing


def take(database: Engine, key_ring: KeyRing, mail: Mail) -> None:
    """Give it to whoever knows what to do; NotUnderstood if no sense can be made of it."""
    if mail.source == "twilio.inbound":
        replies.take(database, key_ring, mail)
    else:
        storefronts.take(database, key_ring, mail)
