"""How many and when: caps, quiet hours and rates, counted again from what was authorised and what left.

Caps and quiet hours are those in force now, and places are where the contacts are now: the ledger does not keep what
they were.  So only what was authorised since the rules were last changed is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Row, text

from dispatcher.definitions import Cap, Shop, Silence
from dispatcher.facts_page import order_of
from dispatcher.instants import show_instant
from dispatcher.places import TZDATA_VERSION, places_of
from dispatcher.providers.sandbox import Sandbox
from dispatcher.quiet_hours import LocalSilence, next_opening
from dispatcher.runs import Run
from dispatcher.tables import MAY_HAVE_LEFT
from dispatcher.verify.permission import MERGED
from dispatcher.verify.report import Examination, Subject

_NO_RULES = "no workspace has been applied"

# Of people who were merged, what each had before counts apart: by address.
_HISTORY = {"contact": "m.contact_id, CASE WHEN merged.id IS NOT NULL THEN m.address_id END", "address": "m.address_id"}

# Whether the rules of today were already in force.  A message's batch was made before it was authorised, and its time
# is the database's own, which nobody shifts.
_RECENT = """(CAST(:since AS timestamptz) IS NULL OR m.authorised_at >= CAST(:since_engine AS timestamptz)
    OR COALESCE(b.created_at >= CAST(:since AS timestamptz), false))"""

_COUNTED = f"""
    FROM message m LEFT JOIN batch b ON b.id = m.batch_id LEFT JOIN merged ON merged.id = m.contact_id
    WHERE m.class = 'marketing' AND m.status IN {MAY_HAVE_LEFT} AND m.authorised_at IS NOT NULL
      AND m.channel = ANY(:channels) AND (CAST(:topics AS text[]) IS NULL OR m.topic = ANY(:topics))"""


def caps_hold(found: Examination) -> None:
    """INV-8."""
    subject = found.subject
    if subject.shop is None:
        return found.not_checked(_NO_RULES)
    if not subject.shop.caps:
        return found.not_checked("the shop has no caps")
    _say_since(found, "caps in force now")
    found.count(
        f"""SELECT count(*) FROM message m LEFT JOIN batch b ON b.id = m.batch_id
            WHERE m.class = 'marketing' AND m.status IN {MAY_HAVE_LEFT} AND {_RECENT}""",  # noqa: S608 - constants
        **_since(subject),
    )
    for cap in subject.shop.caps:
        for what in _HISTORY:
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
                SELECT m.id, m.authorised_at, {_RECENT} AS recent, lag(m.authorised_at, CAST(:max AS int)) OVER (
                    PARTITION BY {_HISTORY[what]} ORDER BY m.authorised_at, m.authorise_seq) AS earlier
                {_COUNTED} AND m.{what}_id IS NOT NULL) h
            WHERE earlier > authorised_at - CAST(:window AS interval) AND recent""",  # noqa: S608
        **_scope(cap),
        name=cap.name,
        max=cap.max or 1,
        window=cap.min_gap or cap.window,
        **_since(found.subject),
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
        history = [(row, places_of(row.zone, row.country, shop.shop.countries).zones or ("UTC",)) for row in group]
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


def _crowded(subject: Subject, cap: Cap, what: str) -> Iterator[Row[Any]]:
    """Yield the histories that have more than the cap in all, each in its order."""
    return iter(
        subject.connection.execute(
            text(f"""
            WITH {MERGED}, h AS (
                SELECT m.id, m.contact_id, m.authorised_at, m.authorise_seq, {_RECENT} AS recent,
                       ROW({_HISTORY[what]})::text AS history,
                       count(*) OVER (PARTITION BY {_HISTORY[what]}) AS total
                {_COUNTED} AND m.{what}_id IS NOT NULL)
            SELECT h.id, h.history, h.authorised_at, h.recent, c.zone, c.country
            FROM h JOIN contact c ON c.id = h.contact_id
            WHERE h.total > :max ORDER BY h.history, h.authorised_at, h.authorise_seq"""),  # noqa: S608 - constants
            {**_scope(cap), **_since(subject), "max": cap.max or 1},
            execution_options={"yield_per": 5_000},
        )
    )


