"""Nobody who had said no: authorisations against consent evidence, suppressions and answered unsubscribes.

Order is by `order_seq`, which both sides draw while they hold the same row locks.  Of people who were merged we do not
know which history a message was judged by, so there a withdrawal counts for messages to the address it was made for.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import text

from dispatcher.consent import Evidence, State, state_after, verify_chain
from dispatcher.replies.answers import CLIENT
from dispatcher.runs import ANSWERS
from dispatcher.verify.acceptance import PEOPLE
from dispatcher.verify.life import trigger_is_awake
from dispatcher.verify.report import Examination, Subject

MERGED = """merged AS MATERIALIZED (
    SELECT id FROM contact WHERE merged_into IS NOT NULL
    UNION SELECT merged_into FROM contact WHERE merged_into IS NOT NULL)"""

# Evidence e that an authorisation of message m had to heed.
_HEEDED = """e.channel = m.channel AND e.topic = m.topic AND e.order_seq < m.authorise_seq
    AND (person.id = m.contact_id AND merged.id IS NULL OR merged.id IS NOT NULL AND e.address_id = m.address_id)"""


def authorised_with_consent(found: Examination) -> None:
    """INV-6."""
    found.count("SELECT count(*) FROM message WHERE authorise_seq IS NOT NULL")
    found.ask(
        """
        SELECT 'message ' || m.id || ' was authorised after suppression ' || s.id || ' (' || s.reason || ')'
        FROM message m JOIN suppression s ON s.address_id = m.address_id JOIN run r ON r.id = m.run_id
        WHERE m.authorise_seq > s.order_seq AND (s.scope = 'all' OR m.class = 'marketing')
          AND NOT (s.reason = 'stop' AND r.kind = 'standing' AND r.occurrence_key = :answers AND m.client = :client)""",
        answers=ANSWERS,
        client=CLIENT,
    )
    found.ask(f"""
        WITH {PEOPLE}, first_grant AS (
            SELECT p.root, e.channel, e.topic, min(e.order_seq) AS order_seq
            FROM consent_event e JOIN person p ON p.id = e.contact_id WHERE e.action = 'granted' GROUP BY 1, 2, 3)
        SELECT 'message ' || m.id || ' was authorised, and contact ' || m.contact_id || ' had never granted it'
        FROM message m JOIN person p ON p.id = m.contact_id
        LEFT JOIN first_grant g ON g.root = p.root AND g.channel = m.channel AND g.topic = m.topic
             AND g.order_seq < m.authorise_seq
        WHERE m.class = 'marketing' AND m.authorise_seq IS NOT NULL AND g.root IS NULL""")  # noqa: S608 - constants
    found.ask("""
        SELECT 'message ' || m.id || ' was authorised while contact ' || c.id || ' had asked for a pause'
        FROM message m JOIN contact c ON c.id = m.contact_id
        WHERE m.class = 'marketing' AND m.authorise_seq > c.paused_seq AND m.authorised_at < c.paused_until""")
    for message, evidence in _after_doubt(found.subject):
        state = state_after(evidence, message.address_id)
        if state is not None and state.state == "withdrawn":
            found.add(f"message {message.id} was authorised after withdrawal {state.event_id}")
        elif state is not None and state.expires_at is not None and state.expires_at <= message.authorised_at:
            found.add(f"message {message.id} was authorised after grant {state.event_id} had expired")


class _Message(NamedTuple):
    id: Any
    address_id: int | None
    authorised_at: datetime


def _after_doubt(subject: Subject) -> Iterator[tuple[_Message, list[Evidence]]]:
    """Yield marketing messages authorised after some withdrawal in scope, or after a grant that may have expired, with
    all evidence there was by then.
    """
    rows = subject.connection.execute(
        text(f"""
        WITH {PEOPLE}, {MERGED}, candidate AS MATERIALIZED (
            SELECT DISTINCT m.id, m.contact_id, m.channel, m.topic, m.address_id, m.authorised_at, m.authorise_seq,
                   mine.root
            FROM consent_event e JOIN person ON person.id = e.contact_id
            JOIN person mine ON mine.root = person.root JOIN message m ON m.contact_id = mine.id
            LEFT JOIN merged ON merged.id = m.contact_id
            WHERE (e.action = 'withdrawn' OR e.basis <> 'consent') AND m.class = 'marketing' AND {_HEEDED})
        SELECT m.id, m.address_id, m.authorised_at, e.id, e.action, e.actor, e.occurred_at, e.received_at,
               e.address_id, e.opt_in_level, e.source, e.basis
        FROM candidate m JOIN person ON person.root = m.root JOIN consent_event e ON e.contact_id = person.id
        LEFT JOIN merged ON merged.id = m.contact_id
        WHERE {_HEEDED} ORDER BY m.id, e.id"""),  # noqa: S608 - constants
        execution_options={"yield_per": 5_000},
    )
    for message, group in groupby(rows, key=lambda row: _Message(*row[:3])):
        yield message, [Evidence(*row[3:]) for row in group]


_LEFT_AFTER = """
    SELECT u.id AS unsubscribe_id, u.committed_at, m.id, m.contact_id, m.channel, m.topic, m.address_id,
           m.authorised_at, m.authorise_seq
    FROM unsubscribe u JOIN message m ON {same} AND m.channel = u.channel AND m.topic = u.topic
    LEFT JOIN merged ON merged.id = m.contact_id
    WHERE m.class = 'marketing' AND u.answer = 200 AND {left_at} > u.answered_at AND {scope}"""


def silent_after_goodbye(found: Examination) -> None:
    """INV-7.  Only a grant that came after the goodbye lets anything leave again."""
    found.count("SELECT count(*) FROM unsubscribe WHERE answer = 200")
    if found.subject.log is None:
        found.note("without a provider log only the ledger was looked at")
    for row in found.subject.connection.execute(text(_goodbyes(found.subject))).all():
        if row.authorised_at is None or row.authorised_at <= row.committed_at:
            found.add(f"message {row.id} was under way when unsubscribe {row.unsubscribe_id} was answered as done")
        elif not _granted_again(found.subject, row, row.committed_at):
            found.add(f"message {row.id} left after unsubscribe {row.unsubscribe_id} was answered as done")


def _goodbyes(subject: Subject) -> str:
    left_at = "m.handed_over_at"
    if subject.log is not None:
        left_at = "GREATEST(m.handed_over_at, (SELECT max(l.at) FROM verify_line l WHERE l.message_id = m.id))"
    by_contact = _LEFT_AFTER.format(same="m.contact_id = u.contact_id", left_at=left_at, scope="merged.id IS NULL")
    by_address = _LEFT_AFTER.format(same="m.address_id = u.address_id", left_at=left_at, scope="true")
    return f"WITH {MERGED} {by_contact} UNION {by_address} ORDER BY 1, 3"


def _granted_again(subject: Subject, message: Any, since: datetime) -> bool:
    rows = subject.connection.execute(
        text(f"""
        WITH {PEOPLE}
        SELECT e.id, e.action, e.actor, e.occurred_at, e.received_at, e.address_id, e.opt_in_level, e.source,
               e.basis
        FROM consent_event e JOIN person theirs ON theirs.id = e.contact_id
        JOIN person mine ON mine.root = theirs.root AND mine.id = :contact
        WHERE e.channel = :channel AND e.topic = :topic AND e.order_seq < :authorise_seq"""),  # noqa: S608 - constants
        {"contact": message.contact_id, "channel": message.channel, "topic": message.topic,
         "authorise_seq": message.authorise_seq},
    )  # fmt: skip
    evidence = [Evidence(*row) for row in rows]
    state: State | None = state_after(evidence, message.address_id)
    if state is None or state.state != "granted":
        return False
    return any(piece.id == state.event_id and piece.received_at > since for piece in evidence)


def evidence_is_whole(found: Examination) -> None:
    """INV-16.  And every state stands on a piece of it that says the same."""
    found.count("SELECT count(*) FROM consent_event")
    for finding in verify_chain(found.subject.connection):
        found.add(finding)
    found.ask(f"""
        WITH {PEOPLE}
        SELECT 'consent of contact ' || k.contact_id || ' by ' || k.channel || ' for ' || k.topic || ' is ' || k.state
               || ', and its evidence ' || k.event_id || ' says something else'
        FROM consent k LEFT JOIN consent_event e ON e.id = k.event_id
        LEFT JOIN person theirs ON theirs.id = e.contact_id LEFT JOIN person mine ON mine.id = k.contact_id
        WHERE (theirs.root, e.channel, e.topic) IS DISTINCT FROM (mine.root, k.channel, k.topic)
           OR e.action <> CASE k.state WHEN 'pending' THEN 'requested' ELSE k.state END""")  # noqa: S608 - constants
    if not trigger_is_awake(found.subject.connection, "consent_event", "consent_event_append_only"):
        found.add("evidence can be changed: trigger consent_event_append_only is missing or disabled")
