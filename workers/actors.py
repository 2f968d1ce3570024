"""Shallow actors: ids in, one call, safe to run twice.  Import after `workers.broker.connect`."""

from __future__ import annotations

import threading
import time
from functools import partial

import dramatiq
import dramatiq.errors
import structlog
from redis.exceptions import RedisError
from sqlalchemy import Engine

from dispatcher import audit_chain, doubt, mailboxes, mailroom, mirrors, rendering, rights, schedules, sending
from dispatcher import brake as braking
from dispatcher import plan as planning
from dispatcher import release as releasing
from dispatcher import rescue as rescuing
from dispatcher.errors import Refused
from dispatcher.feedback import inbox
from dispatcher.release import Ticket
from dispatcher.rights import retention
from workers import boot
from workers.broker import DOUBT, FEEDBACK, HOUSEKEEPING, LANES, MIRRORS, PLAN, RELEASE, RIGHTS, WATCH, wake

log = structlog.get_logger()

#: Two at once: one waits for the database while the other thinks.  More would keep `release` waiting for a thread.
_planners = threading.BoundedSemaphore(2)
#: Freezing a large audience takes a while: two at once, with two planners, would leave nobody to `release`.
_firing = threading.BoundedSemaphore(1)
#: Of each one at once in a worker, whatever tickets there are.
_sorting = threading.BoundedSemaphore(1)
_doubting = threading.BoundedSemaphore(1)
_mirroring = threading.BoundedSemaphore(1)
_reading_mail = threading.BoundedSemaphore(1)
#: So many rounds of the inbox at once; the next ticket comes a second later.
SORT_ROUNDS = 20
#: A full mailbox is read in portions; the next ticket goes on.
MAILBOX_SECONDS = 60.0
#: One planning ticket works this long at most, so that the next run's pages get their turn.
PLAN_SECONDS = 5.0


@dramatiq.actor(queue_name=RELEASE)
def release() -> None:
    """Gather what is due and hand out tickets for it."""
    for ticket in releasing.release(boot.hands().database):
        hand_out(ticket)


@dramatiq.actor(queue_name=LANES[0])  # every ticket names its own lane
def send(batch_id: int) -> None:
    """Send a batch; a second ticket for it finds nothing left to claim."""
    sending.send_batch(boot.hands(), batch_id)


def hand_out(ticket: Ticket) -> None:
    """Put a ticket into the queue of its lane."""
    dramatiq.get_broker().enqueue(send.message(ticket.batch_id).copy(queue_name=ticket.lane))


def hand_out_at_once(note: str) -> None:
    """Hand out the ticket that a NOTIFY tells of: a batch was born due.  `release` may do so again a moment later."""
    ticket = releasing.ticket_of(note)
    if ticket is None or ticket.lane not in LANES:
        return
    try:
        hand_out(ticket)
    except (RedisError, dramatiq.errors.ConnectionError) as error:
        log.warning("broker.away", batch=ticket.batch_id, error=type(error).__name__)


@dramatiq.actor(queue_name=PLAN)
def plan() -> None:
    """Plan pages of the runs that have some left, one of each in turn."""
    if not _planners.acquire(blocking=False):
        return
    try:
        _plan_pages(boot.hands().database)
    finally:
        _planners.release()


def _plan_pages(database: Engine) -> None:
    until = time.monotonic() + PLAN_SECONDS
    while time.monotonic() < until and not boot.hands().stopping.is_set():
        if not planning.plan_round(database):
            return
        wake(release)  # what is planned is due


@dramatiq.actor(queue_name=HOUSEKEEPING)
def fire() -> None:
    """Start the runs whose time has come."""
    if not _firing.acquire(blocking=False):
        return
    try:
        for run_id in schedules.fire_due(boot.hands().database):
            log.info("run.fired", run=str(run_id))
    finally:
        _firing.release()


@dramatiq.actor(queue_name=FEEDBACK)
def sort_feedback() -> None:
    """Sort what providers and storefronts told us."""
    if not _sorting.acquire(blocking=False):
        return
    try:
        inbox.sort_all(boot.hands().database, boot.hands().sender.key_ring, mailroom.take, rounds=SORT_ROUNDS)
        inbox.forget_old(boot.hands().database)
    finally:
        _sorting.release()


@dramatiq.actor(queue_name=DOUBT)
def settle_doubt() -> None:
    """Look for evidence about messages of unknown outcome."""
    if not _doubting.acquire(blocking=False):
        return
    try:
        hands = boot.hands()
        providers = [*hands.providers.values(), *hands.failovers.values()]
        doubt.settle_doubt(hands.database, providers, partial(rendering.render_again, hands.database, hands.sender))
    finally:
        _doubting.release()


@dramatiq.actor(queue_name=MIRRORS)
def mirror() -> None:
    """Keep the providers' own suppression lists and ours in step."""
    if not _mirroring.acquire(blocking=False):
        return
    try:
        hands = boot.hands()
        for provider in mirrors.mirrors_of([*hands.providers.values(), *hands.failovers.values()]):
            mirrors.mirror_when_due(hands.database, hands.sender.key_ring, provider)
    finally:
        _mirroring.release()


@dramatiq.actor(queue_name=MIRRORS)
def read_mailbox() -> None:
    """Take in the bounces and complaints that lie in the mailbox."""
    mailbox = boot.bounce_mailbox()
    if mailbox is None or not _reading_mail.acquire(blocking=False):
        return
    try:
        mailboxes.read_mailbox(boot.hands().database, boot.hands().sender.key_ring, mailbox, seconds=MAILBOX_SECONDS)
    except mailboxes.MailboxAway as error:
        log.warning("mailbox.away", why=str(error))
    finally:
        _reading_mail.release()


@dramatiq.actor(queue_name=WATCH)
def brake() -> None:
    """Pause the runs that go wrong."""
    braking.watch(boot.hands().database)


@dramatiq.actor(queue_name=HOUSEKEEPING)
def rescue() -> None:
    """Free what dead workers held."""
    rescuing.rescue(boot.hands().database)


@dramatiq.actor(queue_name=RIGHTS)
def finish_erasures() -> None:
    """Destroy the keys of whom nothing is in flight any more."""
    rights.finish_erasures(boot.hands().database, boot.hands().sender.key_ring)


@dramatiq.actor(queue_name=RIGHTS)
def sweep() -> None:
    """Once a day, take what is kept no longer."""
    try:
        retention.sweep_if_due(boot.hands().database)
    except Refused:  # somebody else sweeps right now
        return


@dramatiq.actor(queue_name=RIGHTS)
def link_audit() -> None:
    """Make what was recorded part of the chain over the audit."""
    audit_chain.link_new(boot.hands().database)
