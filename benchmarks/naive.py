"""The floor for sending: one Dramatiq task per recipient, as most would write it first.

Each task does what no sender can leave out: read the contact, look at consent and suppression, fill the same template,
hand over to the same sandbox, write the outcome.  No locks, no caps, no quiet hours: less than we do.
`python -m benchmarks.naive` is its worker process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import dramatiq
from dramatiq import Worker
from dramatiq.brokers.redis import RedisBroker
from sqlalchemy import Engine, text

from dispatcher import clock
from dispatcher.providers.protocol import Moment, boot_seconds
from dispatcher.providers.sandbox import Sandbox
from dispatcher.rendering import CONTACT_COLUMNS, Renderer, Sender
from dispatcher.runs import load_run
from dispatcher.runtime import open_runtime

THREADS = 2
_state = SimpleNamespace(database=None, renderer=None, provider=None)


def connect(url: str) -> RedisBroker:
    """Make the broker with dramatiq's own defaults, but for the names."""
    broker = RedisBroker(url=url, namespace="naive")
    dramatiq.set_broker(broker)
    dramatiq.actor(send_one, broker=broker, queue_name="naive", actor_name="send_one")
    return broker


def send_one(message_id: str) -> None:
    database: Engine = _state.database
    with database.begin() as connection:
        row: Any = connection.execute(
            text(f"""SELECT m.id, m.client, m.sealed AS data, {CONTACT_COLUMNS}, c.email_address_id AS address_id
                     FROM message m JOIN contact c ON c.id = m.contact_id
                     JOIN consent k ON k.contact_id = c.id AND k.channel = m.channel AND k.topic = m.topic
                     WHERE m.id = :id AND m.status = 'pending' AND k.state = 'granted'
                       AND NOT EXISTS (SELECT FROM suppression s WHERE s.address_id = c.email_address_id)"""),
            {"id": message_id},
        ).one_or_none()
        if row is None:
            return
        now = clock.read_now(connection)
        connection.execute(
            text("UPDATE message SET status = 'sending', authorised_at = :now WHERE id = :id"),
            {"now": now, "id": message_id},
        )
    moment = Moment(now, boot_seconds())
    [receipt] = _state.provider.hand_over([_state.renderer.envelope(row)], moment, moment.boot + 20)
    with database.begin() as connection:
        connection.execute(
            text("UPDATE message SET status = 'sent', settled_at = :now, provider_ref = :ref WHERE id = :id"),
            {"now": now, "ref": receipt.ref, "id": message_id},
        )


def main(run_id: UUID, outbox: Path) -> None:
    with open_runtime(needs_broker=True) as runtime:
        broker = connect(runtime.broker_url)
        with runtime.database.begin() as connection:
            sender = Sender(runtime.key_ring, runtime.settings.public_url)
            _state.renderer = Renderer(connection, load_run(connection, run_id), sender)
        _state.database, _state.provider = runtime.database, Sandbox(outbox, "email")
        stopping = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
        worker = Worker(broker, worker_threads=THREADS)
        worker.start()
        print("ready", uuid4(), os.getpid(), flush=True)
        stopping.wait()
        worker.stop()


if __name__ == "__main__":
    main(UUID(sys.argv[1]), Path(sys.argv[2]))
