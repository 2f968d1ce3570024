"""A batch, from ticket to receipt: claim, render, then slice by slice authorise, hand over, settle.

No database session is open while a provider is talked to.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from threading import BoundedSemaphore, Event
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import DBAPIError

from dispatcher import clicks, clock, db, identity, outranked, release, suppression
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
from dispatcher.rates import accounts, hearing, line
from dispatcher.rates.line import Turn
from dispatcher.rates.meter import Meter
from dispatcher.rates.taking import Offer
from dispatcher.rates.units import domain_of, units_of
from dispatcher.rendering import CONTACT_COLUMNS, Renderer, Sender
from dispatcher.runs import load_run
from dispatcher.settle import settle
from dispatcher.suppression import Reason as SuppressionReason

log = structlog.get_logger()


#: How far away a turn of the rate may be for a hand to wait for it, and how long it waits in one batch at most: slower
#: lanes must not hold the threads that others need.
PATIENCE = timedelta(seconds=2)
MOST_WAITING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Hands:
    """What a worker process sends with."""

    database: Engine
    sender: Sender
    providers: dict[str, Provider]  #: by channel
    worker_id: UUID
    stopping: Event
    failovers: dict[str, Provider] = field(
        default_factory=dict
    )  #: by channel: who comes in when the first is not there
    #: Of the threads one may wait for its turn; the others have lanes to serve that are not at their limit.
    waiting: BoundedSemaphore = field(default_factory=BoundedSemaphore)
    meter: Meter = field(default_factory=Meter)
    figures: Figures = field(default_factory=Figures)

    def carriers(self, channel: str) -> dict[str, Provider]:
        """Return by name who could carry a channel's messages, the first choice first."""
        choices = (self.providers[channel], self.failovers.get(channel))
        return {provider.name: provider for provider in choices if provider is not None}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message of the batch with its envelope, or with the reason why there is none; neither: it has no address."""

    candidate: Candidate
    envelope: Envelope | None
    failure: str | None = None


def send_batch(hands: Hands, batch_id: int) -> int:
    """Send what may be sent of a batch; return how many were handed over.  A doubled ticket finds nothing."""
    claim: Claim | None = None
    try:
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
        batch = _Batch(hands, claim, run.channel, renderer)
        _follow(hands.database, [row.id for row in contents if row.merged_into is not None])
        rows.sort(key=lambda row: renderer.language(row.locale))  # mails of one language may share what is sent once
        batch.send(rows)
        return batch.handed_over
    except DBAPIError:
        raise
    except Exception:  # of its run or its template, if it could not even be claimed: somebody must mend that
        with hands.database.begin() as connection:
            release.put_aside(connection, batch_id)
        raise
    finally:
        if claim is not None:  # even if its commit had no answer: a claim that nobody works at has us killed as wedged
            db.insist(partial(_finish, hands.database, claim), finishing=batch_id)


class _Batch:
    """A claimed batch at work: turn by turn, as the rates let it."""

    def __init__(self, hands: Hands, claim: Claim, channel: str, renderer: Renderer) -> None:
        self.handed_over = 0
        self._hands, self._claim, self._channel, self._renderer = hands, claim, channel, renderer
        self._carriers = hands.carriers(channel)
        self._offers = [_offer(provider) for provider in self._carriers.values()]
        self._waits_until = time.monotonic() + MOST_WAITING_SECONDS
        self._each = 1  #: the units that a message took of late

    def send(self, rows: Sequence[Row[Any]]) -> None:
        """Send slice by slice; give the rest a time to come back at if the next turn is too far away."""
        left, limited = list(rows), True
        while left and not self._hands.stopping.is_set():
            most = self._offers[0].slice_size
            if limited:
                turn = self._turn(min(most, len(left)))
                if turn is None:
                    self._put_off()
                    return
                if self._hands.stopping.is_set():
                    return
                most, limited = turn.count, turn.limited
            some, left = _next_slice(left, most)
            rendered = [_render(self._renderer, row, self._channel) for row in some]
            clicks.keep(self._hands.database, self._renderer.take_personal_links())
            _write_failures(self._hands.database, self._claim, [r for r in rendered if r.failure is not None])
            short = self._send_slice([r for r in rendered if r.failure is None])
            left = [row for row in some if row.id in short] + left
            limited = limited or bool(short)

    def _turn(self, most: int) -> Turn | None:
        """Return a turn for up to so many messages, after having waited for it; None: it is too far away."""
        may_wait = time.monotonic() < self._waits_until and self._hands.waiting.acquire(blocking=False)
        try:
            with self._hands.database.begin() as connection:
                patience = PATIENCE if may_wait else timedelta(0)
                turn = line.next_turn(connection, self._claim.lane, self._offers, [self._each] * most, patience)
            if turn is not None and turn.wait:
                self._hands.stopping.wait(turn.wait.total_seconds())
            return turn
        finally:
            if may_wait:
                self._hands.waiting.release()

    def _put_off(self) -> None:
        """Give what is left of the batch a time to come back at, each its own: not all of it at once."""
        db.insist(
            partial(_put_off, self._hands.database, self._claim, self._offers, self._each),
            putting_off=self._claim.batch_id,
        )

    def _send_slice(self, rendered: list[Rendered]) -> set[UUID]:
        """Authorise, hand over, settle; return who has to wait for a turn."""
        hands, claim = self._hands, self._claim
        if not rendered:
            return set()
        self._each = max(1, round(sum(r.candidate.units for r in rendered) / len(rendered)))
        authorised = authorise(
            hands.database, claim, [r.candidate for r in rendered],
            offers=self._offers, urgent=self._renderer.urgent, sender=hands.sender.from_email,
        )  # fmt: skip
        going = [
            replace(r.envelope, closes_at=authorised.closes_at[r.candidate.message_id])
            for r in rendered
            if r.candidate.message_id in authorised.message_ids and r.envelope
        ]
        if not going:
            return authorised.taken.short
        provider = self._carriers[authorised.taken.provider]
        began = boot_seconds()
        receipts = _hand_over(provider, going, authorised)
        _count(hands.figures, claim.lane, provider.name, boot_seconds() - began, receipts)
        settle(hands.database, hands.worker_id, [e.message_id for e in going], receipts, authorised.moment)
        _suppress(hands.database, {e.message_id: r.suppress for e, r in zip(going, receipts, strict=True)
                                   if isinstance(r, Rejected) and r.suppress})  # fmt: skip
        self._heed(authorised, receipts)
        self.handed_over += len(going)
        log.info("slice.settled", run=str(claim.run_id), lane=claim.lane, provider=provider.name, messages=len(going),
                 units=sum(receipt.units for receipt in receipts if isinstance(receipt, Accepted)),
                 seconds=round(boot_seconds() - authorised.moment.boot, 3))  # fmt: skip
        return authorised.taken.short

    def _heed(self, authorised: Authorised, receipts: list[Receipt]) -> None:
        """Write down what the hand-over told of its provider, and what of the day's count was not used."""
        taken, lane, database = authorised.taken, self._claim.lane, self._hands.database
        heard = hearing.listen_to(receipts)
        self._hands.meter.count(taken.provider, sum(taken.going.values()))
        reached = self._hands.meter.per_second(taken.provider)
        if heard.sign == "refused":
            log.error("provider.refuses_our_account", provider=taken.provider, lane=lane, detail=heard.because)
        if heard.matters(taken.account, reached, authorised.moment.at, probe=taken.probe):

            def write(connection: Connection) -> None:
                now = clock.read_now(connection)
                hearing.heed(connection, lane, taken.provider, heard, now, probe=taken.probe, reached=reached)

            db.once(database, write, hearing=taken.provider)
        refused = sum(1 for r in receipts if isinstance(r, Rejected) and r.scope == "account")
        unused = refused + sum(1 for r in receipts if not isinstance(r, (Accepted, Rejected, Unknown)))
        if taken.warm_up is not None and unused > 0:
            sender, day = taken.warm_up
            db.once(database, lambda c: accounts.count_on(c, sender, day, -unused), counting_back=unused)


