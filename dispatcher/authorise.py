"""The point of no return: the transaction after whose commit a message may leave, and before which none does.

Under the locks of every contact and address of the slice the facts are read afresh and `decide` is asked again.  An
unsubscribe takes the same locks, so there is one order: either the message was authorised before it, or sees it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from dispatcher import audience, clock, db, outranked
from dispatcher.facts import Facts
from dispatcher.facts_page import order_of, read_facts
from dispatcher.gates import Defer, Reason, Send, Skip, Verdict, decide, within_expiry
from dispatcher.locks import heed_brake, lock_addresses, lock_contacts
from dispatcher.openings import open_until
from dispatcher.providers.protocol import Moment, boot_seconds
from dispatcher.rates import accounts, taking
from dispatcher.rates.taking import Offer, Speed, Taken, Wanted
from dispatcher.runs import Run, load_run
from dispatcher.shop import load_shop
from segments.definition import from_json

#: Between the commit and the first byte at most this long; past it the message settles as not sent.
SEND_WITHIN = timedelta(seconds=20)
LEASE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Claim:
    """A batch that is this worker's, as long as the token is the newest."""

    batch_id: int
    token: int
    run_id: UUID
    lane: str
    worker_id: UUID


@dataclass(frozen=True, slots=True)
class Candidate:
    """A message of the batch, rendered for one version of its contact."""

    message_id: UUID
    contact_id: int
    contact_version: int
    expires_at: datetime
    first_due_at: datetime
    units: int = 1  #: what it takes of its provider's rate
    domain: str | None = None  #: that a mail goes to
    only_by: str | None = None  #: the account by which it may have left before


@dataclass(frozen=True, slots=True)
class Authorised:
    """Who of a slice may go, until when."""

    message_ids: frozenset[UUID]
    moment: Moment
    deadline: float  #: boot time
    closes_at: Mapping[UUID, datetime]  #: by message: its next silence or its expiry, whichever comes first
    taken: Taken  #: by whom they go, and who waits for a turn of the rate


def authorise(
    database: Engine,
    claim: Claim,
    slice_: Sequence[Candidate],
    *,
    offers: Sequence[Offer],
    urgent: bool,
    sender: str | None = None,
) -> Authorised:
    """Authorise what may go of a slice (at most one message per contact), and write what may not.

    `offers`: whose providers could carry it, the first choice first; `sender`: its address, if not the shop's own.
    Whoever has to wait for a turn of the rate (`taken.short`) is neither authorised nor written.

    Returns after the commit was acknowledged.  If its answer is lost, nothing may go: what may have been written is
    taken back under the same locks, since no byte has been.
    """
    try:
        with database.begin() as connection:
            return _authorise(connection, claim, slice_, offers=offers, urgent=urgent, sender=sender)
    except DBAPIError as error:
        if error.connection_invalidated:
            db.insist(lambda: take_back(database, claim, slice_), taking_back=len(slice_))
        raise


def _authorise(
    connection: Connection,
    claim: Claim,
    slice_: Sequence[Candidate],
    *,
    offers: Sequence[Offer],
    urgent: bool,
    sender: str | None,
) -> Authorised:
    heed_brake(connection)
    heed_brake(connection, claim.run_id)
    run = load_run(connection, claim.run_id)
    stopped = connection.scalar(text("SELECT stopped_at IS NOT NULL FROM engine"))
    contact_ids = [candidate.contact_id for candidate in slice_]
    lock_contacts(connection, contact_ids)
    lock_addresses(connection, _addresses_of(connection, run.channel, contact_ids))
    boot = boot_seconds()  # before the other clock: whoever is frozen between the two has less time left, not more
    now = clock.read_now(connection)
    moment = Moment(now, boot)
    by_contact = {candidate.contact_id: candidate for candidate in slice_}
    shop = load_shop(connection)
    order = order_of(run, shop, stopped=bool(stopped), urgent=urgent)
    page = read_facts(
        connection,
        order,
        contact_ids,
        now=now,
        live=True,
        expires_at={c.contact_id: c.expires_at for c in slice_},
        first_due_at={c.contact_id: c.first_due_at for c in slice_},
        outside_segment=_left_the_segment(connection, run, contact_ids, now),
        held_out_by_hash=False,  # the plan has decided who is held out
        messages=[candidate.message_id for candidate in slice_],
    )
    verdicts = _judge(page, now)
    free = [facts for facts, verdict in verdicts if isinstance(verdict, Send)]
    speed = Speed(shop.rates, shop.warm_up, sender or shop.shop.from_email, shop.shop.zone)
    wanted = [_wanted(by_contact[facts.contact_id]) for facts in free]
    taken = taking.take(connection, claim.lane, wanted, now, offers=offers, speed=speed)
    going = [facts for facts in free if by_contact[facts.contact_id].message_id in taken.going]
    for facts in free:
        deferral = taken.deferred.get(by_contact[facts.contact_id].message_id)
        if deferral is not None:
            verdicts.append((facts, within_expiry(deferral, facts)))
    objections = [(facts, verdict) for facts, verdict in verdicts if not isinstance(verdict, Send)]
    _renew_lease(connection, claim)
    _write_objections(connection, claim, by_contact, objections, now)
    sent = _write_sends(connection, claim, by_contact, going, now, taken)
    if taken.warm_up is not None and len(sent) < len(taken.going):  # changed under way: not of the day's count
        accounts.count_on(connection, *taken.warm_up, len(sent) - len(taken.going))
    if taken.probe and not sent:  # nobody goes to see whether the provider is there: let somebody else
        accounts.write_circuit(connection, taken.provider, replace(taken.account.circuit, state="open", open_until=now))
    if order.facts.marketing:
        _wake_others(connection, by_contact, going, objections, now)
    first_expiry = min((facts.expires_at for facts in going), default=now + SEND_WITHIN)
    within = min(SEND_WITHIN, first_expiry - now)
    closes_at = {by_contact[facts.contact_id].message_id: open_until(facts, now) for facts in going}
    return Authorised(frozenset(sent), moment, moment.boot + within.total_seconds(), closes_at, taken)


