"""What follows from a text: under the locks of the number and of everybody who has it, with the clock read after them.

STOP suppresses the number for every SMS and withdraws its topics; START, the person's own later act, takes that back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, text

from dispatcher import clock, consent, db, suppression
from dispatcher.addresses import ensure_addresses
from dispatcher.consent import ConsentChange
from dispatcher.errors import Refused
from dispatcher.feedback import twilio
from dispatcher.feedback.inbox import Mail
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts
from dispatcher.replies import answers
from dispatcher.replies.reading import Reading, read_text

log = structlog.get_logger()

_ATTEMPTS = 5
#: What START takes back.
_LIFTED: tuple[suppression.Reason, ...] = ("stop", "unsubscribe")


@dataclass(frozen=True, slots=True)
class Heard:
    """A text as it came, from a number."""

    source: str
    sid: str
    phone: str
    body: str
    provider_says: str | None  #: then the provider has answered, too
    raw: dict[str, Any]
    received_at: datetime


def take(database: Engine, key_ring: KeyRing, mail: Mail) -> Reading | None:
    """Do what the text asks, once, and return how it was read; None for one that was heard before or is none."""
    fields = twilio.read_fields(mail.content_type, mail.body)
    sid, phone = fields.get("MessageSid") or fields.get("SmsSid"), twilio.phone_of(fields.get("From"))
    if not sid or phone is None:  # from a short code or a name: nobody to stop sending to
        log.warning("reply.from_no_number", source=mail.source)
        return None
    heard = Heard("twilio", sid[:200], phone, fields.get("Body", ""), fields.get("OptOutType") or None, dict(fields),
                  mail.received_at)  # fmt: skip
    return db.insist(lambda: _take(database, key_ring, heard), reply=heard.sid)


def _take(database: Engine, key_ring: KeyRing, heard: Heard) -> Reading | None:
    wanted = ("sms", heard.phone)
    for _ in range(_ATTEMPTS):
        with database.begin() as connection:
            address_id = ensure_addresses(connection, key_ring, [wanted])[wanted]
            if (people := hold(connection, address_id)) is not None:
                return _hear(connection, key_ring, heard, address_id, people)
    raise Refused("this number is being moved from contact to contact; it is tried again")


_PEOPLE = text("""
SELECT id FROM contact WHERE sms_address_id = :address AND merged_into IS NULL AND erased_at IS NULL ORDER BY id
""")


def hold(connection: Connection, address_id: int) -> list[int] | None:
    """Lock everybody who has the number, then the number, and return who; None if that changed while we waited."""
    people = list(connection.scalars(_PEOPLE, {"address": address_id}))
    lock_contacts(connection, people)
    lock_addresses(connection, [address_id])
    return people if list(connection.scalars(_PEOPLE, {"address": address_id})) == people else None


_KEEP = text("""
INSERT INTO reply (source, provider_event_id, address_id, contact_id, reading, received_at, review, data_key, sealed)
VALUES (:source, :sid, :address, :contact, :reading, :received_at, :review, :data_key, :sealed)
ON CONFLICT (source, provider_event_id) DO NOTHING RETURNING id
""")


def _hear(
    connection: Connection, key_ring: KeyRing, heard: Heard, address_id: int, people: list[int]
) -> Reading | None:
    now = clock.read_now(connection)
    reading = read_text(
        heard.body, heard.provider_says,
        after_advertising=_last_was_marketing(connection, address_id), opt_in_asked=_asked(connection, people),
    )  # fmt: skip
    contact_id = people[0] if people else None  # of several at one number the lowest gets its messages
    erased = contact_id is None and suppression.was_erased(connection, address_id)
    data_key, sealed = (None, None) if erased else _seal(connection, key_ring, heard, contact_id)
    reply_id = connection.scalar(
        _KEEP,
        {"source": heard.source, "sid": heard.sid, "address": address_id, "contact": contact_id, "reading": reading,
         "received_at": heard.received_at, "review": "open" if reading is Reading.ASKS_TO_STOP and not erased else None,
         "data_key": data_key, "sealed": sealed},
    )  # fmt: skip
    if reply_id is None:
        return None
    subject = _act(connection, key_ring, reading, address_id, people, source_of(reply_id, reading), now)
    if subject is not None and contact_id is not None and heard.provider_says is None:
        answer_id = answers.answer(connection, subject, contact_id, address_id, key=heard.sid, now=now)
        connection.execute(
            text("UPDATE reply SET answer_id = :answer WHERE id = :id"), {"answer": answer_id, "id": reply_id}
        )
    return reading


def source_of(reply_id: int, reading: str) -> str:
    """Return how a suppression or a piece of evidence names the text it rests on."""
    return f"sms reply {reply_id}: {reading}"


def _seal(
    connection: Connection, key_ring: KeyRing, heard: Heard, contact_id: int | None
) -> tuple[bytes | None, bytes]:
    raw = {"fields": heard.raw, "body": heard.body}
    wrapped = connection.scalar(text("SELECT data_key FROM contact WHERE id = :id"), {"id": contact_id})
    if wrapped is not None:
        return None, key_ring.open_data_key(bytes(wrapped)).seal(raw)
    data_key, own = key_ring.new_data_key()
    return own, data_key.seal(raw)


def _last_was_marketing(connection: Connection, address_id: int) -> bool:
    last = connection.scalar(
        text("""SELECT class FROM message WHERE address_id = :address AND authorised_at IS NOT NULL
                ORDER BY authorised_at DESC LIMIT 1"""),
        {"address": address_id},
    )
    return bool(last == "marketing")


def _asked(connection: Connection, people: list[int]) -> bool:
    """Whether one of them has been asked for an opt-in by SMS and not answered yet."""
    return bool(
        connection.scalar(
            text("""SELECT EXISTS (SELECT FROM consent
                                   WHERE contact_id = ANY(:people) AND channel = 'sms' AND state = 'pending')"""),
            {"people": people},
        )
    )


def _act(
    connection: Connection, key_ring: KeyRing, reading: Reading, address_id: int, people: list[int], source: str,
    now: datetime,
) -> answers.Subject | None:  # fmt: skip
    """Do what was asked; return what is to be answered, if anything."""
    match reading:
        case Reading.STOP:
            is_new = _stop(connection, address_id, source, now)
            withdraw_all(connection, key_ring, people, address_id, source=source, now=now)
            return "stop" if is_new else None
        case Reading.ASKS_TO_STOP:
            return "stop" if _stop(connection, address_id, source, now) else None
        case Reading.START:
            return "start" if _start_again(connection, key_ring, people, address_id, source=source, now=now) else None
        case Reading.HELP:
            return "help"
        case Reading.OTHER:
            return None


def _stop(connection: Connection, address_id: int, source: str, now: datetime) -> bool:
    """Suppress the number; False if it was stopped already: once is answered, however often they say it."""
    if any(one.reason == "stop" for one in suppression.suppressions_of(connection, address_id)):
        return False  # adding it again would skip the answer that is on its way
    return suppression.add(connection, address_id, "stop", source=source, now=now)


def withdraw_all(
    connection: Connection, key_ring: KeyRing, people: list[int], address_id: int, *, source: str, now: datetime
) -> None:
    """Record that these people withdraw every SMS topic that they had granted or asked for."""
    held = connection.execute(
        text("""SELECT contact_id, topic FROM consent WHERE contact_id = ANY(:people) AND channel = 'sms'
                AND state IN ('granted', 'pending') ORDER BY contact_id, topic"""),
        {"people": people},
    )
    changes = [
        ConsentChange(row.contact_id, "sms", row.topic, "withdrawn", "person", source, now, address_id) for row in held
    ]
    consent.record(connection, key_ring, changes, now=now)


def _start_again(
    connection: Connection, key_ring: KeyRing, people: list[int], address_id: int, *, source: str, now: datetime
) -> bool:
    """Lift what the person said before, and grant again what they had granted for this number and then withdrew.

    START is no consent to anything that was never granted.  Return whether there was something to take back.
    """
    reasons = {one.reason for one in suppression.suppressions_of(connection, address_id)}
    lifted = [reason for reason in _LIFTED if reason in reasons]
    for reason in lifted:
        suppression.remove(connection, address_id, reason, by=source, as_the_person=True)
    topics = connection.execute(_ONCE_GRANTED, {"people": people, "address": address_id}).all()
    changes = [
        ConsentChange(row.contact_id, "sms", row.topic, "granted", "person", source, now, address_id) for row in topics
    ]
    consent.record(connection, key_ring, changes, now=now)
    return bool(lifted or changes)


_ONCE_GRANTED = text("""
SELECT k.contact_id, k.topic FROM consent k
WHERE k.contact_id = ANY(:people) AND k.channel = 'sms' AND k.state = 'withdrawn'
  AND EXISTS (SELECT FROM consent_event e JOIN contact c ON c.id = e.contact_id
              WHERE COALESCE(c.merged_into, c.id) = k.contact_id AND e.channel = 'sms' AND e.topic = k.topic
                AND e.action = 'granted' AND e.address_id = :address)
ORDER BY k.contact_id, k.topic
""")
