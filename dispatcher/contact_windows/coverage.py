"""Which contact windows apply to the shop's contacts, and where they leave a gap: what `doctor` shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, text

from dispatcher.contact_windows import LocalRules, Row, local_rules
from dispatcher.contact_windows.rows import DEFAULT_ROW
from dispatcher.definitions import Shop
from dispatcher.places import Places
from dispatcher.quiet_hours import GUARD, next_opening, unknown_calendars

_BY_PLACE = text("""
    SELECT zone, country, subdivision, phone_region, count(*) AS contacts FROM contact
    WHERE merged_into IS NULL AND erased_at IS NULL GROUP BY 1, 2, 3, 4
""")


@dataclass(slots=True)
class Coverage:
    """Contacts, counted by what is known of their places; marketing texts are what is looked at."""

    contacts: int = 0
    known_from: Counter[str] = field(default_factory=Counter)  #: a contact known from several counts in each
    rows: dict[str, Row] = field(default_factory=dict)
    by_row: Counter[str] = field(default_factory=Counter)
    nowhere: int = 0  #: of no place at all
    default_only: Counter[str] = field(default_factory=Counter)  #: by country: only the default row has hours
    no_calendar: Counter[str] = field(default_factory=Counter)  #: by calendar that is missing
    never: int = 0  #: no hour suits every place they may be in


def survey(connection: Connection, shop: Shop, now: datetime) -> Coverage:
    """Return the coverage of all contacts; one query, and one look per kind of place."""
    rules = local_rules(shop, "sms", "marketing", None, now)
    found = Coverage()
    for zone, country, subdivision, phone_region, contacts in connection.execute(_BY_PLACE):
        here = rules.here(zone, country, subdivision, phone_region)
        found.contacts += contacts
        if not here.places.candidates:
            found.nowhere += contacts
            continue
        found.known_from.update(dict.fromkeys(here.places.known_from, contacts))
        _count_rows(found, rules, here.places, contacts)
        missing = unknown_calendars(here.silences)
        found.no_calendar.update(dict.fromkeys(missing, contacts))
        if not missing and next_opening(now, here.silences, GUARD["sms"]) is None:
            found.never += contacts
    return found


def _count_rows(found: Coverage, rules: LocalRules, places: Places, contacts: int) -> None:
    rows = {row.id: row for row, _, _ in rules.rows_at(places)}
    found.rows |= rows
    found.by_row.update(dict.fromkeys(rows, contacts))
    if all(row.id == DEFAULT_ROW or row.windows is None for row in rows.values()):
        countries = {country for country, _ in places.jurisdictions} or {"no country"}
        found.default_only.update(dict.fromkeys(countries, contacts))
