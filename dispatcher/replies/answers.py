"""The one text that may go back: a transactional SMS of the ledger, in the run of answers.

That run is of its own (`house_messages`): only what is in it may go to a number that has said STOP.  The texts are
`templates/sms/answer-...`; a workspace may have its own.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection

from dispatcher import house_messages
from dispatcher.runs import ANSWERS

Subject = Literal["stop", "start", "help"]

#: Who asks for these messages, in `message.client`; no API key can have this name.  The key is what they answer.
CLIENT = "dispatcher:reply"
#: A confirmation that comes later than this is no longer covered by the consent it ends (47 CFR 64.1200(a)(12)).
IN_TIME = timedelta(minutes=5)

_FAMILY = house_messages.Family(ANSWERS, CLIENT, "transactional")


def answer(
    connection: Connection, subject: Subject, contact_id: int, address_id: int, *, key: str, now: datetime
) -> UUID | None:
    """Write the answer to what `key` names, due now, and return its id; None if it was answered before.

    The caller holds the contact and the address.
    """
    return house_messages.send(
        connection, _FAMILY, f"answer-{subject}", "sms", contact_id=contact_id, address_id=address_id, key=key,
        now=now, expires_at=now + IN_TIME,
    )  # fmt: skip
