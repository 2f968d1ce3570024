"""The life of a message: what its row must have in each status, what came before, and who holds it."""

from __future__ import annotations

from sqlalchemy import Connection, text

from dispatcher import opt_in
from dispatcher.gates import Reason
from dispatcher.lifecycle import MOVES, Status
from dispatcher.verify.report import Examination

# What is wrong with a row, in words, by what its status needs.  Whoever learns of an acceptance later (from `unknown`)
# does not learn when the first byte left.
_WRONG = """CASE
    WHEN m.status IN ('pending', 'skipped', 'cancelled')
        AND (m.authorised_at, m.authorise_seq, m.send_deadline, m.handed_over_at, m.provider_ref) IS DISTINCT FROM
            (NULL::timestamptz, NULL::bigint, NULL::timestamptz, NULL::timestamptz, NULL::text)
        THEN 'carries traces of a sending'
    WHEN m.status IN ('sending', 'sent', 'delivered', 'bounced', 'unknown')
        AND (m.authorised_at IS NULL OR m.authorise_seq IS NULL OR m.send_deadline IS NULL OR m.provider IS NULL
             OR m.address_id IS NULL)
        THEN 'was never properly authorised'
    WHEN m.status = 'sending' AND m.worker_id IS NULL THEN 'is in the hands of no worker'
    WHEN m.status = 'sent' AND m.handed_over_at IS NULL
        AND NOT EXISTS (SELECT FROM feedback f WHERE f.message_id = m.id) THEN 'was never handed over'
    WHEN m.status NOT IN ('pending', 'sending') AND m.settled_at IS NULL THEN 'has no instant of settling'
    WHEN m.status IN ('pending', 'sending') AND m.settled_at IS NOT NULL THEN 'has settled already'
    WHEN m.settled_at < m.authorised_at THEN 'settled before it was authorised'
    WHEN m.status IN ('skipped', 'failed', 'cancelled') AND m.reason IS NULL THEN 'has no reason'
    WHEN m.status IN ('pending', 'sending', 'unknown') AND m.reason IS NOT NULL THEN 'has a reason'
    WHEN m.status <> 'pending' AND m.deferred_reason IS NOT NULL THEN 'is put off'
    WHEN NOT COALESCE(m.reason, m.deferred_reason, :any_reason) = ANY(:reasons) THEN 'has a reason nobody knows'
    WHEN m.expires_at <= m.first_due_at THEN 'expires before it is due'
END"""


def rows_fit_their_status(found: Examination) -> None:
    """INV-12.  The database refuses illegal moves: so its guard must be there, be awake and know the same rules."""
    found.count("SELECT count(*) FROM message")
    found.ask(
        f"""SELECT 'message ' || w.id || ' is ' || w.status || ' and ' || w.wrong
            FROM (SELECT m.id, m.status, {_WRONG} AS wrong FROM message m) w WHERE w.wrong IS NOT NULL""",  # noqa: S608
        reasons=[reason.value for reason in Reason],
        any_reason=Reason.OPERATOR.value,
    )
    found.ask(
        """
        SELECT 'message ' || m.id || CASE WHEN r.id IS NULL THEN ' belongs to a run that does not exist'
               WHEN a.id IS NULL AND m.address_id IS NOT NULL THEN ' goes to an address that does not exist'
               WHEN a.channel <> m.channel THEN ' goes to an address of another channel'
               ELSE ' is under other rules than its run' END
        FROM message m LEFT JOIN run r ON r.id = m.run_id LEFT JOIN address a ON a.id = m.address_id
        WHERE r.id IS NULL OR (a.id IS NULL AND m.address_id IS NOT NULL) OR a.channel <> m.channel
           OR (m.channel, m.class) IS DISTINCT FROM (r.channel, r.class)
           OR (m.topic IS DISTINCT FROM r.topic AND m.client IS DISTINCT FROM :asks_for_a_topic)""",
        asks_for_a_topic=opt_in.CLIENT,
    )
    found.ask("""
        SELECT 'message ' || m.id || ' is ' || m.status || ', and was reported ' || f.kind
        FROM message m JOIN feedback f ON f.message_id = m.id AND f.flaw IS NULL
        WHERE m.status NOT IN ('delivered', 'bounced') AND f.kind IN ('delivered', 'bounced', 'dropped')
           OR m.status = 'delivered' AND f.kind IN ('bounced', 'dropped')
           OR m.status IN ('pending', 'skipped', 'cancelled', 'sending', 'failed', 'unknown')
              AND f.kind IS NOT NULL""")
    if not trigger_is_awake(found.subject.connection, "message", "message_moves"):
        found.add("the database does not refuse illegal moves: trigger message_moves is missing or disabled")
    for old, new in _moves_that_differ(found.subject.connection):
        found.add(f"the database and the code disagree on the move from {old} to {new}")