def quiet_at_night(found: Examination) -> None:
    """INV-9.  A contact of no known place has no hour at which anything may leave."""
    subject = found.subject
    if subject.shop is None:
        return found.not_checked(_NO_RULES)
    _say_since(
        found, f"the shop's own quiet hours and the night for SMS, places as they are now (zones of {TZDATA_VERSION})"
    )
    silences = {channel: _rules(subject.shop, channel, subject.moment) for channel in ("email", "sms")}
    for row in _departures(subject):
        found.checked += 1
        zones = places_of(row.zone, row.country, subject.shop.shop.countries).zones
        if not zones:
            found.add(f"message {row.id} left, and the place of contact {row.contact_id} is not known")
            continue
        local = tuple(LocalSilence(zone, silences[row.channel], (), "shop") for zone in zones)
        opening = next_opening(row.at, local, timedelta(0))
        if opening is None or opening.opens_at != row.at:
            found.add(f"message {row.id} left at {show_instant(row.at)}, in quiet hours of contact {row.contact_id}")
    return None


def _rules(shop: Shop, channel: str, now: datetime) -> tuple[Silence, ...]:
    """Return what would be held against a marketing message on this channel today."""
    run = Run(
        id=UUID(int=0), kind="standing", campaign_id=None, name="", occurrence_key="", channel=channel, topic=None,
        class_="marketing", lane=f"{channel}.marketing", priority=0, template_hash="", nominal_at=now, as_of=now,
        state="running", started_by=None, planned_at=None, campaign=None,
    )  # fmt: skip
    return order_of(run, shop, stopped=False, urgent=False).silences


def _departures(subject: Subject) -> Iterator[Row[Any]]:
    left = "SELECT id, handed_over_at AS at FROM message WHERE handed_over_at IS NOT NULL"
    if subject.log is not None:
        left += " UNION SELECT message_id, at FROM verify_line"
    return iter(
        subject.connection.execute(
            text(f"""
            SELECT m.id, m.contact_id, m.channel, x.at, c.zone, c.country
            FROM ({left}) x JOIN message m ON m.id = x.id JOIN contact c ON c.id = m.contact_id
            LEFT JOIN batch b ON b.id = m.batch_id
            WHERE m.class = 'marketing' AND {_RECENT} ORDER BY x.at"""),  # noqa: S608 - constants
            _since(subject),
            execution_options={"yield_per": 5_000},
        )
    )


def _since(subject: Subject) -> dict[str, Any]:
    return {"since": subject.rules_since, "since_engine": subject.rules_since_engine}


def _say_since(found: Examination, what: str) -> None:
    since = found.subject.rules_since
    found.note(f"by {what}" + (f"; not what was authorised before {show_instant(since)}" if since else ""))


def rate_holds(found: Examination) -> None:
    """INV-17.  With v = place in line - rate x time, a window is too fast if v rises by more than the allowance."""
    lanes = found.subject.connection.execute(
        text("SELECT name, rate_per_second AS rate, burst FROM lane WHERE rate_per_second IS NOT NULL ORDER BY name")
    ).all()
    if not lanes:
        return found.not_checked("no lane has a rate")
    found.note("by the rates in force now")
    for lane in lanes:
        allowance = lane.burst + Sandbox.slice_size * _most_workers(found.subject, lane.name)
        found.count(f"SELECT count(*) FROM ({_AUTHORISED}) a", lane=lane.name)  # noqa: S608 - a constant
        found.ask(
            f"""SELECT 'lane ' || :lane || ' was over its rate by ' || CEIL(max(v - lowest) + 1 - :allowance)
                       || ' messages at ' || (array_agg(at ORDER BY v - lowest DESC))[1] FROM (
                    SELECT at, v, min(v) OVER (ORDER BY at, v) AS lowest FROM (
                        SELECT at, row_number() OVER (ORDER BY at) - :rate * extract(epoch FROM at)::float8 AS v
                        FROM ({_AUTHORISED}) a) w) x
                HAVING max(v - lowest) + 1 > :allowance + 0.001""",  # noqa: S608 - constants
            lane=lane.name,
            rate=lane.rate,
            allowance=allowance,
        )
    return None


_AUTHORISED = """
    SELECT m.authorised_at AS at FROM message m JOIN run r ON r.id = m.run_id
    WHERE r.lane = :lane AND m.authorised_at IS NOT NULL
    UNION ALL SELECT a.authorised_at FROM attempt a JOIN message m ON m.id = a.message_id JOIN run r ON r.id = m.run_id
    WHERE r.lane = :lane"""


def _most_workers(subject: Subject, lane: str) -> int:
    """Return how many hands served the lane at once, at most."""
    most = subject.connection.scalar(
        text("""
        SELECT max(busy) FROM (
            SELECT sum(x.change) OVER (ORDER BY x.at, x.change DESC) AS busy FROM worker w CROSS JOIN LATERAL (
                VALUES (w.started_at, w.slots), (COALESCE(w.ended_at, w.heartbeat_at), -w.slots)) AS x(at, change)
            WHERE :lane = ANY(w.queues)) b"""),
        {"lane": lane},
    )
    return max(int(most or 1), 1)
