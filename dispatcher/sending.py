"""A batch, from ticket to receipt: claim, render, then slice by slice authorise, hand over, settle.

No database session is open while a provider is talked to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from threading import Event
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, Row, text

from dispatcher import clicks, clock, db, identity, lanes, outranked, suppression
from dispatcher.authorise import LEASE, Authorised, Candidate, Claim, authorise
from dispatcher.errors import DispatcherError
from dispatcher.figures import Figures
from dispatcher.gates import Reason
from dispatcher.locks import lock_contacts, lock_pending_of
from dispatcher.providers.protocol import (
    Accepted,
    Envelope,
    NotSent,
    Provider,
    Receipt,
    Rejected,
    RetryAfter,
    Unknown,
    boot_seconds,
)
from dispatcher.rendering import CONTACT_COLUMNS, Renderer, Sender
from dispatcher.runs import load_run
from dispatcher.settle import ACCOUNT_REST, settle
from dispatcher.suppression import Reason as SuppressionReason

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Hands:
    """What a worker process sends with."""

    database: Engine
    sender: Sender
    providers: dict[str, Provider]  #: by channel
    worker_id: UUID
    stopping: Event
    figures: Figures = field(default_factory=Figures)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message of the batch with its envelope, or with the reason why there is none; neither: it has no address."""

    candidate: Candidate
    envelope: Envelope | None
    failure: str | None = None


def send_batch(hands: Hands, batch_id: int) -> int:
    """Send what may be sent of a batch; return how many were handed over.  A doubled ticket finds nothing."""
    with hands.database.begin() as connection:
        claim = _claim(connection, batch_id, hands.worker_id)
        if claim is None:
            return 0
        run = load_run(connection, claim.run_id)
        renderer = Renderer(connection, run, hands.sender)
        contents = connection.execute(_CONTENTS, {"run": claim.run_id, "batch": batch_id}).all()
        rows = [row for row in contents if row.merged_into is None]
        renderer.read_ahead(connection, [row.contact_id for row in rows])
        renderer.track(connection, rows)
    handed_over = 0
    try:
        provider = hands.providers[run.channel]
        _follow(hands.database, [row.id for row in contents if row.merged_into is not None])
        rows.sort(key=lambda row: renderer.language(row.locale))  # mails of one language may share what is sent once
        for some in _slices(rows, provider.slice_size):
            if hands.stopping.is_set():
                break
            rendered = [_render(renderer, row) for row in some]
            clicks.keep(hands.database, renderer.take_personal_links())
            _write_failures(hands.database, claim, [r for r in rendered if r.failure is not None])
            handed_over += _send_slice(
                hands, claim, provider, [r for r in rendered if r.failure is None], renderer.urgent
            )
    finally:
        db.insist(lambda: _finish(hands.database, claim), finishing=batch_id)
    return handed_over


def _follow(database: Engine, strays: list[UUID]) -> None:
    if strays:
        with database.begin() as connection:
            identity.follow(connection, strays)


def _claim(connection: Connection, batch_id: int, worker_id: UUID) -> Claim | None:
    """Take the batch for this worker, or return None if it is someone else's, done or gone."""
    row = connection.execute(
        text("""UPDATE batch SET state = 'claimed', claim_token = claim_token + 1, worker_id = :worker,
                       lease_until = clock_timestamp() + :lease
                WHERE id = :id AND state = 'ready' RETURNING id, claim_token, run_id, lane"""),
        {"id": batch_id, "worker": worker_id, "lease": LEASE},
    ).one_or_none()
    return None if row is None else Claim(row.id, row.claim_token, row.run_id, row.lane, worker_id)


_CONTENTS = text(f"""
SELECT m.id, m.expires_at, m.first_due_at, m.client, m.sealed AS data, c.merged_into, {CONTACT_COLUMNS},
       CASE m.channel WHEN 'email' THEN c.email_address_id ELSE c.sms_address_id END AS address_id
FROM message m JOIN contact c ON c.id = m.contact_id
WHERE m.run_id = :run AND m.batch_id = :batch AND m.status = 'pending'
ORDER BY m.contact_id, m.id
""")  # noqa: S608 - fixed columns


def _slices(rows: Sequence[Row[Any]], size: int) -> Iterator[list[Row[Any]]]:
    """Yield slices of at most `size` messages, each with at most one message per contact."""
    left = list(rows)
    while left:
        seen: set[int] = set()
        some: list[Row[Any]] = []
        rest: list[Row[Any]] = []
        for row in left:
            if len(some) < size and row.contact_id not in seen:
                seen.add(row.contact_id)
                some.append(row)
            else:
                rest.append(row)
        yield some
        left = rest


def _render(renderer: Renderer, row: Row[Any]) -> Rendered:
    candidate = Candidate(row.id, row.contact_id, row.version, row.expires_at, row.first_due_at)
    if row.address_id is None:  # authorise says NO_ADDRESS; one that comes meanwhile is another version of the contact
        return Rendered(candidate, None)
    try:
        return Rendered(candidate, renderer.envelope(row))
    except DispatcherError as error:
        return Rendered(candidate, None, str(error))
    except Exception as error:  # data that cannot be opened, or worse: it concerns this message, not its neighbours
        log.error("render.broke", message=str(row.id), error=type(error).__name__)
        return Rendered(candidate, None, f"it could not be rendered ({type(error).__name__})")


