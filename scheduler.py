"""The clock: one table "how often -> which actor", one LISTEN loop; does no work itself.

Occurrences of campaigns live in our own tables: APScheduler only ticks here, and keeps nothing.  Two clocks at once are
harmless, since every actor asks the ledger what is due.
"""

from __future__ import annotations

import signal
import sys
import threading
from datetime import datetime, timedelta

import psycopg
import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from sqlalchemy.exc import DBAPIError

from dispatcher import logs
from dispatcher.db import listen
from dispatcher.errors import DispatcherError
from dispatcher.registration import heartbeat, register, unregister
from dispatcher.runtime import Runtime, open_runtime
from dispatcher.settings import load_settings
from workers.broker import connect, wake

log = structlog.get_logger()


class Every(BaseTrigger):  # type: ignore[misc]  # apscheduler 3 has no types
    """A tick so many seconds from now, whatever was missed: a clock that jumps must not list every missed second."""

    def __init__(self, seconds: float) -> None:
        self._step = timedelta(seconds=seconds)

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        return now + self._step


def main() -> int:
    """Tick until told to stop."""
    try:
        settings = load_settings()
        logs.configure(settings.log_level)
        with open_runtime(settings, needs_broker=True) as runtime:
            return tick(runtime)
    except DispatcherError as error:
        print(f"dispatcher schedule: {error}", file=sys.stderr)
        return 1


def tick(runtime: Runtime) -> int:
    connect(runtime.broker_url)
    from workers import actors

    clock = (
        (1, actors.release),
        (1, actors.plan),
        (1, actors.fire),
        (1, actors.rescue),
        (1, actors.sort_feedback),
        (1, actors.brake),
        (5, actors.settle_doubt),
        (2, actors.finish_erasures),
        (10, actors.link_audit),
        (60, actors.sweep),
        (20, actors.mirror),
        (120, actors.read_mailbox),
    )
    #: What a NOTIFY means; the tick alone would do, a second later.
    heard = {"run": actors.plan, "due": actors.release, "engine": actors.release, "feedback": actors.sort_feedback,
             "erasure": actors.finish_erasures}  # fmt: skip

    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    registration = register(runtime.database, runtime.settings.home, kind="scheduler", queues=[], slots=0)
    scheduler = BackgroundScheduler(timezone="UTC")
    for seconds, actor in clock:
        scheduler.add_job(
            wake, Every(seconds), [actor], id=actor.actor_name, coalesce=True, max_instances=1, misfire_grace_time=None
        )
    scheduler.start()
    log.info("scheduler.started", worker=str(registration.worker_id))
    try:
        while not stopping.is_set():
            try:
                for topic in listen(runtime.database, stopping, beat=lambda: heartbeat(runtime.database, registration)):
                    if topic in heard:
                        wake(heard[topic])
                    else:
                        actors.hand_out_at_once(topic)
            except (psycopg.Error, DBAPIError, ConnectionError) as error:
                log.warning("scheduler.listening_again", error=type(error).__name__)
                stopping.wait(1)
        return 0
    finally:
        scheduler.shutdown(wait=False)
        unregister(runtime.database, registration)
        log.info("scheduler.stopped")


if __name__ == "__main__":
    sys.exit(main())