def _offer(provider: Provider) -> Offer:
    return Offer(provider.name, provider.slice_size, by_domain=provider.name == "smtp")


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
       CASE m.channel WHEN 'email' THEN c.email_address_id ELSE c.sms_address_id END AS address_id,
       (SELECT a.provider FROM attempt a WHERE a.message_id = m.id AND a.outcome = 'unknown' ORDER BY a.number LIMIT 1)
           AS may_have_left_by
FROM message m JOIN contact c ON c.id = m.contact_id
WHERE m.run_id = :run AND m.batch_id = :batch AND m.status = 'pending'
ORDER BY m.contact_id, m.id
""")  # noqa: S608 - fixed columns


def _next_slice(rows: Sequence[Row[Any]], size: int) -> tuple[list[Row[Any]], list[Row[Any]]]:
    """Return the next slice of at most `size` messages, with at most one of each contact, and what is left."""
    seen: set[int] = set()
    some: list[Row[Any]] = []
    rest: list[Row[Any]] = []
    for row in rows:
        if len(some) < size and row.contact_id not in seen:
            seen.add(row.contact_id)
            some.append(row)
        else:
            rest.append(row)
    return some, rest


def _render(renderer: Renderer, row: Row[Any], channel: str) -> Rendered:
    candidate = Candidate(
        row.id, row.contact_id, row.version, row.expires_at, row.first_due_at, only_by=row.may_have_left_by
    )
    if row.address_id is None:  # authorise says NO_ADDRESS; one that comes meanwhile is another version of the contact
        return Rendered(candidate, None)
    try:
        envelope = renderer.envelope(row)
    except DispatcherError as error:
        return Rendered(candidate, None, str(error))
    except Exception as error:  # data that cannot be opened, or worse: it concerns this message, not its neighbours
        log.error("render.broke", message=str(row.id), error=type(error).__name__)
        return Rendered(candidate, None, f"it could not be rendered ({type(error).__name__})")
    priced = replace(candidate, units=units_of(channel, envelope), domain=domain_of(channel, envelope))
    return Rendered(priced, envelope)


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


_STILL_PENDING = text("""
SELECT m.id, m.expires_at FROM message m JOIN batch b ON b.id = m.batch_id AND b.run_id = m.run_id
WHERE m.run_id = :run AND m.batch_id = :batch AND m.status = 'pending'
  AND b.claim_token = :token AND b.worker_id = :worker AND b.state = 'claimed'