def _send_slice(hands: Hands, claim: Claim, provider: Provider, rendered: list[Rendered], urgent: bool) -> int:
    if not rendered:
        return 0
    authorised = authorise(
        hands.database, claim, [r.candidate for r in rendered], provider=provider.name, urgent=urgent
    )
    going = [
        replace(r.envelope, closes_at=authorised.closes_at[r.candidate.message_id])
        for r in rendered
        if r.candidate.message_id in authorised.message_ids and r.envelope
    ]
    if not going:
        return 0
    began = boot_seconds()
    receipts = _hand_over(provider, going, authorised)
    _count(hands.figures, claim.lane, provider.name, boot_seconds() - began, receipts)
    message_ids = [envelope.message_id for envelope in going]
    settle(hands.database, hands.worker_id, message_ids, receipts, authorised.moment)
    _suppress(hands.database, {e.message_id: r.suppress for e, r in zip(going, receipts, strict=True)
                               if isinstance(r, Rejected) and r.suppress})  # fmt: skip
    _rest(hands.database, claim.lane, provider, receipts)
    log.info("slice.settled", run=str(claim.run_id), lane=claim.lane, messages=len(going),
             units=sum(receipt.units for receipt in receipts if isinstance(receipt, Accepted)),
             seconds=round(boot_seconds() - authorised.moment.boot, 3))  # fmt: skip
    return len(going)


def _hand_over(provider: Provider, going: list[Envelope], authorised: Authorised) -> list[Receipt]:
    try:
        return provider.hand_over(going, authorised.moment, authorised.deadline)
    except Exception as error:  # a provider that breaks has told us nothing: every message of the slice is in doubt
        log.exception("provider.broke", provider=provider.name, error=type(error).__name__)
        return [Unknown(f"the provider code failed: {type(error).__name__}", boot_seconds()) for _ in going]


#: What a receipt is called in the figures.
OUTCOMES: dict[type[Receipt], str] = {
    Accepted: "accepted", Rejected: "rejected", RetryAfter: "retry_after", NotSent: "not_sent", Unknown: "unknown",
}  # fmt: skip


def _count(figures: Figures, lane: str, provider: str, seconds: float, receipts: list[Receipt]) -> None:
    figures.time("handover_seconds", lane, provider, seconds=seconds)
    for receipt in receipts:
        figures.count("receipts", lane, provider, OUTCOMES[type(receipt)])


def _rest(database: Engine, lane: str, provider: Provider, receipts: list[Receipt]) -> None:
    """Let the lane rest if its provider has had enough, or does not take anything from our account."""
    refusals = [r.detail for r in receipts if isinstance(r, Rejected) and r.scope == "account"]
    waits = [r.wait for r in receipts if isinstance(r, RetryAfter)] + [ACCOUNT_REST] * bool(refusals)
    if refusals:
        log.error("provider.refuses_our_account", provider=provider.name, lane=lane, detail=refusals[0])
    if waits:
        db.insist(partial(_rest_for, database, lane, max(waits)), resting=lane)


def _rest_for(database: Engine, lane: str, wait: timedelta) -> None:
    with database.begin() as connection:
        lanes.rest(connection, lane, wait, clock.read_now(connection))


def _suppress(database: Engine, refused: dict[UUID, SuppressionReason]) -> None:
    """Never use again what the provider says cannot work; one address a transaction, as each takes its own locks."""
    for message_id, reason in refused.items():
        db.insist(partial(_suppress_address, database, message_id, reason), suppressing=str(message_id))


def _suppress_address(database: Engine, message_id: UUID, reason: SuppressionReason) -> None:
    with database.begin() as connection:
        row = connection.execute(
            text("SELECT address_id, provider FROM message WHERE id = :id"), {"id": message_id}
        ).one()
        suppression.add(connection, row.address_id, reason, source=f"provider:{row.provider}")


def _write_failures(database: Engine, claim: Claim, failed: list[Rendered]) -> None:
    if not failed:
        return
    with database.begin() as connection:
        lock_contacts(connection, [r.candidate.contact_id for r in failed])
        connection.execute(
            text("""UPDATE message m SET status = 'failed', reason = :reason, deferred_reason = NULL, batch_id = NULL,
                           settled_at = :now, facts = jsonb_build_object('because', x.because)
                    FROM unnest(CAST(:ids AS uuid[]), CAST(:because AS text[])) AS x(id, because)
                    WHERE m.id = x.id AND m.status = 'pending' AND m.batch_id = :batch"""),
            {"reason": Reason.RENDER_FAILED, "now": clock.read_now(connection), "batch": claim.batch_id,
             "ids": [r.candidate.message_id for r in failed], "because": [r.failure for r in failed]},
        )  # fmt: skip
    outranked.let_go(database, [r.candidate.contact_id for r in failed])


def _finish(database: Engine, claim: Claim) -> None:
    """Close the batch; what is still pending (changed under way, or left by a stop) goes back to be gathered anew."""
    with database.begin() as connection:
        lock_pending_of(connection, [claim.batch_id])
        mine = connection.scalar(
            text("""UPDATE batch SET state = 'done', lease_until = NULL
                    WHERE id = :batch AND claim_token = :token AND worker_id = :worker AND state = 'claimed'
                    RETURNING id"""),
            {"batch": claim.batch_id, "token": claim.token, "worker": claim.worker_id},
        )
        if mine is not None:
            connection.execute(
                text(
                    """UPDATE message SET batch_id = NULL
                       WHERE run_id = :run AND batch_id = :batch AND status = 'pending'"""
                ),
                {"run": claim.run_id, "batch": claim.batch_id},
            )
