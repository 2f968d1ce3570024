"""What the places of people ask for: the hours of contact windows, and the caps of their law, held against the ledger.

Rows that were in force on the day count, as the shop has changed them since; places are where the contacts are now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import Row, text

from dispatcher.contact_windows import load_rows, local_rules, rows_in_force
from dispatcher.definitions import Cap, Shop
from dispatcher.instants import show_instant
from dispatcher.places import TZDATA_VERSION
from dispatcher.quiet_hours import next_opening
from dispatcher.tables import MAY_HAVE_LEFT
from dispatcher.verify import limits
from dispatcher.verify.limits import HISTORY, NO_RULES, RECENT, say_since, since
from dispatcher.verify.permission import MERGED
from dispatcher.verify.report import Examination, Subject


def quiet_at_night(found: Examination) -> None:
    """INV-9.  A contact of no known place has no hour at which anything may leave."""
    subject = found.subject
    if subject.shop is None:
        return found.not_checked(NO_RULES)
    say_since(
        found,
        f"the {len(load_rows())} contact windows with the shop's changes, its own quiet hours and people's, places as "
        f"they are now (zones of {TZDATA_VERSION})",
    )
    if subject.connection.scalar(text("SELECT EXISTS (SELECT FROM erasure)")):
        found.note("nobody knows any more where those were who are erased")
    for row in _departures(subject):
        found.checked += 1
        rules = local_rules(subject.shop, row.channel, "marketing", None, row.at)
        here = rules.here(row.zone, row.country, row.subdivision, row.phone_region, row.own)
        if not here.places.candidates:
            found.add(f"message {row.id} left, and the place of contact {row.contact_id} is not known")
            continue
        opening = next_opening(row.at, here.silences, timedelta(0))
        if opening is None or opening.opens_at != row.at:
            found.add(f"message {row.id} left at {show_instant(row.at)}, in quiet hours of contact {row.contact_id}")
    return None


def _departures(subject: Subject) -> Iterator[Row[Any]]:
    left = "SELECT id, handed_over_at AS at FROM message WHERE handed_over_at IS NOT NULL"
    if subject.log is not None:
        left += " UNION SELECT message_id, at FROM verify_line"
    return iter(
        subject.connection.execute(
            text(f"""
            SELECT m.id, m.contact_id, m.channel, x.at, c.zone, c.country, c.subdivision, c.phone_region,
                   CASE WHEN m.authorise_seq > c.quiet_hours_seq THEN CAST(c.quiet_hours AS text) END AS own
            FROM ({left}) x JOIN message m ON m.id = x.id JOIN contact c ON c.id = m.contact_id
            LEFT JOIN batch b ON b.id = m.batch_id
            WHERE m.class = 'marketing' AND c.erased_at IS NULL AND {RECENT} ORDER BY x.at"""),  # noqa: S608 - constants
            since(subject),
            execution_options={"yield_per": 5_000},
        )
    )


def caps_hold(found: Examination) -> None:
    """INV-8: the shop's caps, and what the law of the places lets through."""
    limits.caps_hold(found)
    if found.subject.shop is not None:
        _law_caps_hold(found, found.subject.shop)


def _law_caps_hold(found: Examination, shop: Shop) -> None:
    rows = rows_in_force("sms", tuple(shop.contact_windows.items()), found.subject.moment.date())
    fewest = min((cap.max for row in rows for cap in row.caps), default=None)
    if fewest is None:
        return
    for what in HISTORY:
        for _, group in groupby(_crowded(found.subject, what, fewest), key=lambda row: row.history):
            for message_id, cap in sorted(_beyond(list(group), shop)):
                found.add(f"message {message_id} was authorised beyond cap {cap} of its {what}")


def _beyond(history: list[Row[Any]], shop: Shop) -> set[tuple[str, str]]:
    """Return which messages of one history, in its order, were too many for a cap of their contact's places."""
    beyond = set()
    seen: dict[tuple[str, str | None], deque[datetime]] = {}
    for row in history:
        rules = local_rules(shop, row.channel, "marketing", row.topic, row.authorised_at)
        caps = rules.here(row.zone, row.country, row.subdivision, row.phone_region).caps
        for topic in (None, row.topic):
            seen.setdefault((row.channel, topic), deque()).append(row.authorised_at)
        for cap in caps:
            earlier = seen[row.channel, cap.topics[0] if cap.topics else None]
            if row.recent and _inside(earlier, cap, row.authorised_at) > (cap.max or 1):
                beyond.add((str(row.id), cap.name))
    return beyond


def _inside(at: deque[datetime], cap: Cap, now: datetime) -> int:
    return sum(1 for each in at if each > now - (cap.window or timedelta(0)))


def _crowded(subject: Subject, what: str, fewest: int) -> Iterator[Row[Any]]:
    """Yield the histories with more texts than the strictest law lets through at any time, each in its order."""
    return iter(
        subject.connection.execute(
            text(f"""
            WITH {MERGED}, h AS (
                SELECT m.id, m.contact_id, m.channel, m.topic, m.authorised_at, m.authorise_seq, {RECENT} AS recent,
                       ROW({HISTORY[what]})::text AS history, count(*) OVER (PARTITION BY {HISTORY[what]}) AS total
                FROM message m LEFT JOIN batch b ON b.id = m.batch_id LEFT JOIN merged ON merged.id = m.contact_id
                WHERE m.class = 'marketing' AND m.status IN {MAY_HAVE_LEFT} AND m.authorised_at IS NOT NULL
                    AND m.channel = 'sms' AND m.{what}_id IS NOT NULL)
            SELECT h.*, c.zone, c.country, c.subdivision, c.phone_region FROM h JOIN contact c ON c.id = h.contact_id
            WHERE h.total > :fewest AND c.erased_at IS NULL ORDER BY h.history, h.authorised_at, h.authorise_seq"""),  # noqa: S608 - constants
            {**since(subject), "fewest": fewest},
            execution_options={"yield_per": 5_000},
        )
    )
