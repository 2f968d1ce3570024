"""Messages of unknown outcome: settled by evidence, never by guessing.

Evidence is feedback that carries our message id (`feedback.recording`), or a provider's own record that shows the
message.  That it does not show it proves nothing.  Marketing is never sent again; a transactional message is once, if
nothing was heard of it within the settle time and it is still of use.  After three days doubt stays for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, text

from dispatcher import clock, db
from dispatcher.locks import lock_contacts

if TYPE_CHECKING:  # the providers' package imports us
    from dispatcher.providers.protocol import Envelope

log = structlog.get_logger()

#: How long a transactional message may be in doubt before it is sent once more.
SETTLE_TIME = timedelta(minutes=10)
#: After this nobody looks any more: it stays unknown, and counts as finished.
FOR_GOOD_AFTER = timedelta(hours=72)
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Sighting:
    """A provider's own record of a message it accepted."""

    message_id: UUID
    ref: str | None
    at: datetime | None  #: when it was handed over, if the record says so


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A message of unknown outcome."""

    message_id: UUID
    address_id: int | None
    since: datetime  #: it left then or later
    #: What left, rendered once more; None if that cannot be done, or its contact has another address by now.
    envelope: Callable[[], Envelope | None]


@runtime_checkable
class LooksUp(Protocol):
    """A provider whose records can be asked."""

    name: str

    def look_up(self, doubtful: Sequence[Doubtful]) -> list[Sighting]:
        """Return the messages that were accepted for certain; one that is missing may have been accepted, too.

        Called every few seconds with everything in doubt, the oldest first: how often its records are asked, and of
        how many, is the provider's affair.  One that cannot be asked returns nothing.
        """
        ...


def settle_doubt(
    database: Engine,
    providers: Iterable[object],
    render: Callable[[UUID], Envelope | None] = lambda _: None,
) -> tuple[int, int]:
    """Look for evidence, then send again what may be; return how many messages were settled and how many go again.

    `render` returns a message as it left, for providers that know it by nothing else.
    """
    settled = 0
    by_name = {provider.name: provider for provider in providers if isinstance(provider, LooksUp)}
    for provider in by_name.values():
        settled += _look_up(database, provider, render)
    with database.begin() as connection:
        again = _send_again(connection)
    if settled or again:
        log.info("doubt.settled", settled=settled, sent_again=again)
    return settled, again


_IN_DOUBT = text("""
SELECT id, address_id, COALESCE(handed_over_at, authorised_at, settled_at) AS since FROM message
WHERE status = 'unknown' AND provider = :provider AND settled_at > :since
ORDER BY settled_at LIMIT 100_000
""")
_SEEN = text("""
UPDATE message m SET status = 'sent', provider_ref = COALESCE(m.provider_ref, x.ref),
       handed_over_at = COALESCE(m.handed_over_at, GREATEST(x.at, m.authorised_at))
FROM unnest(CAST(:ids AS uuid[]), CAST(:refs AS text[]), CAST(:moments AS timestamptz[])) AS x(id, ref, at)
WHERE m.id = x.id AND m.status = 'unknown' AND NOT EXISTS (
    SELECT FROM message other WHERE other.address_id = m.address_id AND other.authorised_at IS NOT NULL
      AND other.id <> m.id AND other.provider = m.provider AND other.provider_ref = x.ref)
""")


def _look_up(database: Engine, provider: LooksUp, render: Callable[[UUID], Envelope | None]) -> int:
    with database.connect() as connection:
        since = clock.read_now(connection) - FOR_GOOD_AFTER
        in_doubt = connection.execute(_IN_DOUBT, {"provider": provider.name, "since": since}).all()
    if not in_doubt:
        return 0
    doubtful = [Doubtful(row.id, row.address_id, row.since, partial(render, row.id)) for row in in_doubt]
    seen = sorted(provider.look_up(doubtful), key=lambda one: one.message_id)
    settled = 0
    for start in range(0, len(seen), _PAGE):
        page = seen[start : start + _PAGE]
        with database.begin() as connection:
            settled += connection.execute(
                _SEEN,
                {"ids": [one.message_id for one in page], "refs": [one.ref for one in page],
                 "moments": [one.at for one in page]},
            ).rowcount  # fmt: skip
    return settled


# Never security: a code that comes twice, or late, is worse than none.
_WAITED_ENOUGH = text("""
SELECT m.id, m.contact_id FROM message m
WHERE m.status = 'unknown' AND m.settled_at <= :now - :settle_time AND m.settled_at > :now - :for_good
  AND m.class = 'transactional' AND m.expires_at > :now
  AND NOT EXISTS (SELECT FROM attempt a WHERE a.message_id = m.id AND a.outcome = 'unknown')
ORDER BY m.settled_at LIMIT :page
""")
_FILE = text("""
INSERT INTO attempt (message_id, number, authorised_at, authorise_seq, send_deadline, handed_over_at, settled_at,
                     worker_id, provider, provider_ref, units, outcome, detail)
SELECT m.id, m.attempts, m.authorised_at, m.authorise_seq, m.send_deadline, m.handed_over_at, m.settled_at,
       m.worker_id, m.provider, m.provider_ref, m.units, 'unknown', 'nothing was heard of it within the settle time'
FROM message m WHERE m.id = ANY(:ids) AND m.status = 'unknown' AND m.expires_at > :now
ORDER BY m.id FOR NO KEY UPDATE
ON CONFLICT DO NOTHING RETURNING message_id
""")
_AGAIN = text("""
UPDATE message SET status = 'pending', due_at = :now, batch_id = NULL, authorised_at = NULL, authorise_seq = NULL,
       send_deadline = NULL, handed_over_at = NULL, settled_at = NULL, worker_id = NULL, provider = NULL,
       provider_ref = NULL
WHERE id = ANY(:ids) AND status = 'unknown'
""")


def _send_again(connection: Connection) -> int:
    now = clock.read_now(connection)
    waited = connection.execute(
        _WAITED_ENOUGH, {"now": now, "settle_time": SETTLE_TIME, "for_good": FOR_GOOD_AFTER, "page": _PAGE}
    ).all()
    if not waited:
        return 0
    lock_contacts(connection, [row.contact_id for row in waited])
    now = clock.read_now(connection)
    filed = list(connection.scalars(_FILE, {"ids": [row.id for row in waited], "now": now}))
    connection.execute(_AGAIN, {"ids": filed, "now": now})
    if filed:
        db.notify(connection, "due")
    return len(filed)


_FIGURES = text("""
SELECT count(*) FILTER (WHERE m.status = 'unknown' AND m.settled_at > :now - :for_good) AS open,
       count(*) FILTER (WHERE m.status = 'unknown' AND m.settled_at <= :now - :for_good) AS for_good
FROM message m WHERE m.run_id = :run AND m.status = 'unknown'
""")
_SENT_AGAIN = text("""
SELECT count(*) FROM attempt a JOIN message m ON m.id = a.message_id
WHERE m.run_id = :run AND a.outcome = 'unknown' AND m.authorised_at IS NOT NULL
""")


def figures_of(connection: Connection, run_id: UUID) -> dict[str, Any]:
    """Return how many messages of a run are in doubt, in doubt for good, and were sent a second time because of it."""
    row = connection.execute(
        _FIGURES, {"run": run_id, "now": clock.read_now(connection), "for_good": FOR_GOOD_AFTER}
    ).one()
    again = connection.execute(_SENT_AGAIN, {"run": run_id}).scalar_one()
    return {"open": row.open, "for_good": row.for_good, "sent_again": again}
