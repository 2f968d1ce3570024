"""A click: where it leads, and the fact that it happened.

The redirect is on its way before the fact is written.  A fact is kept once a message, link, kind of reader and
day: whoever opens a link a thousand times fills nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from dispatcher import clock
from dispatcher.clicks.bots import BURST, TOGETHER, Look, bot_reason
from dispatcher.feedback.recording import record
from dispatcher.feedback.report import Kind, Report
from dispatcher.feedback.storing import key_of
from dispatcher.keys import KeyRing
from dispatcher.tokens import BadToken, ClickedLink

SOURCE = "link"

_FIND = text("""
SELECT m.id, m.channel, m.handed_over_at, c.data_key AS present_key, l.destination, t.sealed, s.data_key AS sealing_key,
       (SELECT max(f.occurred_at) FROM feedback f WHERE f.message_id = m.id AND f.kind = 'delivered') AS delivered_at
FROM tracked_message t JOIN message m ON m.id = t.message_id JOIN contact c ON c.id = m.contact_id
JOIN contact s ON s.id = t.contact_id
LEFT JOIN run_link l ON l.run_id = m.run_id AND l.number = :number
WHERE t.id = :id
""")
_IS_NOTED = text("SELECT EXISTS (SELECT FROM feedback WHERE source = :source AND event_key = :key)")
# Whoever commits last sees the others, so of several at once none is missed.
_MARK_TOGETHER = text("""
UPDATE feedback f SET bot = :together
WHERE f.message_id = :message AND f.source = :source AND f.bot IS NULL AND EXISTS (
    SELECT FROM feedback o WHERE o.message_id = f.message_id AND o.source = :source AND o.link <> f.link
      AND o.occurred_at BETWEEN f.occurred_at - CAST(:burst AS interval) AND f.occurred_at + CAST(:burst AS interval))
""")


@dataclass(frozen=True, slots=True)
class Click:
    """Where a link leads, and what is needed to note that it was clicked."""

    destination: str
    message_id: UUID
    number: int
    channel: str
    arrived_at: datetime | None
    is_erased: bool  #: of such a person nothing is noted
    clicked_at: datetime


def find(connection: Connection, key_ring: KeyRing, clicked: ClickedLink) -> Click:
    """Return the click; BadToken if the link leads nowhere (any more).

    The own links of a person who was erased lead nowhere; what everybody got still leads there.
    """
    row = connection.execute(_FIND, {"id": clicked.tracked_id, "number": clicked.number}).one_or_none()
    if row is None:
        raise BadToken
    destination = row.destination if row.destination is not None else _own_link(key_ring, row, clicked.number)
    arrivals = [at for at in (row.handed_over_at, row.delivered_at) if at is not None]
    return Click(
        destination, row.id, clicked.number, row.channel, max(arrivals, default=None), row.present_key is None,
        clock.read_now(connection),
    )  # fmt: skip


def _own_link(key_ring: KeyRing, row: Row[Any], number: int) -> str:
    if row.sealed is None or row.sealing_key is None:
        raise BadToken
    links = key_ring.open_data_key(row.sealing_key).open(row.sealed)
    if (link := links.get(str(number))) is None:
        raise BadToken
    return str(link)


def note(database: Engine, key_ring: KeyRing, click: Click, look: Look) -> None:
    """Write down that it happened, beside the message's status; nothing about who asked but what kind of reader."""
    if click.is_erased:
        return
    bot = bot_reason(look, clicked_at=click.clicked_at, arrived_at=click.arrived_at)
    report = Report(
        SOURCE,
        click.channel,
        identity=f"{click.message_id}/{click.number}/{bot or 'person'}/{click.clicked_at:%Y-%m-%d}",
        raw=None,
        kind=Kind.CLICKED,
        occurred_at=click.clicked_at,
        message_id=click.message_id,
        link=click.number,
        bot=bot,
    )
    with database.connect() as connection:
        if connection.scalar(_IS_NOTED, {"source": SOURCE, "key": key_of(key_ring, report)}):
            return  # a scanner that opens a link again and again takes no lock
    record(database, key_ring, [report])
    with database.begin() as connection:
        connection.execute(
            _MARK_TOGETHER, {"message": click.message_id, "source": SOURCE, "together": TOGETHER, "burst": BURST}
        )