def trigger_is_awake(connection: Connection, table: str, name: str) -> bool:
    """Whether the database's guard is there and switched on."""
    return bool(
        connection.scalar(
            text("""SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = CAST(:table AS regclass) AND tgname = :name
                                   AND tgenabled <> 'D')"""),
            {"table": table, "name": name},
        )
    )


def _moves_that_differ(connection: Connection) -> list[tuple[str, str]]:
    rows = connection.execute(
        text("""SELECT o, n, message_move_is_legal(o, n) FROM unnest(CAST(:every AS text[])) AS o,
                unnest(CAST(:every AS text[])) AS n WHERE o <> n"""),
        {"every": [status.value for status in Status]},
    )
    return [(old, new) for old, new, legal in rows if legal != (Status(new) in MOVES[Status(old)])]


def tried_again_with_proof(found: Examination) -> None:
    """INV-13.  Every filed try was proved not accepted; only a transactional one may be of unknown outcome, once."""
    found.count("SELECT count(*) FROM attempt")
    found.ask("""
        SELECT 'message ' || m.id || ': try ' || a.number || ' may have been accepted, and another followed'
        FROM attempt a JOIN message m ON m.id = a.message_id
        WHERE a.outcome = 'unknown' AND (m.class <> 'transactional' OR EXISTS (
            SELECT FROM attempt b WHERE b.message_id = a.message_id AND b.outcome = 'unknown'
                AND b.number < a.number))""")
    found.ask("""
        SELECT 'message ' || m.id || ' counts ' || m.attempts || ' tries, and ' || count(a.number) || ' are filed'
               || CASE WHEN m.authorised_at IS NULL THEN '' ELSE ' beside the latest' END
        FROM message m LEFT JOIN attempt a ON a.message_id = m.id
        GROUP BY m.id HAVING m.attempts <> count(a.number) + CASE WHEN m.authorised_at IS NULL THEN 0 ELSE 1 END
            OR max(a.number) > m.attempts""")
    found.ask("""
        SELECT 'message ' || m.id || ': a new try was authorised before the last one was settled'
        FROM attempt a JOIN message m ON m.id = a.message_id
        WHERE m.authorised_at < a.settled_at AND a.authorise_seq < m.authorise_seq""")
    again = found.subject.connection.scalar(
        text("""SELECT count(*) FROM attempt a JOIN message m ON m.id = a.message_id
                WHERE a.outcome = 'unknown' AND m.authorised_at IS NOT NULL""")
    )
    if again:
        found.note(f"{again} transactional messages of unknown outcome were sent a second time, as they may be")
    if found.subject.log is None:
        return found.note("without a provider log the proofs themselves were not looked at")
    found.ask("""
        SELECT 'line ' || l.line || ': message ' || a.message_id || ' was accepted on try ' || a.number
               || ', which is filed as ' || a.outcome
        FROM attempt a JOIN verify_line l ON l.message_id = a.message_id
        WHERE a.outcome <> 'unknown' AND l.at BETWEEN a.authorised_at AND COALESCE(a.send_deadline, a.settled_at)
          AND a.settled_at >= l.at""")
    return None


def nothing_forgotten_in_batches(found: Examination) -> None:
    """INV-19.  A batch that does not exist would never be sent either."""
    found.count("SELECT count(*) FROM message WHERE status = 'pending' AND batch_id IS NOT NULL")
    found.ask("""
        SELECT 'message ' || m.id || ' is pending in batch ' || m.batch_id
               || CASE WHEN b.id IS NULL THEN ', which does not exist' WHEN b.state = 'done' THEN ', which is finished'
                       ELSE ', which belongs to another run' END
        FROM message m LEFT JOIN batch b ON b.id = m.batch_id
        WHERE m.status = 'pending' AND m.batch_id IS NOT NULL
          AND (b.id IS NULL OR b.state = 'done' OR b.run_id <> m.run_id)""")
