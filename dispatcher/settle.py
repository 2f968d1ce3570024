"""Write down what became of what was handed over, receipt by receipt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TypeGuard
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from dispatcher import clock, db
from dispatcher.gates import Reason
from dispatcher.providers.protocol import Accepted, Moment, NotSent, Receipt, Rejected, RetryAfter, Unknown
from dispatcher.rates.circuit import LONGEST_REST

_LONGEST_WAIT = timedelta(minutes=30)
_FIRST_WAIT = timedelta(seconds=5)

# Only the try that these receipts are of: the answer of a commit may be lost, and what is then written once more may
# find the message in this worker's hands again.
_SETTLE = text("""
UPDATE message m SET status = x.status, reason = x.reason, handed_over_at = x.handed_over_at, settled_at = :settled_at,
       provider_ref = x.ref, facts = CASE WHEN x.detail IS NOT NULL THEN jsonb_build_object('because', x.detail) END
FROM unnest(CAST(:ids AS uuid[]), CAST(:statuses AS text[]), CAST(:reasons AS text[]), CAST(:moments AS timestamptz[]),
            CAST(:refs AS text[]), CAST(:details AS text[])) AS x(id, status, reason, handed_over_at, ref, detail)
WHERE m.id = x.id AND m.status = 'sending' AND m.worker_id = :worker AND m.authorised_at = :authorised_at
""")

# Feedback was quicker than this receipt; only the receipt knows when the first byte left.
_OVERTAKEN = text("""
UPDATE message m SET handed_over_at = x.handed_over_at, provider_ref = COALESCE(m.provider_ref, x.ref)
FROM unnest(CAST(:ids AS uuid[]), CAST(:moments AS timestamptz[]), CAST(:refs AS text[])) AS x(id, handed_over_at, ref)
WHERE m.id = x.id AND m.status IN ('sent', 'delivered', 'bounced') AND m.handed_over_at IS NULL
  AND m.worker_id = :worker AND m.authorised_at = :authorised_at
""")

# Proof that nothing was accepted: the try is filed, its cap slot is free again, and the message waits for its next one.
_FILE_ATTEMPT = text("""
INSERT INTO attempt (message_id, number, authorised_at, authorise_seq, send_deadline, settled_at, worker_id, provider,
                     units, outcome, detail)
SELECT m.id, m.attempts, m.authorised_at, m.authorise_seq, m.send_deadline, :settled_at, m.worker_id, m.provider,
       m.units, 'not_sent', x.detail
FROM unnest(CAST(:ids AS uuid[]), CAST(:details AS text[])) AS x(id, detail)
JOIN message m ON m.id = x.id AND m.status = 'sending' AND m.worker_id = :worker
    AND m.authorised_at = :authorised_at
ON CONFLICT DO NOTHING
""")
# A provider's wait may be longer than the message is of use: then it is told so when it expires, and hangs no longer.
_BACK_TO_PENDING = text("""
UPDATE message m SET status = 'pending', batch_id = NULL, authorised_at = NULL, authorise_seq = NULL,
       send_deadline = NULL, worker_id = NULL, provider = NULL,
       due_at = LEAST(:now + GREATEST(x.wait, LEAST(:longest, :first * power(2, LEAST(m.attempts, 10) - 1))),
                      GREATEST(m.expires_at, :now))
FROM unnest(CAST(:ids AS uuid[]), CAST(:waits AS interval[])) AS x(id, wait)
WHERE m.id = x.id AND m.status = 'sending' AND m.worker_id = :worker AND m.authorised_at = :authorised_at
""")


def settle(
    database: Engine, worker_id: UUID, message_ids: Sequence[UUID], receipts: Sequence[Receipt], moment: Moment
) -> None:
    """Write the receipts; while the database is away, keep them and try for ever: they are all we know.

    `moment`: of the authorisation that they are of.
    """

    def write() -> None:
        with database.begin() as connection:
            _write(connection, worker_id, message_ids, receipts, moment)

    db.insist(write, settling=len(message_ids))


def _write(
    connection: Connection, worker_id: UUID, message_ids: Sequence[UUID], receipts: Sequence[Receipt], moment: Moment
) -> None:
    now = clock.read_now(connection)
    settled_at = max(now, moment.at)  # the clock may have been set back since
    mine = {"worker": worker_id, "authorised_at": moment.at}
    settled: list[tuple[Any, ...]] = []
    again: list[tuple[UUID, str, timedelta]] = []
    for message_id, receipt in zip(message_ids, receipts, strict=True):
        if _is_the_accounts(receipt):  # its circuit says how long, and who else may carry the message
            again.append((message_id, receipt.detail, timedelta(0)))
        elif isinstance(receipt, (NotSent, RetryAfter)):
            again.append((message_id, receipt.detail, receipt.wait))
        else:
            settled.append((message_id, *_outcome(receipt, moment)))
    if settled:
        ids, statuses, reasons, moments, refs, details = (list(column) for column in zip(*settled, strict=True))
        written = connection.execute(
            _SETTLE,
            {"ids": ids, "statuses": statuses, "reasons": reasons, "moments": moments, "refs": refs,
             "details": details, "settled_at": settled_at, **mine},
        )  # fmt: skip
        if written.rowcount < len(settled):
            connection.execute(_OVERTAKEN, {"ids": ids, "moments": moments, "refs": refs, **mine})
    if again:
        ids, details, waits = (list(column) for column in zip(*again, strict=True))
        connection.execute(_FILE_ATTEMPT, {"ids": ids, "details": details, "settled_at": settled_at, **mine})
        connection.execute(
            _BACK_TO_PENDING,
            {"ids": ids, "waits": waits, "now": now, "longest": _LONGEST_WAIT, "first": _FIRST_WAIT, **mine},
        )


def _is_the_accounts(receipt: Receipt) -> TypeGuard[Rejected | RetryAfter]:
    """Whether what it says is no fault of the message: a refusal of our account, or a wait that nobody waits for."""
    if isinstance(receipt, RetryAfter):
        return receipt.wait > LONGEST_REST
    return isinstance(receipt, Rejected) and receipt.scope == "account"


def _outcome(
    receipt: Accepted | Rejected | Unknown, moment: Moment
) -> tuple[str, str | None, datetime | None, str | None, str | None]:
    """Return status, reason, when its first byte left, the provider's reference, and what was said."""
    handed_over_at = None if receipt.handed_over is None else moment.instant(receipt.handed_over)
    match receipt:
        case Accepted(ref=ref):
            return "sent", None, handed_over_at, ref, None
        case Rejected(detail=detail):
            return "failed", Reason.REJECTED, handed_over_at, None, detail
        case Unknown(detail=detail):
            return "unknown", None, handed_over_at, None, detail
