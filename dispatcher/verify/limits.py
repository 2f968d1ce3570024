"""How many and when: caps, quiet hours and rates, counted again from what was authorised and what left.

Caps and quiet hours are those in force now, and places are where the contacts are now: the ledger does not keep what
they were.  So only what was authorised since the rules were last changed is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Row, text

from dispatcher.definitions import Cap, Shop
from dispatcher.instants import show_instant
from dispatcher.places import places_of
from dispatcher.providers import LARGEST_SLICES
from dispatcher.tables import MAY_HAVE_LEFT
from dispatcher.verify.permission import MERGED
from dispatcher.verify.report import Examination, Subject

NO_RULES = "no workspace has been applied"

# Of people who were merged, what each had before counts apart: by address.
HISTORY = {"contact": "m.contact_id, CASE WHEN merged.id IS NOT NULL THEN m.address_id END", "address": "m.address_id"}

# Whether the rules of today were already in force.  A message's batch was made before it was authorised, and its time
# is the database's own, which nobody shifts.
RECENT = """(CAST(:since AS timestamptz) IS NULL OR m.authorised_at >= CAST(:since_engine AS timestamptz)
    OR COALESCE(b.created_at >= CAST(:since AS timestamptz), false))"""

_COUNTED = f"""
    FROM message m LEFT JOIN batch b ON b.id = m.batch_id LEFT JOIN merged ON merged.id = m.contact_id
    WHERE m.class = 'marketing' AND m.status IN {MAY_HAVE_LEFT} AND m.authorised_at IS NOT NULL
      AND m.channel = ANY(:channels) AND (CAST(:topics AS text[]) IS NULL OR m.topic = ANY(:topics))"""


def caps_hold(found: Examination) -> None:
    """INV-8, as far as the shop's own caps go."""
    subject = found.subject
    if subject.shop is None:
        return found.not_checked(NO_RULES)
    say_since(found, "the caps of the shop and of contact windows in force now")
    found.count(
        f"""SELECT count(*) FROM message m LEFT JOIN batch b ON b.id = m.batch_id
            WHERE m.class = 'marketing' AND m.status IN {MAY_HAVE_LEFT} AND {RECENT}""",  # noqa: S608 - constants
        **since(subject),
    )
    for cap in subject.shop.caps:
        for what in HISTORY:
            if cap.calendar is None:
                _rolling(found, cap, what)
            else:
                _calendar(found, cap, what, subject.shop)
    return None


def _scope(cap: Cap) -> dict[str, Any]:
    return {"channels": list(cap.channels), "topics": list(cap.topics) if cap.topics is not None else None}


def _rolling(found: Examination, cap: Cap, what: str) -> None:
    """The message `max` places back in the same history must be a whole window away."""
    found.ask(
        f"""WITH {MERGED}
            SELECT 'message ' || id || ' was authorised beyond cap ' || :name || ' of its {what}' FROM (
                SELECT m.id, m.authorised_at, {RECENT} AS recent, lag(m.authorised_at, CAST(:max AS int)) OVER (
                    PARTITION BY {HISTORY[what]} ORDER BY m.authorised_at, m.authorise_seq) AS earlier
                {_COUNTED} AND m.{what}_id IS NOT NULL) h
            WHERE earlier > authorised_at - CAST(:window AS interval) AND recent""",  # noqa: S608
        **_scope(cap),
        name=cap.name,
        max=cap.max or 1,
        window=cap.min_gap or cap.window,
        **since(found.subject),
    )


_PERIODS: dict[str, Callable[[datetime], Hashable]] = {
    "day": lambda local: local.date(),
    "week": lambda local: tuple(local.isocalendar())[:2],
    "month": lambda local: (local.year, local.month),
}


def _calendar(found: Examination, cap: Cap, what: str, shop: Shop) -> None:
    """No day, week or month may have more, in any zone the contact may be in."""
    assert cap.calendar is not None
    period, most = _PERIODS[cap.calendar], cap.max or 1
    for _, group in groupby(_crowded(found.subject, cap, what), key=lambda row: row.history):
        history = [(row, _zones(row, shop)) for row in group]
        beyond = set()
        for name in sorted({name for _, zones in history for name in zones}):
            zone, seen = ZoneInfo(name), Counter[Hashable]()
            for row, zones in history:
                here = period(row.authorised_at.astimezone(zone))
                seen[here] += 1
                if seen[here] > most and name in zones and row.recent:
                    beyond.add(row.id)
        for message_id in sorted(beyond):
            found.add(f"message {message_id} was authorised beyond cap {cap.name} of its {what}")


def _zones(row: Row[Any], shop: Shop) -> tuple[str, ...]:
    places = places_of(row.zone, row.country, row.subdivision, row.phone_region, shop.shop.countries)
    return places.zones or ("UTC",)


def _crowded(subject: Subject, cap: Cap, what: str) -> Iterator[Row[Any]]:
    """Yield the histories that have more than the cap in all, each in its order."""
    return iter(
        subject.connection.execute(
            text(f"""
            WITH {MERGED}, h AS (
                SELECT m.id, m.contact_id, m.topic, m.authorised_at, m.authorise_seq, {RECENT} AS recent,
                       ROW({HISTORY[what]})::text AS history,
                       count(*) OVER (PARTITION BY {HISTORY[what]}) AS total
                {_COUNTED} AND m.{what}_id IS NOT NULL)
            SELECT h.id, h.history, h.topic, h.authorised_at, h.recent,
                   c.zone, c.country, c.subdivision, c.phone_region
            FROM h JOIN contact c ON c.id = h.contact_id
            WHERE h.total > :max AND c.erased_at IS NULL ORDER BY h.history, h.authorised_at, h.authorise_seq"""),  # noqa: S608 - constants
            {**_scope(cap), **since(subject), "max": cap.max or 1},
            execution_options={"yield_per": 5_000},
        )
    )


