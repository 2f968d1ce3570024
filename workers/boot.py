"""One worker process: its registration, its heartbeat, and its end."""

from __future__ import annotations

import os
import signal
import threading

import structlog
from dramatiq import Worker
from dramatiq.brokers.redis import RedisBroker

from dispatcher import figures
from dispatcher.mailboxes.imap import Mailbox, mailbox_at
from dispatcher.providers import failovers_for, providers_for
from dispatcher.rates import accounts
from dispatcher.registration import Registration, heartbeat, register, unregister
from dispatcher.rendering import sender_of
from dispatcher.room_guard import LONGEST_HAND_OVER_SECONDS
from dispatcher.runtime import Runtime
from dispatcher.sending import Hands
from workers.broker import (
    DOUBT,
    FEEDBACK,
    HOUSEKEEPING,
    MARKETING_LANES,
    MIRRORS,
    PLAN,
    RELEASE,
    RIGHTS,
    TRANSACTIONAL_LANES,
    WATCH,
    connect,
)

log = structlog.get_logger()

#: Which queues a kind of worker serves, with how many threads, and how many tickets of each queue it takes at once.
#: Transactional lanes never wait behind marketing.  Of a lane it takes one more than it has threads, so that none idles
#: and no pile dies with it; of the control queues one, so that planning leaves a thread for each of the others.
GROUPS: dict[str, tuple[tuple[str, ...], int, int]] = {
    "marketing": (MARKETING_LANES, 2, 3),
    "transactional": (TRANSACTIONAL_LANES, 4, 5),
    "control": ((RELEASE, PLAN, HOUSEKEEPING, FEEDBACK, WATCH, DOUBT, MIRRORS, RIGHTS), 10, 1),
}
#: How long a queue that was found empty is left alone at most.  What a person waits for is looked for more often.
POLL_MILLISECONDS = {"marketing": 200, "transactional": 25, "control": 100}
HEARTBEAT_SECONDS = 2.0
#: A hand that is told to stop begins nothing new, and is given as long as its last hand-over can take.
LAST_SLICE_MILLISECONDS = int(LONGEST_HAND_OVER_SECONDS * 1_000)

_hands: Hands | None = None
_bounce_mailbox: Mailbox | None = None


def hands() -> Hands:
    """Return what this process sends with."""
    if _hands is None:
        raise RuntimeError("this process is not a worker")
    return _hands


def bounce_mailbox() -> Mailbox | None:
    """Return the mailbox that this installation reads; None if it reads none."""
    return _bounce_mailbox


def serve(runtime: Runtime, group: str) -> int:
    """Work on the queues of `group` until told to stop; return the exit code."""
    queues, threads, tickets = GROUPS[group]
    broker = connect(runtime.broker_url)
    from workers import actors  # noqa: F401 - declares the actors on the broker just made

    stopping = threading.Event()
    registration = register(runtime.database, runtime.settings.home, kind=group, queues=list(queues), slots=threads)
    _prepare(runtime, registration, stopping)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    worker = Worker(broker, queues=set(queues), worker_threads=threads, worker_timeout=POLL_MILLISECONDS[group])
    worker.queue_prefetch = tickets
    worker.start()
    log.info("worker.started", worker=str(registration.worker_id), kind=group)
    try:
        return _watch(runtime, registration, worker, stopping)
    finally:
        worker.stop(timeout=LAST_SLICE_MILLISECONDS)
        _close(broker)
        if not any(thread.is_alive() for thread in worker.workers):
            for provider in (*hands().providers.values(), *hands().failovers.values()):
                provider.close()
            figures.hand_in(runtime.database, hands().figures)
            unregister(runtime.database, registration)
        log.info("worker.stopped", worker=str(registration.worker_id))


def _prepare(runtime: Runtime, registration: Registration, stopping: threading.Event) -> None:
    global _hands, _bounce_mailbox  # noqa: PLW0603 - one process, one pair of hands
    settings = runtime.settings
    if settings.bounce_mailbox_url is not None:
        _bounce_mailbox = mailbox_at(settings.bounce_mailbox_url.get_secret_value())
    _hands = Hands(
        database=runtime.database,
        sender=sender_of(runtime),
        providers=providers_for(settings),
        worker_id=registration.worker_id,
        stopping=stopping,
        failovers=failovers_for(settings),
    )
    with runtime.database.begin() as connection:
        accounts.set_accounts(connection, {channel: list(_hands.carriers(channel)) for channel in _hands.providers})


def _watch(runtime: Runtime, registration: Registration, worker: Worker, stopping: threading.Event) -> int:
    """Beat until told to stop; end the process if one of its threads has died: its queue is then served no more."""
    while not stopping.wait(HEARTBEAT_SECONDS):
        threads = [*worker.workers, *worker.consumers.values()]
        if not all(thread.is_alive() for thread in threads):
            log.error("worker.thread_died", worker=str(registration.worker_id))
            os._exit(1)
        try:
            heartbeat(runtime.database, registration)
            figures.hand_in(runtime.database, hands().figures)
        except Exception as error:  # the database may be away for a while; work waits, we stay
            log.warning("worker.heartbeat_failed", error=type(error).__name__)
    return 0


def _close(broker: RedisBroker) -> None:
    broker.close()
    broker.client.close()
