"""What somebody wishes of all marketing: silence for a while, hours of silence, a language.

A wish tightens, and needs no evidence: whoever holds the link of a forwarded mail can do little harm with it, and the
person can take it back with any link of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from dispatcher import audit, own_hours
from dispatcher.contacts import Particulars, save_contact
from dispatcher.definitions import Silence
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_identity
from dispatcher.preferences import ACTOR
from dispatcher.preferences.whose import Person, Way, hold
from dispatcher.quiet_hours import GUARD, LocalSilence, first_instant, next_opening

#: What the page offers; three months are thirteen weeks.
PAUSES = {"1w": timedelta(weeks=1), "2w": timedelta(weeks=2), "4w": timedelta(weeks=4), "3m": timedelta(weeks=13)}
LONGEST_PAUSE = timedelta(days=366)


class NoTimeLeft(Refused):
    """Quiet hours that never end: that is a pause, or goodbye, and both are better said as what they are."""


class NotADay(Refused):
    """A pause that ends in the past, or too far away."""


def pause(connection: Connection, key_ring: KeyRing, way: Way, wanted: str | date | None) -> datetime | None:
    """Stop marketing for one of PAUSES or until a day begins, or let it go on (None); return until when.

    The day begins when it has begun in every place they may be in.  NotADay if that is past, or more than a year away.
    """
    person = hold(connection, key_ring, way)
    until = None if wanted is None else _until(person, wanted)
    connection.execute(
        text("UPDATE contact SET paused_until = :until, paused_seq = nextval('order_seq') WHERE id = :id"),
        {"until": until, "id": person.contact_id},
    )
    action = "preferences.resume" if until is None else "preferences.pause"
    audit.record(connection, ACTOR, action, f"contact {person.contact_id}", {"until": until} if until else {})
    return until


def _until(person: Person, wanted: str | date) -> datetime:
    if isinstance(wanted, str):
        return person.now + PAUSES[wanted]
    zones = person.places.zones or ("UTC",)
    until = max(first_instant(wanted, time(0), ZoneInfo(zone)) for zone in zones)
    if not person.now < until <= person.now + LONGEST_PAUSE:
        raise NotADay("a pause ends on a day within the next twelve months")
    return until


def keep_quiet(connection: Connection, key_ring: KeyRing, way: Way, silences: Sequence[Silence]) -> None:
    """Keep these hours silent from now on, by the clocks wherever they may be; NoTimeLeft if no time is left."""
    person = hold(connection, key_ring, way)
    local = tuple(LocalSilence(zone, tuple(silences), (), own_hours.SOURCE) for zone in person.places.zones or ("UTC",))
    if next_opening(person.now, local, max(GUARD.values())) is None:
        raise NoTimeLeft("these hours leave no time at all")
    connection.execute(
        text("""UPDATE contact SET quiet_hours = CAST(:hours AS jsonb), quiet_hours_seq = nextval('order_seq')
                WHERE id = :id"""),
        {"hours": own_hours.stored(silences), "id": person.contact_id},
    )
    shown = {"hours": [str(silence) for silence in silences]}
    audit.record(connection, ACTOR, "preferences.quiet_hours", f"contact {person.contact_id}", shown)


def speak(connection: Connection, key_ring: KeyRing, way: Way, locale: str) -> None:
    """Write to them in this language from now on."""
    lock_identity(connection)  # before the rows, as whoever saves a contact
    person = hold(connection, key_ring, way)
    save_contact(connection, key_ring, Particulars(person.external_id, locale=locale))
    audit.record(connection, ACTOR, "preferences.language", f"contact {person.contact_id}", {"locale": locale})
