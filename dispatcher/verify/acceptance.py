"""What the provider accepted, against the ledger: once, ours, to the right place, with the right links in it."""

from __future__ import annotations

from dispatcher.tables import MAY_HAVE_LEFT
from dispatcher.verify.report import Examination

_LEDGER_ONLY = "without a provider log only the ledger was looked at"
_ACCEPTED = "('sent', 'delivered', 'bounced')"

# Whoever was merged is the person they were merged into.
PEOPLE = "person AS MATERIALIZED (SELECT id, COALESCE(merged_into, id) AS root FROM contact)"


def nobody_twice(found: Examination) -> None:
    """INV-1.  A transactional message whose first try is filed as unknown may be resent once, and is counted apart."""
    left = f"FROM message m WHERE m.client IS NULL AND m.status IN {MAY_HAVE_LEFT}"
    found.count(f"SELECT count(*) {left}")
    for what in ("contact", "address"):
        found.ask(f"""
            SELECT 'run ' || run_id || ': {what} ' || {what}_id || ' has ' || count(*) || ' messages by ' || channel
            {left} AND m.{what}_id IS NOT NULL GROUP BY run_id, {what}_id, channel HAVING count(*) > 1""")
    found.ask("""
        SELECT 'trigger ' || trigger_id || ' has ' || count(*) || ' messages of one key by ' || channel
        FROM message WHERE trigger_id IS NOT NULL GROUP BY trigger_id, trigger_key, channel HAVING count(*) > 1""")
    if found.subject.log is None:
        return found.note(_LEDGER_ONLY)
    found.ask("""
        SELECT 'message ' || l.message_id || ' was accepted ' || count(*) || ' times (lines ' || min(l.line) || ' to '
               || max(l.line) || ')'
        FROM verify_line l GROUP BY l.message_id
        HAVING count(*) > 1 + (SELECT count(*) FROM attempt a JOIN message m ON m.id = a.message_id
                               WHERE m.id = l.message_id AND m.class = 'transactional' AND a.outcome = 'unknown')""")
    for what, column in (("contact", "l.contact"), ("address", "l.to_hash")):
        found.ask(f"""
            SELECT 'run ' || l.run_id || ': one {what} accepted messages ' || min(l.message_id::text) || ' and '
                   || max(l.message_id::text) || ' by ' || l.channel
            FROM verify_line l
            LEFT JOIN message m ON m.id = l.message_id LEFT JOIN run r ON r.id = l.run_id
            WHERE m.client IS NULL AND r.kind IS DISTINCT FROM 'standing' AND {column} IS NOT NULL
            GROUP BY l.run_id, {column}, l.channel HAVING count(DISTINCT l.message_id) > 1""")  # noqa: S608
    return None


def is_ours(found: Examination) -> None:
    """INV-3.  What is `sending` may be in the log only while its batch is in the hands of a worker."""
    _tell_what_cannot_be_read(found)
    found.ask("""
        SELECT 'line ' || l.line || ': message ' || l.message_id || ' is not in this ledger'
        FROM verify_line l WHERE NOT EXISTS (SELECT FROM message m WHERE m.id = l.message_id)""")
    found.ask(f"""
        SELECT 'line ' || l.line || ': message ' || m.id || ' was accepted, and the ledger says ' || m.status
        FROM verify_line l JOIN message m ON m.id = l.message_id
        WHERE m.status NOT IN {MAY_HAVE_LEFT} OR (m.status = 'sending' AND NOT EXISTS (
            SELECT FROM batch b WHERE b.id = m.batch_id AND b.state = 'claimed'))""")  # noqa: S608
    found.ask("""
        SELECT 'line ' || l.line || ': message ' || m.id || ' was accepted for another address than the ledger has'
        FROM verify_line l JOIN message m ON m.id = l.message_id LEFT JOIN address a ON a.id = m.address_id
        WHERE l.to_hash IS DISTINCT FROM a.hash OR l.channel IS DISTINCT FROM a.channel""")
    found.ask("""
        SELECT 'line ' || l.line || ': message ' || m.id || ' was accepted for another run'
        FROM verify_line l JOIN message m ON m.id = l.message_id
        WHERE (l.run_id, l.channel) <> (m.run_id, m.channel)""")
    found.ask(f"""
        WITH {PEOPLE}
        SELECT 'line ' || l.line || ': message ' || m.id || ' was accepted for another contact'
        FROM verify_line l JOIN message m ON m.id = l.message_id JOIN person mine ON mine.id = m.contact_id
        LEFT JOIN contact_alias k ON k.external_id = l.contact LEFT JOIN person theirs ON theirs.id = k.contact_id
        WHERE theirs.root IS DISTINCT FROM mine.root
          AND NOT (k.contact_id IS NULL AND EXISTS (
              SELECT FROM contact c WHERE c.id = mine.root AND c.erased_at IS NOT NULL))""")  # noqa: S608