ORDER BY m.first_due_at, m.id
""")


def _put_off(database: Engine, claim: Claim, offers: Sequence[Offer], each: int) -> None:
    """Defer what is pending in the batch, each to its place in the line of the lane's rate."""
    with database.begin() as connection:
        lock_pending_of(connection, [claim.batch_id])
        rows = connection.execute(
            _STILL_PENDING,
            {"run": claim.run_id, "batch": claim.batch_id, "token": claim.token, "worker": claim.worker_id},
        ).all()
        now = clock.read_now(connection)
        moments = line.put_off(connection, claim.lane, offers, [each] * len(rows), now)
        last_call = timedelta(seconds=5)  # rather asked once more than left to expire in the line
        connection.execute(
            text("""UPDATE message m SET due_at = x.due_at, deferred_reason = 'RATE', batch_id = NULL,
                           facts = jsonb_build_object('because', 'rate', 'lane', CAST(:lane AS text),
                                                      'until', to_jsonb(x.due_at))
                    FROM unnest(CAST(:ids AS uuid[]), CAST(:moments AS timestamptz[])) AS x(id, due_at)
                    WHERE m.id = x.id AND m.status = 'pending' AND m.batch_id = :batch"""),
            {
                "lane": claim.lane, "batch": claim.batch_id, "ids": [row.id for row in rows],
                "moments": [max(now, min(moment, row.expires_at - last_call))
                            for row, moment in zip(rows, moments, strict=True)],
            },
        )  # fmt: skip


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