def _wanted(candidate: Candidate) -> Wanted:
    return Wanted(candidate.message_id, candidate.units, candidate.domain, candidate.only_by)


def _wake_others(
    connection: Connection,
    by_contact: dict[int, Candidate],
    going: Sequence[Facts],
    objections: Sequence[tuple[Facts, Defer | Skip]],
    now: datetime,
) -> None:
    """Let those who wait for a message of the slice ask again: it is out of their way, or has been put off itself."""
    moved = [facts.contact_id for facts in going]
    outranked_too: dict[int, UUID] = {}
    for facts, objection in objections:
        if isinstance(objection, Skip) or objection.reason in (Reason.QUIET_HOURS, Reason.CAPPED):
            moved.append(facts.contact_id)
        elif objection.reason is Reason.OUTRANKED:
            outranked_too[facts.contact_id] = by_contact[facts.contact_id].message_id
    outranked.wake(connection, moved, now)
    outranked.wake_behind(connection, outranked_too, now)


def _left_the_segment(connection: Connection, run: Run, contact_ids: list[int], now: datetime) -> set[int]:
    """Return who is no longer in the run's segment, if the campaign wants to know."""
    if run.campaign is None or not run.campaign.recheck_segment:
        return set()
    frozen = connection.execute(text("SELECT segment FROM run WHERE id = :id"), {"id": run.id}).scalar_one()
    return set(contact_ids) - audience.members(connection, from_json(frozen), now, contact_ids)


def _addresses_of(connection: Connection, channel: str, contact_ids: list[int]) -> list[int]:
    return list(
        connection.scalars(
            text(f"SELECT DISTINCT {channel}_address_id FROM contact "  # noqa: S608 - one of two channel names
                 f"WHERE id = ANY(:ids) AND {channel}_address_id IS NOT NULL"),
            {"ids": contact_ids},
        )
    )  # fmt: skip


def _judge(page: Iterable[tuple[str, Facts]], now: datetime) -> list[tuple[Facts, Verdict]]:
    """Return the verdicts; of two contacts in the slice with one address the first has it.

    Of a trigger each has a message of its own: the second is left for a later slice, whose caps see the first.
    """
    taken: dict[int, str] = {}
    verdicts: list[tuple[Facts, Verdict]] = []
    for external_id, facts in page:
        if facts.run.marketing and facts.address_id in taken:
            if facts.flow is not None:
                continue
            facts = replace(facts, duplicate_of=taken[facts.address_id])  # noqa: PLW2901
        verdict = decide(facts, now)
        if isinstance(verdict, Send) and facts.address_id is not None:
            taken[facts.address_id] = external_id
        verdicts.append((facts, verdict))
    return verdicts


_MINE = """m.status = 'pending' AND m.run_id = :run AND m.batch_id = :batch AND EXISTS (
    SELECT FROM batch b
    WHERE b.id = :batch AND b.claim_token = :token AND b.worker_id = :worker AND b.state = 'claimed')"""


def _fence(claim: Claim) -> dict[str, Any]:
    return {"run": claim.run_id, "batch": claim.batch_id, "token": claim.token, "worker": claim.worker_id}


def _renew_lease(connection: Connection, claim: Claim) -> None:
    """The batch before its messages, as whoever takes a batch away locks them."""
    connection.execute(
        text("UPDATE batch SET lease_until = clock_timestamp() + :lease WHERE id = :batch AND claim_token = :token"),
        {"lease": LEASE, "batch": claim.batch_id, "token": claim.token},
    )


