"""Everything we hold about a person, in one document: `docs/privacy.md` describes its form.

Sections are named for what they hold and are always there, empty or not.  Instants are RFC 3339 in UTC, hashes hex.
What was sealed is opened; what cannot be (the person was erased) is null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from sqlalchemy import Connection, text

from dispatcher import audit, clock, consent, evidence, interests
from dispatcher.contacts import personal_of
from dispatcher.instants import show_instant
from dispatcher.keys import KeyRing
from dispatcher.places import places_of
from dispatcher.rights.erasing import erasure_state
from dispatcher.rights.people import THEIR_FEEDBACK, THEIR_MESSAGES, Family, family_of
from dispatcher.shop import shop_name
from dispatcher.tables import contact

FORMAT = "dispatcher contact export"
#: Rises when a section or a field changes its meaning or goes; new ones may come without.
VERSION = 1

#: Columns of `contact` that are ours and not theirs: keys, numbers of rows and of order.  Every other one is exported.
OWN_COLUMNS = frozenset(
    {"id", "data_key", "sealed", "email_address_id", "sms_address_id", "merged_into", "version", "phone_region"}
) | {column.name for column in contact.columns if column.name.endswith("_seq")}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Whom:
    """The person an export is about, and what their sections need."""

    connection: Connection
    key_ring: KeyRing
    family: Family
    now: datetime

    def ask(self, query: str) -> list[Json]:
        """Return the rows of a query about :ids, :addresses or :contact, as plain JSON."""
        return [{name: plain(value) for name, value in row._mapping.items()} for row in self.read(query)]

    def read(self, query: str) -> Any:
        found = {
            "ids": list(self.family.ids),
            "addresses": list(self.family.addresses),
            "contact": self.family.contact_id,
        }
        return self.connection.execute(text(query), found)

    def opened(self, data_key: bytes | None, sealed: bytes | None) -> Any:
        """Return what was sealed; None if there is nothing, or its key was destroyed."""
        if data_key is None or sealed is None:
            return None
        try:
            return self.key_ring.open_data_key(bytes(data_key)).open(bytes(sealed))
        except InvalidTag:  # sealed under a key that is no more
            return None


def export_contact(connection: Connection, key_ring: KeyRing, contact_id: int, *, by: str | None = None) -> Json:
    """Return everything we hold about the person behind this contact, as plain JSON; NotFound if there is none.

    Personal data are opened, so `by` is written to the audit.  None: the caller has recorded who asked.
    """
    whom = _Whom(connection, key_ring, family_of(connection, contact_id), clock.read_now(connection))
    told: Json = {
        "format": FORMAT,
        "version": VERSION,
        "made_at": show_instant(whom.now),
        "shop": shop_name(connection),
    }
    if by is not None:
        audit.record(connection, by, "contact.export", f"contact {whom.family.contact_id}", {})
    return told | {name: section(whom) for name, section in SECTIONS.items()}


def plain(value: Any) -> Any:
    """Return a value of the database as JSON takes it."""
    match value:
        case datetime():
            return show_instant(value)
        case bytes() | memoryview():
            return bytes(value).hex()
        case Decimal():
            return float(value)
        case UUID():
            return str(value)
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {str(name): plain(part) for name, part in value.items()}
        case list() | tuple():
            return [plain(part) for part in value]
    return value


_PLAIN_COLUMNS = ", ".join(column.name for column in contact.columns if column.name not in OWN_COLUMNS)


def _contact(whom: _Whom) -> Json:
    [row] = whom.ask(f"SELECT {_PLAIN_COLUMNS} FROM contact WHERE id = :contact")  # noqa: S608 - names of columns
    aliases = whom.ask("SELECT external_id, created_at FROM contact_alias WHERE contact_id = ANY(:ids) ORDER BY 2, 1")
    personal = asdict(personal_of(whom.connection, whom.key_ring, whom.family.contact_id))
    return {"external_id": row.pop("external_id"), "known_as": aliases, **personal, **row}


def _merged(whom: _Whom) -> list[Json]:
    return whom.ask("SELECT external_id, created_at FROM contact WHERE id = ANY(:ids) AND id <> :contact ORDER BY id")


def _places(whom: _Whom) -> list[Json]:
    """Where we take it that they may be, and from what."""
    row = whom.read("SELECT zone, country, subdivision, phone_region FROM contact WHERE id = :contact").one()
    return [asdict(place) for place in places_of(*row).candidates]


def _addresses(whom: _Whom) -> list[Json]:
    personal = personal_of(whom.connection, whom.key_ring, whom.family.contact_id)
    rows = whom.ask("""
        SELECT a.channel, encode(a.hash, 'hex') AS hash, a.state, a.created_at,
               a.id IN (c.email_address_id, c.sms_address_id) IS TRUE AS present
        FROM address a JOIN contact c ON c.id = :contact WHERE a.id = ANY(:addresses) ORDER BY a.id""")
    now = {"email": personal.email, "sms": personal.phone}
    return [{"address": now[row["channel"]] if row["present"] else None, **row} for row in rows]


def _consent(whom: _Whom) -> list[Json]:
    return [plain(held._asdict()) for held in consent.state_of(whom.connection, whom.family.contact_id)]


def _consent_evidence(whom: _Whom) -> list[Json]:
    person = evidence.who(whom.connection, whom.key_ring, whom.family.contact_id)
    return evidence.pieces_of(whom.connection, whom.key_ring, whom.family.ids, person)


def _suppressions(whom: _Whom) -> list[Json]:
    return whom.ask("""
        SELECT a.channel, encode(a.hash, 'hex') AS address_hash, s.reason, s.scope, s.source, s.created_at
        FROM suppression s JOIN address a ON a.id = s.address_id WHERE a.id = ANY(:addresses) ORDER BY s.id""")


def _suppressions_lifted(whom: _Whom) -> list[Json]:
    return whom.ask("""
        SELECT a.channel, encode(a.hash, 'hex') AS address_hash, l.reason, l.lifted_at
        FROM suppression_lift l JOIN address a ON a.id = l.address_id
        WHERE a.id = ANY(:addresses) ORDER BY l.lifted_at, l.reason""")


def _provider_lists(whom: _Whom) -> list[Json]:
    """The provider's own suppression lists on which we put their address, and whether that is to change just now."""
    return whom.ask("""
        SELECT m.provider, m.list, encode(a.hash, 'hex') AS address_hash, m.put_at,
               EXISTS (SELECT FROM mirror_change c WHERE c.address_id = a.id) AS is_about_to_change
        FROM mirrored m JOIN address a ON a.id = m.address_id
        WHERE a.id = ANY(:addresses) ORDER BY m.put_at, m.list""")


