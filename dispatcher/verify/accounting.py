"""Nobody forgotten, nobody counted twice: audiences, rows, runs and reports against each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from sqlalchemy import text

from dispatcher.reports import funnel, run_report
from dispatcher.verify.acceptance import PEOPLE
from dispatcher.verify.report import Examination

# The frozen audience of each run: how many were chosen, and how many of them have no row yet.
_FROZEN = """frozen AS (
    SELECT run_id, count(*) AS pages, sum(cardinality(contact_ids)) AS chosen,
           COALESCE(sum(cardinality(contact_ids)) FILTER (WHERE planned_at IS NULL), 0) AS unplanned
    FROM audience_page GROUP BY run_id)"""


def adds_up(found: Examination) -> None:
    """INV-2.  The audience was frozen by the segment query itself, so the frozen pages are its count."""
    found.count("SELECT COALESCE(sum(cardinality(contact_ids)), 0) FROM audience_page")
    found.ask(f"""
        WITH {_FROZEN}, written AS (
            SELECT run_id, count(*) AS rows FROM message WHERE client IS NULL GROUP BY run_id)
        SELECT 'run ' || r.id || ': audience ' || r.audience || ', frozen ' || COALESCE(f.chosen, 0) || ' on '
               || COALESCE(f.pages, 0) || ' of ' || r.pages || ' pages, rows ' || COALESCE(w.rows, 0)
               || ', not yet planned ' || COALESCE(f.unplanned, 0)
        FROM run r LEFT JOIN frozen f ON f.run_id = r.id LEFT JOIN written w ON w.run_id = r.id
        WHERE r.kind = 'campaign' AND (r.audience <> COALESCE(f.chosen, 0) OR r.pages <> COALESCE(f.pages, 0)
              OR r.audience <> COALESCE(w.rows, 0) + COALESCE(f.unplanned, 0))""")  # noqa: S608 - constants
    found.ask(f"""
        WITH {PEOPLE}, chosen AS (
            SELECT p.run_id, person.root, count(*) AS times
            FROM audience_page p CROSS JOIN LATERAL unnest(p.contact_ids) AS c(id) JOIN person ON person.id = c.id
            WHERE p.planned_at IS NOT NULL GROUP BY 1, 2
        ), written AS (
            SELECT m.run_id, person.root, count(*) AS times
            FROM message m JOIN run r ON r.id = m.run_id AND r.kind = 'campaign' JOIN person ON person.id = m.contact_id
            WHERE m.client IS NULL GROUP BY 1, 2)
        SELECT 'run ' || run_id || ': contact ' || root || ' was chosen ' || COALESCE(c.times, 0) || ' times and has '
               || COALESCE(w.times, 0) || ' rows'
        FROM chosen c FULL JOIN written w USING (run_id, root) WHERE c.times IS DISTINCT FROM w.times""")  # noqa: S608
    found.ask("""
        SELECT 'message ' || m.id || CASE WHEN r.trigger_id IS NULL THEN ' belongs to no run of its trigger'
               WHEN e.id IS NULL THEN ' was started by an event that does not exist'
               ELSE ' is for another contact than the event that started it' END
        FROM message m LEFT JOIN run r ON r.id = m.run_id AND r.trigger_id = m.trigger_id
        LEFT JOIN event e ON e.id = m.event_id
        WHERE m.trigger_id IS NOT NULL AND (r.id IS NULL OR e.id IS NULL OR e.contact_id <> m.contact_id)""")
    found.ask("""
        SELECT 'run ' || r.id || ' is finished and has ' || count(*) || ' open messages' FROM run r
        JOIN message m ON m.run_id = r.id AND m.status IN ('pending', 'sending')
        WHERE r.kind = 'campaign' AND r.finished_at IS NOT NULL GROUP BY r.id""")


def one_run_per_occurrence(found: Examination) -> None:
    """INV-11.  The same instant under two names, after an edit of the zone, would be two as well."""
    found.count("SELECT count(*) FROM run")
    found.ask("""
        SELECT 'campaign ' || campaign_id || ' has ' || count(*) || ' runs for occurrence ' || occurrence_key
        FROM run WHERE campaign_id IS NOT NULL GROUP BY campaign_id, occurrence_key HAVING count(*) > 1""")
    found.ask("""
        SELECT 'campaign ' || campaign_id || ' was fired ' || count(*) || ' times for one instant, as '
               || string_agg(occurrence_key, ' and ' ORDER BY occurrence_key)
        FROM run WHERE started_by = 'schedule'
        GROUP BY campaign_id, nominal_at HAVING count(DISTINCT occurrence_key) > 1""")
    found.ask("""
        SELECT 'template ' || left(template_hash, 12) || ' has ' || count(*) || ' standing runs'
        FROM run WHERE kind = 'standing' AND trigger_id IS NULL GROUP BY template_hash HAVING count(*) > 1""")
    found.ask("""
        SELECT 'trigger ' || trigger_id || ' has ' || count(*) || ' runs for ' || occurrence_key
        FROM run WHERE trigger_id IS NOT NULL GROUP BY trigger_id, occurrence_key HAVING count(*) > 1""")


def reports_agree(found: Examination) -> None:
    """INV-18.  Counted here another way than there: from the rows as they are."""
    connection = found.subject.connection
    status: defaultdict[Any, Counter[str]] = defaultdict(Counter)
    reasons: defaultdict[Any, Counter[str]] = defaultdict(Counter)
    rows = connection.execute(
        text("SELECT run_id, status, reason, deferred_reason, count(*) FROM message GROUP BY 1, 2, 3, 4")
    )
    for run_id, at, reason, deferred, number in rows:
        status[run_id][at] += number
        if shown := (deferred or reason) if at == "pending" else reason:
            reasons[run_id][shown] += number
    for run_id in connection.scalars(text("SELECT id FROM run ORDER BY created_at")).all():
        report = run_report(connection, run_id)
        found.checked += 1
        if report["status"] != status[run_id] or report["reasons"] != reasons[run_id]:
            found.add(f"run {run_id}: the report's numbers are not the ledger's")
        audience, *steps = funnel(report)
        if audience.count != sum(step.count for step in steps):
            found.add(f"run {run_id}: the lines of the report do not add up to its audience of {audience.count}")
    found.note("looks at the report of each run; one that changes meanwhile needs a REPEATABLE READ transaction")
