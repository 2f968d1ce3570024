"""Free texts that ask to stop: heard at once, then looked at by a human."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, text

from dispatcher import audit, clock, suppression
from dispatcher.errors import NotFound, Refused
from dispatcher.keys import KeyRing
from dispatcher.replies.reading import Reading
from dispatcher.replies.taking import hold, source_of, withdraw_all


@dataclass(frozen=True, slots=True)
class Review:
    """A text that waits for somebody to look at it."""

    id: int
    received_at: datetime
    contact: str | None  #: external id; None: a number we do not know
    text: str  #: empty once the person is erased


def list_open(connection: Connection, key_ring: KeyRing) -> list[Review]:
    """Return the texts that wait, oldest first, opened."""
    rows = connection.execute(
        text("""SELECT r.id, r.received_at, c.external_id, COALESCE(r.data_key, c.data_key) AS data_key, r.sealed
                FROM reply r LEFT JOIN contact c ON c.id = r.contact_id WHERE r.review = 'open' ORDER BY r.id""")
    )
    found = []
    for row in rows:
        body = ""
        if row.data_key is not None and row.sealed is not None:
            body = str(key_ring.open_data_key(bytes(row.data_key)).open(bytes(row.sealed))["body"])
        found.append(Review(row.id, row.received_at, row.external_id, body))
    return found


def settle(
    connection: Connection, key_ring: KeyRing, reply_id: int, finding: Literal["stop", "not_stop"], *, by: str
) -> None:
    """Write down what a human found.

    `stop` withdraws their topics too, as STOP does.  `not_stop` corrects our reading: what rested on this text alone is
    lifted.  NotFound, or Refused if somebody was quicker.
    """
    row = connection.execute(
        text("SELECT address_id, review FROM reply WHERE id = :id AND review IS NOT NULL"), {"id": reply_id}
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no reply {reply_id} to review; see: dispatcher review list")
    people = hold(connection, row.address_id)
    if people is None:
        raise Refused("this number is being moved to another contact right now; try again")
    taken = connection.execute(
        text("""UPDATE reply SET review = :finding, reviewed_at = :now, reviewed_by = :by
                WHERE id = :id AND review = 'open'"""),
        {"finding": finding, "now": (now := clock.read_now(connection)), "by": by, "id": reply_id},
    ).rowcount
    if not taken:
        raise Refused(f"reply {reply_id} was reviewed already: {row.review}")
    source = source_of(reply_id, Reading.ASKS_TO_STOP)
    if finding == "stop":
        withdraw_all(connection, key_ring, people, row.address_id, source=source, now=now)
    else:
        mine = [s for s in suppression.suppressions_of(connection, row.address_id) if s.source == source]
        for one in mine:
            suppression.remove(connection, row.address_id, one.reason, by=by, as_the_person=True)
    audit.record(connection, by, f"review.{finding}", f"reply {reply_id}", {})