def _unsubscribes(whom: _Whom) -> list[Json]:
    return whom.ask("""
        SELECT channel, topic, committed_at, answered_at, answer FROM unsubscribe
        WHERE contact_id = ANY(:ids) ORDER BY id""")


def _events(whom: _Whom) -> list[Json]:
    return whom.ask("""
        SELECT e.source, e.source_key, e.name, e.occurred_at, e.received_at, e.value, e.properties,
               COALESCE((SELECT jsonb_agg(jsonb_build_object('interests', i.interests, 'quantity', i.quantity,
                                                             'value', i.value, 'properties', i.properties)
                                          ORDER BY i.position)
                         FROM event_item i WHERE i.event_id = e.id), '[]') AS items
        FROM event e WHERE e.contact_id = ANY(:ids) ORDER BY e.occurred_at, e.id""")


def _interests(whom: _Whom) -> list[Json]:
    rows = whom.read("SELECT name, log2_mass, half_life_days FROM interest WHERE contact_id = ANY(:ids) ORDER BY name")
    return [
        {
            "interest": row.name,
            "score": interests.score(row.log2_mass, timedelta(days=row.half_life_days), whom.now),
            "half_life_days": row.half_life_days,
        }
        for row in rows
    ]


def _messages(whom: _Whom) -> list[Json]:
    """What was decided and sent.  The text is not kept; its template, by its hash, is."""
    rows = whom.read(f"""
        SELECT m.id, r.name AS campaign, r.kind AS run_kind, t.name AS template, r.template_hash, m.channel, m.topic,
               m.class, m.status, m.reason, m.deferred_reason, m.facts, m.first_due_at, m.due_at, m.expires_at,
               m.authorised_at, m.handed_over_at, m.settled_at, m.provider, m.provider_ref, m.attempts,
               m.client AS asked_by, m.idempotency_key, encode(a.hash, 'hex') AS address_hash, m.sealed, c.data_key,
               k.sealed AS own_links, s.data_key AS links_key,
               COALESCE((SELECT jsonb_agg(to_jsonb(p) - 'message_id' - 'worker_id' - 'authorise_seq' ORDER BY p.number)
                         FROM attempt p WHERE p.message_id = m.id), '[]') AS earlier_attempts
        FROM {THEIR_MESSAGES} m JOIN contact c ON c.id = m.contact_id LEFT JOIN run r ON r.id = m.run_id
        LEFT JOIN template t ON t.hash = r.template_hash LEFT JOIN address a ON a.id = m.address_id
        LEFT JOIN tracked_message k ON k.message_id = m.id LEFT JOIN contact s ON s.id = k.contact_id
        ORDER BY m.id""")  # noqa: S608 - constants
    told = []
    for row in rows:
        message = _with(whom, row, "data")
        del message["links_key"]
        told.append(message | {"own_links": plain(whom.opened(row.links_key, row.own_links))})
    return told


