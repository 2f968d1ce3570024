"""When messages left: after they were authorised, before their deadline, while they were of use."""

from __future__ import annotations

from dispatcher.verify.report import Examination


def authorised_first(found: Examination) -> None:
    """INV-5.  An acceptance must lie between an authorisation of its message and that authorisation's deadline."""
    found.count("SELECT count(*) FROM message WHERE handed_over_at IS NOT NULL")
    for table, column in (("message", "m.id"), ("attempt", "m.message_id")):
        found.ask(f"""
            SELECT 'message ' || {column} || ' left ' || CASE WHEN m.handed_over_at > m.send_deadline
                       THEN m.handed_over_at - m.send_deadline || ' after its deadline'
                       ELSE COALESCE(m.authorised_at - m.handed_over_at || ' before it was', 'without being')
                            || ' authorised' END
            FROM {table} m
            WHERE m.handed_over_at IS NOT NULL AND (m.authorised_at IS NULL OR m.send_deadline IS NULL
                OR m.handed_over_at < m.authorised_at OR m.handed_over_at > m.send_deadline)""")  # noqa: S608
    if found.subject.log is None:
        return found.note("without a provider log only the ledger was looked at")
    found.checked += found.subject.log.lines
    found.ask("""
        SELECT 'line ' || l.line || ': message ' || m.id || ' was accepted at a time it was not authorised for'
        FROM verify_line l JOIN message m ON m.id = l.message_id
        WHERE COALESCE(l.at NOT BETWEEN m.authorised_at AND m.send_deadline, true)
          AND NOT EXISTS (SELECT FROM attempt a WHERE a.message_id = m.id
                          AND l.at BETWEEN a.authorised_at AND a.send_deadline)""")
    return None


def in_time(found: Examination) -> None:
    """INV-10."""
    found.count("SELECT count(*) FROM message WHERE handed_over_at IS NOT NULL")
    found.ask("""
        SELECT 'message ' || id || ' left ' || CASE WHEN handed_over_at < due_at
                   THEN due_at - handed_over_at || ' before it was due'
                   ELSE handed_over_at - expires_at || ' after it expired' END
        FROM message WHERE handed_over_at < due_at OR handed_over_at > expires_at""")
    if found.subject.log is None:
        return found.note("without a provider log only the ledger was looked at")
    found.ask("""
        SELECT 'line ' || l.line || ': message ' || m.id || ' was accepted ' || CASE WHEN l.at < m.due_at
                   THEN 'before it was due' ELSE 'after it expired' END
        FROM verify_line l JOIN message m ON m.id = l.message_id
        WHERE m.status NOT IN ('pending', 'skipped', 'cancelled') AND (l.at < m.due_at OR l.at > m.expires_at)""")
    return None
