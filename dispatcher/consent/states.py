"""The state of each contact, channel and topic: written with its evidence, under the locks, and shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection, text

from dispatcher.consent.evidence import ConsentChange, Key, Known, append, read_contacts, read_evidence
from dispatcher.consent.rules import Evidence, State, state_after
from dispatcher.keys import KeyRing


class Outcome(StrEnum):
    CHANGED = "changed"  #: recorded, and the state is another now
    KEPT = "kept"  #: recorded as evidence; the state stays what it was
    KNOWN = "known"  #: the same evidence was there already; nothing was written


def record(
    connection: Connection, key_ring: KeyRing, changes: Sequence[ConsentChange], *, now: datetime
) -> list[Outcome]:
    """Keep each change as evidence and bring the states up to date; return what became of each.

    The caller holds the locks of the contacts and addresses, and read `now` after them.  The same claim twice (contact,
    channel, topic, action, actor and time) is recorded once.
    """
    if not changes:
        return []
    changes = [_dated(change, now) for change in changes]
    contacts = read_contacts(connection, {change.contact_id for change in changes})
    evidence = read_evidence(connection, list(contacts))
    known = Known(evidence)
    fresh = [(index, change) for index, change in enumerate(changes) if known.is_new(change)]
    outcomes = [Outcome.KNOWN] * len(changes)
    rows = append(connection, key_ring, contacts, [change for _, change in fresh], now)
    states: dict[Key, State] = {}
    for (index, change), row in zip(fresh, rows, strict=True):
        key = change.key
        address_id = contacts[change.contact_id][1][change.channel]
        before = state_after(evidence[key], address_id)
        evidence[key].append(
            Evidence(
                row["id"],
                change.action,
                change.actor,
                row["occurred_at"],
                now,
                change.address_id,
                change.opt_in_level,
                row["source"],
                row["basis"],
            )
        )
        after = state_after(evidence[key], address_id)
        outcomes[index] = Outcome.KEPT if _means(after) == _means(before) else Outcome.CHANGED
        if after is not None and after != before:
            states[key] = after
    _write_states(connection, states)
    return outcomes


def _dated(change: ConsentChange, now: datetime) -> ConsentChange:
    """What people and operators tell us without a time, they do now; a file or a shop may tell of any time."""
    live = change.occurred_at is None and change.actor in ("person", "operator")
    return replace(change, occurred_at=now) if live else change


def withdraw(
    connection: Connection,
    key_ring: KeyRing,
    contact_id: int,
    channel: str,
    topics: Iterable[str],
    *,
    address_id: int | None,
    source: str,
    now: datetime,
    sealed: Mapping[str, str] | None = None,
) -> list[Outcome]:
    """Record that the person withdraws these topics here, now; locks and pending messages are the caller's."""
    changes = [
        ConsentChange(contact_id, channel, topic, "withdrawn", "person", source, now, address_id, sealed=sealed)
        for topic in topics
    ]
    return record(connection, key_ring, changes, now=now)


def settle_merge(
    connection: Connection, key_ring: KeyRing, survivor: int, loser: int, *, source: str, now: datetime
) -> None:
    """Give the survivor the consent of both: withdrawal wins, per channel and topic.  Both are locked by the caller.

    The loser's `merged_into` is set already, so that its evidence counts as the survivor's.
    """
    held = connection.execute(
        text("SELECT channel, topic, state FROM consent WHERE contact_id = ANY(:ids)"), {"ids": [survivor, loser]}
    ).all()
    contacts = read_contacts(connection, {survivor})
    evidence = read_evidence(connection, [survivor])
    states: dict[Key, State] = {}
    lost = []
    for channel, topic in sorted({(row.channel, row.topic) for row in held}):
        address_id = contacts[survivor][1][channel]
        state = state_after(evidence[survivor, channel, topic], address_id)
        withdrawn = any((row.channel, row.topic, row.state) == (channel, topic, "withdrawn") for row in held)
        if withdrawn and (state is None or state.state != "withdrawn"):
            lost.append(ConsentChange(survivor, channel, topic, "withdrawn", "operator", source, now, address_id))
        elif state is not None:
            states[survivor, channel, topic] = state
    connection.execute(text("DELETE FROM consent WHERE contact_id = ANY(:ids)"), {"ids": [survivor, loser]})
    _write_states(connection, states)
    record(connection, key_ring, lost, now=now)