def since(subject: Subject) -> dict[str, Any]:
    return {"since": subject.rules_since, "since_engine": subject.rules_since_engine}


def say_since(found: Examination, what: str) -> None:
    before = found.subject.rules_since
    found.note(f"by {what}" + (f"; not what was authorised before {show_instant(before)}" if before else ""))


def rate_holds(found: Examination) -> None:
    """INV-17.  With v = units so far - rate x time, a window is too fast if v rises by more than the allowance.

    A unit is a mail or a part of an SMS.  One message larger than the burst goes when nothing is owed.
    """
    limits = found.subject.connection.execute(_LIMITS).all()
    if not limits:
        return found.not_checked("no lane and no account has a rate")
    say_since(found, "the rates in force now")
    in_force = {"since": found.subject.rules_since_engine}
    for limit in limits:
        whose = {"kind": limit.kind, "name": limit.name, "marketing": limit.marketing, **in_force}
        slices = _largest_slice(found.subject, whose) * _most_workers(found.subject, whose)
        found.count(f"SELECT count(*) FROM ({_AUTHORISED}) a", **whose)  # noqa: S608 - a constant
        found.ask(
            f"""SELECT :kind || ' ' || :name || ' was over its rate by '
                       || CEIL(max(v - lowest) - :allowance - max(more)) || ' units at '
                       || (array_agg(at ORDER BY v - lowest DESC))[1] FROM (
                    SELECT at, v, min(v - units) OVER (ORDER BY place) AS lowest, max(units) OVER () - 1 AS more FROM (
                        SELECT at, units, row_number() OVER line AS place,
                               sum(units) OVER line - :rate * extract(epoch FROM at)::float8 AS v
                        FROM ({_AUTHORISED}) a WINDOW line AS (ORDER BY at ROWS UNBOUNDED PRECEDING)) w) x
                HAVING max(v - lowest) > :allowance + max(more) + 0.001""",  # noqa: S608 - constants
            **whose,
            rate=limit.rate,
            allowance=limit.burst + slices,
        )
    return None


# Of an account, as much as it is allowed at its best: what its provider's words have lowered it to is less.
_LIMITS = text("""
SELECT 'lane' AS kind, name, rate_per_second AS rate, burst, false AS marketing FROM lane
WHERE rate_per_second IS NOT NULL
UNION ALL SELECT 'account', name, rate_per_second, burst, false FROM account WHERE rate_per_second IS NOT NULL
UNION ALL SELECT 'account', name, rate_per_second * (1 - reserve), GREATEST(1, floor(burst * (1 - reserve)))::int, true
FROM account WHERE rate_per_second IS NOT NULL AND reserve > 0
ORDER BY kind, name, marketing
""")

_OF_LIMIT = """CASE :kind WHEN 'lane' THEN r.lane = :name ELSE {provider} = :name END
        AND (NOT :marketing OR r.lane LIKE '%.marketing')
        AND {at} >= COALESCE(CAST(:since AS timestamptz), '-infinity')"""
_AUTHORISED = f"""
    SELECT m.authorised_at AS at, m.provider, r.lane, COALESCE(m.units, 1) AS units
    FROM message m JOIN run r ON r.id = m.run_id
    WHERE {_OF_LIMIT.format(provider="m.provider", at="m.authorised_at")}
    UNION ALL SELECT a.authorised_at, a.provider, r.lane, COALESCE(a.units, 1)
    FROM attempt a JOIN message m ON m.id = a.message_id JOIN run r ON r.id = m.run_id
    WHERE {_OF_LIMIT.format(provider="a.provider", at="a.authorised_at")}"""  # noqa: S608 - constants


def _largest_slice(subject: Subject, whose: dict[str, Any]) -> int:
    """Return how many messages were handed over together, at most."""
    used = subject.connection.scalars(
        text(f"SELECT DISTINCT provider FROM ({_AUTHORISED}) a"),  # noqa: S608 - a constant
        whose,
    )
    return max((LARGEST_SLICES.get(name, 1) for name in used), default=1)


def _most_workers(subject: Subject, whose: dict[str, Any]) -> int:
    """Return how many hands served what is limited at once, at most."""
    most = subject.connection.scalar(
        text("""
        SELECT max(busy) FROM (
            SELECT sum(x.change) OVER (ORDER BY x.at, x.change DESC) AS busy FROM worker w CROSS JOIN LATERAL (
                VALUES (w.started_at, w.slots), (COALESCE(w.ended_at, w.heartbeat_at), -w.slots)) AS x(at, change)
            WHERE EXISTS (SELECT FROM unnest(w.queues) AS queue
                          WHERE CASE :kind WHEN 'lane' THEN queue = :name
                                ELSE queue LIKE CASE WHEN :marketing THEN '%.marketing' ELSE '%.%' END END)) b"""),
        {"kind": whose["kind"], "name": whose["name"], "marketing": whose["marketing"]},
    )
    return max(int(most or 1), 1)
