"""`python -m benchmarks.feedback`: signed SendGrid events through a running house, until the last is in the ledger.

The events come as SendGrid sends them: arrays of 500, several posts at a time, out of order, a tenth of them twice.
One message in a hundred bounces hard (or as many as told), one in a thousand is complained about.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from rich.console import Console
from sqlalchemy import Engine, text

from benchmarks.house import free_port, own_house
from benchmarks.shop import write_contacts, write_workspace
from dispatcher import runs
from dispatcher.apply import apply
from dispatcher.imports.contacts import import_contacts, topics_by_channel
from dispatcher.plan import plan_page
from dispatcher.runtime import Runtime
from dispatcher.shop import load_shop
from dispatcher.up import healthz_of, rooms_of, rooms_running, wait_until_ready
from dispatcher.workspace import read_workspace

ARRAY = 500
POSTERS = 4
console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.feedback", description=__doc__.splitlines()[0])
    arguments.add_argument("--messages", type=int, default=20_000)
    arguments.add_argument("--one-bounce-in", type=int, default=100, help="messages")
    given = arguments.parse_args()
    key = generate_private_key(SECP256R1())
    public = base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    with own_house(port=free_port(), sendgrid_webhook_key=public) as (runtime, folder):
        messages = _prepare(runtime, folder, given.messages)
        rooms = [room for room in rooms_of() if room.name in ("clock", "control", "web")]
        with rooms_running(runtime.settings, rooms) as house:
            wait_until_ready(runtime.database, house, healthz=healthz_of(runtime.settings))
            _measure(runtime.database, runtime.settings.port, key, _events(messages, given.one_bounce_in))
    return 0


def _prepare(runtime: Runtime, folder: Path, number: int) -> list[UUID]:
    """Return the messages of a run that was sent; its run is paused, so that nobody sends while we measure."""
    with runtime.database.begin() as connection:
        apply(connection, read_workspace(write_workspace(folder / "workspace")), by="benchmark")
        topics = topics_by_channel(load_shop(connection))
    contacts = write_contacts(folder / "contacts.csv", number)
    import_contacts(runtime.database, runtime.key_ring, contacts, topics=topics)
    with runtime.database.begin() as connection:
        run_id = runs.start(connection, "bench", started_by="benchmark")
    while plan_page(runtime.database, run_id):
        pass
    with runtime.database.begin() as connection:
        runs.pause(connection, run_id, by="benchmark")
        connection.execute(
            text("""UPDATE message SET status = 'sending', authorised_at = clock_timestamp(), attempts = 1,
                    authorise_seq = nextval('order_seq'), send_deadline = clock_timestamp(), provider = 'sendgrid',
                    batch_id = NULL""")
        )
        connection.execute(
            text("UPDATE message SET status = 'sent', handed_over_at = authorised_at, settled_at = authorised_at")
        )
    with runtime.database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        return list(connection.scalars(text("SELECT id FROM message ORDER BY id")))


def _events(messages: list[UUID], one_bounce_in: int) -> list[dict[str, Any]]:
    dice = random.Random(7)
    events = []
    for number, message_id in enumerate(messages):
        one = {"timestamp": 1_700_000_000, "smtp-id": f"<{uuid4()}@ismtpd>", "sg_message_id": f"{number // 250}.f.0",
               "dispatcher_message_id": str(message_id), "ip": "192.0.2.1", "useragent": "Mozilla/5.0 " + "x" * 80,
               "category": ["bench"]}  # fmt: skip
        kinds: list[dict[str, Any]] = [{"event": "processed"}, {"event": "delivered", "response": "250 OK " + "x" * 60}]
        if number % one_bounce_in == 7 % one_bounce_in:
            kinds[1] = {"event": "bounce", "type": "bounce", "status": "5.1.1", "reason": "550 5.1.1 unknown"}
        elif dice.random() < 0.5:
            kinds.append({"event": "open"})
        if number % 1_000 == 8:
            kinds.append({"event": "spamreport"})
        events += [one | kind | {"sg_event_id": uuid4().hex} for kind in kinds]
    events += dice.sample(events, len(events) // 10)
    dice.shuffle(events)
    return events


def _measure(database: Engine, port: int, key: EllipticCurvePrivateKey, events: list[dict[str, Any]]) -> None:
    posts = [_signed(key, orjson.dumps(events[n : n + ARRAY])) for n in range(0, len(events), ARRAY)]
    began = time.monotonic()
    with ThreadPoolExecutor(POSTERS) as posters:
        list(posters.map(lambda post: _post(port, *post), posts))
    answered = time.monotonic() - began
    while _count(database, "feedback_inbox"):
        time.sleep(0.05)
    sorted_ = time.monotonic() - began
    size = sum(len(body) for body, _ in posts) / len(events)
    console.print(f"{len(events):,} events of {size:.0f} bytes in {len(posts):,} posts, {POSTERS} at a time")
    for what, seconds in (("stored and answered", answered), ("in the ledger", sorted_)):
        console.print(f"{what:<24} {seconds:6.2f} s  {len(events) / seconds:>8,.0f} events/s")
    bounced = _count(database, "message WHERE status = 'bounced'")
    console.print(
        f"{_count(database, 'feedback'):,} rows, {bounced:,} bounced, {_count(database, 'suppression'):,} suppressed"
    )


def _signed(key: EllipticCurvePrivateKey, body: bytes) -> tuple[bytes, dict[str, str]]:
    at = "1700000000"
    signature = base64.b64encode(key.sign(at.encode() + body, ECDSA(SHA256()))).decode()
    return body, {
        "X-Twilio-Email-Event-Webhook-Signature": signature,
        "X-Twilio-Email-Event-Webhook-Timestamp": at,
        "Content-Type": "application/json",
    }


def _post(port: int, body: bytes, headers: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/hooks/sendgrid", body, headers)
    status = connection.getresponse().status
    connection.close()
    if status != 200:
        raise SystemExit(f"a post was answered with {status}")


def _count(database: Engine, what: str) -> int:
    with database.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {what}")).scalar_one())


if __name__ == "__main__":
    raise SystemExit(main())