def settle_move(connection: Connection, contact_ids: Iterable[int]) -> None:
    """Bring the states of contacts whose address has changed up to date; they are locked by the caller.

    What their evidence says of the address they have now counts: it may have been theirs before, or was that of
    whoever they were merged with.  What was said only of the former stays as it is, and is void.
    """
    contacts = read_contacts(connection, set(contact_ids))
    states: dict[Key, State] = {}
    for key, pieces in read_evidence(connection, list(contacts)).items():
        contact_id, channel, _ = key
        state = state_after(pieces, contacts[contact_id][1][channel])
        if state is not None:
            states[key] = state
    _write_states(connection, states)


def _means(state: State | None) -> tuple[object, ...] | None:
    if state is None:
        return None
    return state.state, state.confirmed, state.address_id, state.basis, state.expires_at


_WRITE_STATES = text("""
    INSERT INTO consent (contact_id, channel, topic, address_id, state, confirmed, effective_at, event_id, basis,
                         expires_at)
    SELECT * FROM unnest(
        CAST(:contact_ids AS bigint[]), CAST(:channels AS text[]), CAST(:topics AS text[]),
        CAST(:address_ids AS bigint[]), CAST(:states AS text[]), CAST(:confirmed AS boolean[]),
        CAST(:effective_at AS timestamptz[]), CAST(:event_ids AS bigint[]), CAST(:bases AS text[]),
        CAST(:expires_at AS timestamptz[]))
    ON CONFLICT (contact_id, channel, topic) DO UPDATE SET
        address_id = excluded.address_id, state = excluded.state, confirmed = excluded.confirmed,
        effective_at = excluded.effective_at, event_id = excluded.event_id, basis = excluded.basis,
        expires_at = excluded.expires_at
""")


def _write_states(connection: Connection, states: Mapping[Key, State]) -> None:
    if states:
        connection.execute(
            _WRITE_STATES,
            {
                "contact_ids": [contact_id for contact_id, _, _ in states],
                "channels": [channel for _, channel, _ in states],
                "topics": [topic for _, _, topic in states],
                "address_ids": [state.address_id for state in states.values()],
                "states": [state.state for state in states.values()],
                "confirmed": [state.confirmed for state in states.values()],
                "effective_at": [state.effective_at for state in states.values()],
                "event_ids": [state.event_id for state in states.values()],
                "bases": [state.basis for state in states.values()],
                "expires_at": [state.expires_at for state in states.values()],
            },
        )


class Held(NamedTuple):
    """One state of one contact, as it is shown."""

    channel: str
    topic: str
    state: str
    confirmed: bool
    basis: str | None  #: of a grant: consent, soft_opt_in, implied_purchase, implied_inquiry
    effective_at: datetime
    expires_at: datetime | None  #: of a grant that is not consent
    for_present_address: bool  #: else void: it was given for an address the contact no longer has
    source: str


_HELD = text("""
    SELECT k.channel, k.topic, k.state, k.confirmed, k.basis, k.effective_at, k.expires_at,
           k.address_id IS NOT DISTINCT FROM
               CASE k.channel WHEN 'email' THEN c.email_address_id ELSE c.sms_address_id END AS for_present_address,
           e.source
    FROM consent k JOIN contact c ON c.id = k.contact_id JOIN consent_event e ON e.id = k.event_id
    WHERE k.contact_id = :contact_id ORDER BY k.channel, k.topic
""")


def state_of(connection: Connection, contact_id: int) -> list[Held]:
    """Return the contact's consent by channel and topic; what is not listed was never asked."""
    return [Held(*row) for row in connection.execute(_HELD, {"contact_id": contact_id})]