def _tell_what_cannot_be_read(found: Examination) -> None:
    log = found.subject.log
    assert log is not None
    found.checked = log.lines
    for number in log.strange:
        found.add(f"line {number} is not an acceptance in the form of the sandbox")
    found.total += log.strange_total - len(log.strange)
    if log.torn_total:
        found.note(f"{log.torn_total} torn lines could not be read (the first: {', '.join(map(str, log.torn[:5]))})")
    if log.newer:
        found.note(f"{log.newer} lines are newer than this look at the ledger and were left out")


def was_accepted(found: Examination) -> None:
    """INV-4.  What settled after this look began may not have been in the log yet."""
    found.count("SELECT count(*) FROM message m WHERE m.status IN ('delivered', 'bounced')")
    found.ask("""
        SELECT 'message ' || m.id || ' is ' || m.status || ' and nobody reported it' FROM message m
        WHERE m.status IN ('delivered', 'bounced') AND NOT EXISTS (
            SELECT FROM feedback f WHERE f.message_id = m.id AND f.kind IN (
                m.status, CASE WHEN m.reason = 'PROVIDER_DROPPED' THEN 'dropped' ELSE m.status END))""")
    if found.subject.log is None:
        return found.note("without a provider log only what was reported was looked at")
    settled = f"m.provider = 'sandbox' AND m.status IN {_ACCEPTED} AND m.settled_at <= :moment"
    found.count(f"SELECT count(*) FROM message m WHERE {settled}", moment=found.subject.moment)  # noqa: S608 - constants
    found.ask(
        f"""SELECT 'message ' || m.id || ' is ' || m.status || ' and has no acceptance'
            FROM message m WHERE {settled}
              AND NOT EXISTS (SELECT FROM verify_line l WHERE l.message_id = m.id)""",  # noqa: S608 - constants
        moment=found.subject.moment,
    )
    return None


def links_are_own(found: Examination) -> None:
    """INV-14, of links to one's own pages too, which name no topic.

    A link of one who was merged opens the person they were merged into.
    """
    found.count("SELECT count(*) FROM verify_token")
    found.ask("""
        SELECT 'line ' || l.line || ': mail ' || m.id || CASE WHEN l.ways_out <> 1
                   THEN ' has ' || l.ways_out || ' List-Unsubscribe headers'
                   ELSE ' has no List-Unsubscribe-Post: List-Unsubscribe=One-Click' END
        FROM verify_line l JOIN message m ON m.id = l.message_id
        WHERE m.class = 'marketing' AND m.channel = 'email' AND (l.ways_out <> 1 OR NOT l.one_click)""")
    found.ask(f"""
        WITH {PEOPLE}
        SELECT 'line ' || l.line || ': the link '
            || CASE t.place WHEN 'body' THEN 'in the body' WHEN 'page' THEN 'to a page' ELSE 'in ' || t.place END
            || ' of message ' || m.id || CASE
               WHEN t.contact_id IS NULL THEN ' does not open'
               WHEN theirs.root IS DISTINCT FROM mine.root THEN ' opens contact ' || t.contact_id
               WHEN t.channel <> m.channel OR t.place <> 'page' AND t.topic IS DISTINCT FROM m.topic
                   THEN ' opens another topic'
               ELSE ' opens address ' || t.address_id END
        FROM verify_token t JOIN verify_line l USING (line) JOIN message m ON m.id = l.message_id
        JOIN person mine ON mine.id = m.contact_id LEFT JOIN person theirs ON theirs.id = t.contact_id
        WHERE theirs.root IS DISTINCT FROM mine.root OR t.place <> 'page' AND t.topic IS DISTINCT FROM m.topic
           OR t.channel IS DISTINCT FROM m.channel OR t.address_id IS DISTINCT FROM m.address_id""")  # noqa: S608
    found.ask("""
        SELECT 'line ' || l.line || ': a link in message ' || l.message_id || ' counts the clicks of '
            || COALESCE('message ' || t.message_id, 'no message')
        FROM verify_click k JOIN verify_line l USING (line) LEFT JOIN tracked_message t ON t.id = k.tracked_id
        WHERE t.message_id IS DISTINCT FROM l.message_id""")


def content_is_own(found: Examination) -> None:
    """INV-15.  The shop's own address may be in every message."""
    shop, key_ring = found.subject.shop, found.subject.key_ring
    found.count("SELECT count(*) FROM verify_line")
    own = key_ring.address_hash("email", shop.shop.from_email.lower()) if shop else b""
    found.ask(
        f"""
        WITH {PEOPLE}
        SELECT DISTINCT 'line ' || l.line || ': message ' || m.id || ' carries address ' || a.id || ' of somebody else'
        FROM verify_mention v JOIN address a ON a.channel = 'email' AND a.hash = v.hash
        JOIN verify_line l USING (line) JOIN message m ON m.id = l.message_id JOIN person mine ON mine.id = m.contact_id
        JOIN contact c ON c.id = mine.root
        WHERE a.id IS DISTINCT FROM m.address_id AND a.id IS DISTINCT FROM c.email_address_id AND a.hash <> :own
          AND NOT (c.erased_at IS NOT NULL AND EXISTS (  -- it may have been theirs
              SELECT FROM suppression s WHERE s.address_id = a.id AND s.reason = 'erasure'))""",  # noqa: S608
        own=own,
    )
    found.note("looks for the e-mail addresses we know; names are not looked for")
