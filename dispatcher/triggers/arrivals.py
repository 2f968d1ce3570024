"""What an event that arrives does: starts a message, moves the one that waits, or ends a flow.

Nothing is decided here.  Whether a flow has ended is asked when its message is due, of all events there are by then, so
the order in which they arrived makes no difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, Row, text
from uuid_utils.compat import uuid7

from dispatcher import clock, db, release
from dispatcher.definitions import LONGEST_EXPIRY, Trigger
from dispatcher.errors import DispatcherError
from dispatcher.keys import KeyRing
from dispatcher.plan import BATCH_SIZE
from dispatcher.triggers.keys import event_values, key_hash, key_of
from dispatcher.triggers.standing import Applied, Standing, load_triggers, standing_run

if TYPE_CHECKING:
    from dispatcher.events import Event, Key

#: Who asked for the message, beside the names of API keys.
CLIENT = "trigger"
#: An import may start what was due this long ago at most: a file is more often history than news.
LATE_IMPORT = timedelta(hours=1)


class Starting(StrEnum):
    """Which events may start or move a message; all of them may end a flow."""

    UNTIL_EXPIRY = "until expiry"  #: whose message would still be worth sending
    RECENT = "recent"  #: likewise, and it is due later than `LATE_IMPORT` ago
    NOTHING = "nothing"


class Outcome(StrEnum):
    STARTED = "started"
    MOVED = "moved"  #: the pending message of this key now waits from this event on
    OLDER = "older"  #: a newer event of this key is known
    OVER = "over"  #: the message of this key is not pending any more
    LATE = "late"  #: its message would have expired, or an import came too late
    NO_KEY = "no_key"  #: the event lacks what the key is made of


class Again(DispatcherError):  # noqa: N818 - named for what to do
    """Somebody else's event met ours on one key: let go of every lock and begin anew."""


@dataclass(frozen=True, slots=True)
class Step:
    """What an event did to one trigger's flow."""

    event: Key
    trigger: str
    outcome: Outcome
    message_id: UUID | None = None


@dataclass(frozen=True)
class Meeting:
    """An event and a trigger that heeds it."""

    event: Event
    trigger: Applied
    values: dict[str, Any]
    key: bytes | None
    too_old: bool = False  #: for any message of this trigger to be alive still: not even looked at

    @property
    def starts(self) -> bool:
        return self.event.name == self.trigger.definition.on

    @property
    def ends(self) -> bool:
        wanted = self.trigger.definition
        return self.event.name in wanted.exits or self.event.name == wanted.cancel

    @cached_property
    def order(self) -> tuple[datetime, str, str]:
        """Events by the time they happened; of two at one instant their keys decide, whichever arrives first."""
        return self.event.occurred_at, self.event.source, self.event.source_key

    def step(self, outcome: Outcome, message_id: UUID | None = None) -> Step:
        return Step(self.event.key, self.trigger.definition.name, outcome, message_id)

    def due_at(self, rules: Trigger, now: datetime) -> datetime:
        """Return when the message is due; a shop's clock that is ahead of ours does not hold it up."""
        return min(self.event.occurred_at, now) + rules.after


def meetings_of(connection: Connection, key_ring: KeyRing, events: Iterable[Event]) -> list[Meeting]:
    """Return which events meet which triggers, in the order their messages are locked."""
    triggers = load_triggers(connection)
    now = clock.read_now(connection)
    heeding = {name: [t for t in triggers if name in t.heeds] for name in {event.name for event in events}}
    met = [meeting for event in events for meeting in _meetings(key_ring, event, heeding[event.name], now)]
    return sorted(met, key=lambda meeting: (meeting.trigger.id, meeting.key or b"", meeting.order))


def _meetings(key_ring: KeyRing, event: Event, triggers: Sequence[Applied], now: datetime) -> Iterator[Meeting]:
    values = None
    for trigger in triggers:
        if now - event.occurred_at > trigger.definition.after + LONGEST_EXPIRY:
            yield Meeting(event, trigger, {}, None, too_old=True)
            continue
        values = values or event_values(event)
        key = key_of(trigger.definition.key, values)
        yield Meeting(event, trigger, values, None if key is None else key_hash(key_ring, key))


_HOLDERS = text("""
    SELECT DISTINCT m.contact_id FROM message m
    JOIN unnest(CAST(:triggers AS bigint[]), CAST(:keys AS bytea[])) AS x(trigger_id, key)
      ON m.trigger_id = x.trigger_id AND m.trigger_key = x.key
    WHERE m.status = 'pending'
""")