def _feedback(whom: _Whom) -> list[Json]:
    """What providers reported of their messages, and of their addresses where it named no message."""
    rows = whom.read(f"""
        SELECT f.source, f.provider_event_id, f.kind, f.hard, f.code, f.message_id, f.occurred_at, f.received_at,
               f.flaw, f.link, l.destination AS link_led_to, f.bot, f.sealed,
               COALESCE(f.data_key, c.data_key) AS data_key
        FROM {THEIR_FEEDBACK} f LEFT JOIN contact c ON c.id = f.contact_id LEFT JOIN message m ON m.id = f.message_id
        LEFT JOIN run_link l ON l.run_id = m.run_id AND l.number = f.link ORDER BY f.id""")  # noqa: S608 - constants
    return [_with(whom, row, "as_it_came") for row in rows]


def _replies(whom: _Whom) -> list[Json]:
    rows = whom.read("""
        SELECT r.source, r.provider_event_id, r.reading, r.received_at, r.answer_id, r.review, r.reviewed_at,
               r.reviewed_by, r.sealed, COALESCE(r.data_key, c.data_key) AS data_key
        FROM reply r LEFT JOIN contact c ON c.id = r.contact_id
        WHERE r.contact_id = ANY(:ids) OR r.contact_id IS NULL AND r.address_id = ANY(:addresses) ORDER BY r.id""")
    return [_with(whom, row, "as_it_came") for row in rows]


def _with(whom: _Whom, row: Any, name: str) -> Json:
    """Return a row as plain JSON, what was sealed in it opened under `name`."""
    values = dict(row._mapping)
    sealed, data_key = values.pop("sealed"), values.pop("data_key")
    return {**{key: plain(value) for key, value in values.items()}, name: plain(whom.opened(data_key, sealed))}


def _audit(whom: _Whom) -> list[Json]:
    entries = audit.entries(whom.connection, contact_id=whom.family.contact_id)
    return [plain({"at": e.at, "actor": e.actor, "action": e.action, "details": e.details}) for e in entries]


def _erasure(whom: _Whom) -> Json | None:
    state = erasure_state(whom.connection, whom.family.contact_id)
    return None if state is None else plain(asdict(state))


#: Every section of the export, in its order.  `data_map` says which tables each of them shows.
SECTIONS: dict[str, Callable[[_Whom], Any]] = {
    "contact": _contact,
    "merged_contacts": _merged,
    "addresses": _addresses,
    "places": _places,
    "consent": _consent,
    "consent_evidence": _consent_evidence,
    "suppressions": _suppressions,
    "suppressions_lifted": _suppressions_lifted,
    "provider_lists": _provider_lists,
    "unsubscribes": _unsubscribes,
    "messages": _messages,
    "feedback": _feedback,
    "replies": _replies,
    "events": _events,
    "interests": _interests,
    "audit": _audit,
    "erasure": _erasure,
}