def _write_sends(
    connection: Connection,
    claim: Claim,
    by_contact: dict[int, Candidate],
    going: list[Facts],
    now: datetime,
    taken: Taken,
) -> list[UUID]:
    if not going:
        return []
    rows = [(by_contact[f.contact_id], f) for f in going]
    return list(
        connection.scalars(
            text(f"""
            UPDATE message m SET status = 'sending', authorised_at = :now, authorise_seq = nextval('order_seq'),
                send_deadline = LEAST(:deadline, m.expires_at), worker_id = :worker, provider = :provider,
                address_id = x.address_id, attempts = m.attempts + 1, deferred_reason = NULL, facts = NULL,
                units = NULLIF(x.units, 1)
            FROM unnest(CAST(:ids AS uuid[]), CAST(:contacts AS bigint[]), CAST(:addresses AS bigint[]),
                        CAST(:versions AS int[]), CAST(:units AS smallint[]))
                AS x(id, contact_id, address_id, version, units), contact c
            WHERE m.id = x.id AND m.contact_id = x.contact_id AND c.id = m.contact_id AND c.version = x.version
                AND m.due_at <= :now AND {_MINE}
            RETURNING m.id"""),  # noqa: S608 - a fixed fence
            {
                "now": now, "deadline": now + SEND_WITHIN, "provider": taken.provider,
                "ids": [candidate.message_id for candidate, _ in rows],
                "contacts": [facts.contact_id for _, facts in rows],
                "addresses": [facts.address_id for _, facts in rows],
                "versions": [candidate.contact_version for candidate, _ in rows],
                "units": [taken.going[candidate.message_id] for candidate, _ in rows],
                **_fence(claim),
            },
        )
    )  # fmt: skip


def _write_objections(
    connection: Connection,
    claim: Claim,
    by_contact: dict[int, Candidate],
    objections: Sequence[tuple[Facts, Defer | Skip]],
    now: datetime,
) -> None:
    """Write deferrals and skips; both leave the batch in the same statement.

    A message that a merge gave to somebody else meanwhile is not theirs: it goes back, to be rendered for its contact.
    """
    rows: list[tuple[Any, ...]] = []
    for facts, verdict in objections:
        message_id = by_contact[facts.contact_id].message_id
        if isinstance(verdict, Defer):
            rows.append(
                (message_id, facts.contact_id, "pending", None, verdict.until, verdict.reason, _shown(verdict), None)
            )
        else:
            status = "cancelled" if verdict.reason is Reason.OPERATOR else "skipped"
            rows.append((message_id, facts.contact_id, status, verdict.reason, None, None, _shown(verdict), now))
    if not rows:
        return
    ids, contacts, statuses, reasons, dues, deferred, shown, settled = (list(c) for c in zip(*rows, strict=True))
    connection.execute(
        text(f"""
        UPDATE message m SET status = x.status, reason = x.reason, due_at = COALESCE(x.due_at, m.due_at),
            deferred_reason = x.deferred, facts = CAST(x.facts AS jsonb), settled_at = x.settled_at, batch_id = NULL
        FROM unnest(CAST(:ids AS uuid[]), CAST(:contacts AS bigint[]), CAST(:statuses AS text[]),
                    CAST(:reasons AS text[]), CAST(:dues AS timestamptz[]), CAST(:deferred AS text[]),
                    CAST(:facts AS text[]), CAST(:settled AS timestamptz[]))
            AS x(id, contact_id, status, reason, due_at, deferred, facts, settled_at)
        WHERE m.id = x.id AND m.contact_id = x.contact_id AND {_MINE}"""),  # noqa: S608 - a fixed fence
        {"ids": ids, "contacts": contacts, "statuses": statuses, "reasons": reasons, "dues": dues,
         "deferred": deferred, "facts": shown, "settled": settled, **_fence(claim)},
    )  # fmt: skip


def _shown(verdict: Defer | Skip) -> str | None:
    return orjson.dumps(verdict.facts).decode() if verdict.facts else None


def take_back(database: Engine, claim: Claim, slice_: Sequence[Candidate]) -> None:
    """After a lost commit answer: undo what may have been authorised, since nothing of it was written to a provider.

    The contact locks are waited for first, so that the lost transaction has ended one way or the other.
    """
    with database.begin() as connection:
        lock_contacts(connection, [candidate.contact_id for candidate in slice_])
        connection.execute(
            text("""UPDATE message SET status = 'pending', batch_id = NULL, authorised_at = NULL, authorise_seq = NULL,
                        send_deadline = NULL, worker_id = NULL, attempts = attempts - 1
                    WHERE id = ANY(:ids) AND status = 'sending' AND worker_id = :worker AND batch_id = :batch
                      AND handed_over_at IS NULL"""),
            {"ids": [candidate.message_id for candidate in slice_], "worker": claim.worker_id, "batch": claim.batch_id},
        )