def holders(connection: Connection, meetings: Collection[Meeting]) -> list[int]:
    """Return the contacts whose pending messages these events may move: to be locked with the events' own."""
    starting = [m for m in meetings if m.starts and m.key is not None]
    if not starting:
        return []
    values = {"triggers": [m.trigger.id for m in starting], "keys": [m.key for m in starting]}
    return list(connection.scalars(_HOLDERS, values))


@dataclass(slots=True)
class _Arrival:
    """Some events on their way in, their contacts locked."""

    connection: Connection
    key_ring: KeyRing
    now: datetime
    locked: frozenset[int]
    event_ids: Mapping[Key, int]
    contacts: Mapping[str, Row[Any]]
    standing: dict[int, Standing] = field(default_factory=dict)
    batches: dict[Standing, list[int]] = field(default_factory=lambda: defaultdict(list))
    placed: dict[Standing, int] = field(default_factory=lambda: defaultdict(int))


def follow(
    connection: Connection,
    key_ring: KeyRing,
    meetings: Sequence[Meeting],
    event_ids: Mapping[Key, int],
    contacts: Mapping[str, int],
    locked: Collection[int],
    starting: Starting,
) -> list[Step]:
    """Let these events, all of them new, do what their triggers say; return the steps.

    `contacts`: external id -> contact; `locked`: every contact whose lock is held.  Raises Again.
    """
    _write_exits(connection, meetings, event_ids)
    starts = [m for m in meetings if m.starts] if starting is not Starting.NOTHING else []
    if not starts:
        return []
    arrival = _Arrival(
        connection,
        key_ring,
        clock.read_now(connection),
        frozenset(locked),
        event_ids,
        _read_contacts(connection, {m.event.contact: contacts[m.event.contact] for m in starts}),
    )
    steps = [step for meeting in starts if (step := _start(arrival, meeting, starting)) is not None]
    _write_batches(arrival)
    if any(step.outcome is Outcome.MOVED for step in steps):
        db.notify(connection, "due")
    return steps


def _write_exits(connection: Connection, meetings: Iterable[Meeting], event_ids: Mapping[Key, int]) -> None:
    rows = [
        {"trigger_id": m.trigger.id, "key": m.key, "event_id": event_ids[m.event.key]}
        for m in meetings
        if m.ends and m.key is not None
    ]
    if rows:
        insert = "INSERT INTO flow_exit (trigger_id, key, event_id) VALUES (:trigger_id, :key, :event_id)"
        connection.execute(text(insert), rows)


def _read_contacts(connection: Connection, contacts: Mapping[str, int]) -> dict[str, Row[Any]]:
    rows = connection.execute(
        text("""SELECT id, data_key, email_address_id AS email, sms_address_id AS sms FROM contact
                WHERE id = ANY(:ids)"""),
        {"ids": list(set(contacts.values()))},
    )
    by_id = {row.id: row for row in rows}
    return {external_id: by_id[contact_id] for external_id, contact_id in contacts.items()}


_KNOWN = text("""
    SELECT m.id, m.contact_id, m.status, e.occurred_at, e.source, e.source_key, r.definition::text AS rules, r.class
    FROM message m JOIN event e ON e.id = m.event_id JOIN run r ON r.id = m.run_id
    WHERE m.trigger_id = :trigger_id AND m.trigger_key = :key AND m.channel = :channel
""")


def _start(arrival: _Arrival, meeting: Meeting, starting: Starting) -> Step | None:
    """Start the message of the event's key, or move it; None if the trigger is retired and has none."""
    if meeting.key is None:
        return meeting.step(Outcome.LATE if meeting.too_old else Outcome.NO_KEY)
    known = arrival.connection.execute(
        _KNOWN,
        {"trigger_id": meeting.trigger.id, "key": meeting.key, "channel": meeting.trigger.definition.channel},
    ).one_or_none()
    if known is None:
        return _begin(arrival, meeting, starting) if meeting.trigger.active else None
    if known.status != "pending":
        return meeting.step(Outcome.OVER, known.id)
    if (known.occurred_at, known.source, known.source_key) >= meeting.order:
        return meeting.step(Outcome.OLDER, known.id)
    if known.contact_id not in arrival.locked:
        raise Again("the message of this key went to another contact")
    rules = Trigger.model_validate_json(known.rules)
    due_at = meeting.due_at(rules, arrival.now)
    expires_at = due_at + rules.expires_after_as(known._mapping["class"])
    if _too_late(due_at, expires_at, arrival.now, starting):
        return meeting.step(Outcome.LATE, known.id)
    return meeting.step(_move(arrival, meeting, known.id, due_at, expires_at), known.id)


def _too_late(due_at: datetime, expires_at: datetime, now: datetime, starting: Starting) -> bool:
    return now >= expires_at or (starting is Starting.RECENT and now > due_at + LATE_IMPORT)


_MOVE = text("""
    UPDATE message SET contact_id = :contact_id, address_id = :address_id, event_id = :event_id, sealed = :sealed,
           due_at = :due_at, first_due_at = :due_at, expires_at = :expires_at, deferred_reason = NULL, facts = NULL,
           batch_id = NULL
    WHERE id = :id AND status = 'pending'
""")


def _move(arrival: _Arrival, meeting: Meeting, message_id: UUID, due_at: datetime, expires_at: datetime) -> Outcome:
    """Let the message wait from this event on; whoever holds it in a batch finds it gone from there."""
    contact = arrival.contacts[meeting.event.contact]
    moved = arrival.connection.execute(
        _MOVE,
        {
            "id": message_id,
            "contact_id": contact.id,
            "address_id": contact._mapping[meeting.trigger.definition.channel],
            "event_id": arrival.event_ids[meeting.event.key],
            "sealed": arrival.key_ring.open_data_key(contact.data_key).seal(meeting.values),
            "due_at": due_at,
            "expires_at": expires_at,
        },
    )
    return Outcome.MOVED if moved.rowcount else Outcome.OVER


_INSERT = text("""
    INSERT INTO message (id, run_id, contact_id, channel, topic, class, address_id, status, due_at, first_due_at,
                         expires_at, batch_id, client, trigger_id, trigger_key, event_id, sealed)
    VALUES (:id, :run_id, :contact_id, :channel, :topic, :class, :address_id, 'pending', :due_at, :due_at,
            :expires_at, :batch_id, :client, :trigger_id, :key, :event_id, :sealed)
    ON CONFLICT (trigger_id, trigger_key, channel) WHERE trigger_id IS NOT NULL DO NOTHING
""")


def _begin(arrival: _Arrival, meeting: Meeting, starting: Starting) -> Step:
    """Write the message; one that is due already is born in a batch."""
    trigger = meeting.trigger
    if trigger.id not in arrival.standing:
        arrival.standing[trigger.id] = standing_run(arrival.connection, trigger)
    run = arrival.standing[trigger.id]
    due_at = meeting.due_at(trigger.definition, arrival.now)
    expires_at = due_at + run.expires_after
    if _too_late(due_at, expires_at, arrival.now, starting):
        return meeting.step(Outcome.LATE)
    contact = arrival.contacts[meeting.event.contact]
    message_id = uuid7()
    written = arrival.connection.execute(
        _INSERT,
        {
            "id": message_id,
            "run_id": run.run_id,
            "contact_id": contact.id,
            "channel": trigger.definition.channel,
            "topic": run.topic,
            "class": run.class_,
            "address_id": contact._mapping[trigger.definition.channel],
            "due_at": due_at,
            "expires_at": expires_at,
            "batch_id": _place(arrival, run) if due_at <= arrival.now else None,
            "client": CLIENT,
            "trigger_id": trigger.id,
            "key": meeting.key,
            "event_id": arrival.event_ids[meeting.event.key],
            "sealed": arrival.key_ring.open_data_key(contact.data_key).seal(meeting.values),
        },
    )
    if not written.rowcount:  # another transaction, with another contact's event, was quicker
        raise Again("another event has just started the message of this key")
    return meeting.step(Outcome.STARTED, message_id)


def _place(arrival: _Arrival, run: Standing) -> int:
    """Return the batch of a message that is due now."""
    if arrival.placed[run] % BATCH_SIZE == 0:
        next_id = text("SELECT nextval(pg_get_serial_sequence('batch', 'id'))")
        arrival.batches[run].append(int(arrival.connection.execute(next_id).scalar_one()))
    arrival.placed[run] += 1
    return arrival.batches[run][-1]


def _write_batches(arrival: _Arrival) -> None:
    placed = [(batch_id, run) for run, batch_ids in arrival.batches.items() for batch_id in batch_ids]
    if placed:
        arrival.connection.execute(
            text("INSERT INTO batch (id, run_id, lane, priority) VALUES (:id, :run_id, :lane, :priority)"),
            [{"id": i, "run_id": run.run_id, "lane": run.lane, "priority": run.priority} for i, run in placed],
        )
    for batch_id, run in placed:
        release.announce(arrival.connection, batch_id, run.lane)
