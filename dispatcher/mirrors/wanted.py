"""What we want to stand on a provider's lists, address by address: a query, and a rule on values.

Only what stops a class of ours may stop it there: a list that stops everything gets who may get nothing, a list that
stops marketing gets whoever said no to marketing.  What the provider told us itself is on its lists already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from dispatcher.keys import KeyRing
from dispatcher.personal import open_personal
from dispatcher.providers.protocol import TheirList

PAGE = 500


@dataclass(frozen=True, slots=True)
class Standing:
    """What we hold of one address."""

    address_id: int
    stops_all: bool  #: suppressed for everything, by somebody else than the provider
    stops_marketing: bool  #: that, or they said no to all marketing by e-mail that they ever had
    reasons: frozenset[str]  #: every suppression, whoever told us
    told: frozenset[str]  #: those of them that the provider told us
    mirrored: Mapping[str, datetime]  #: the lists that we put it on, and since when
    lifted: tuple[tuple[str, datetime], ...]  #: taken back here, and maybe not there yet
    has_holder: bool
    address: str | None  #: in clear; None: nobody has it, or they were erased

    def belongs_on(self, list_: TheirList) -> bool:
        return (list_.stops == "all" and self.stops_all) or (list_.stops == "marketing" and self.stops_marketing)

    def to_take_off(self, lists: Sequence[TheirList]) -> list[TheirList]:
        """Return the lists that it must leave: where we put it, and where what was lifted here put it.

        Not where it would stand without us: the provider has told us the same of it.
        """
        lifted = {reason for reason, _ in self.lifted if reason not in self.reasons}
        return [
            one
            for one in lists
            if not self.belongs_on(one)
            and one.reason not in self.told
            and (one.name in self.mirrored or one.reason in lifted)
        ]


_OF_THESE = text("""
SELECT a.id, COALESCE(s.stops_all, false) AS stops_all,
       COALESCE(s.stops_marketing, false) OR (COALESCE(k.withdrawn, false) AND NOT k.granted) AS stops_marketing,
       COALESCE(s.reasons, '{}') AS reasons, COALESCE(s.told, '{}') AS told, COALESCE(m.lists, '{}') AS mirrored,
       COALESCE(m.moments, '{}') AS put_at,
       COALESCE(l.reasons, '{}') AS lifted, COALESCE(l.moments, '{}') AS lifted_at,
       h.id IS NOT NULL AS has_holder, h.data_key, h.sealed
FROM address a
LEFT JOIN LATERAL (
    SELECT array_agg(reason) AS reasons, array_agg(reason) FILTER (WHERE theirs) AS told,
           bool_or(scope = 'all' AND NOT theirs) AS stops_all,
           bool_or(NOT theirs) AS stops_marketing
    FROM (SELECT reason, scope, source LIKE 'feedback: ' || :provider || '%'
                     OR source = 'provider:' || :provider AS theirs
          FROM suppression WHERE address_id = a.id) x) s ON true
LEFT JOIN LATERAL (
    SELECT bool_or(k.state = 'withdrawn') AS withdrawn,
           bool_or(k.state = 'granted' AND k.address_id = a.id) AS granted
    FROM contact c JOIN consent k ON k.contact_id = c.id AND k.channel = 'email'
    WHERE c.email_address_id = a.id AND c.merged_into IS NULL) k ON true
LEFT JOIN LATERAL (
    SELECT array_agg(list) AS lists, array_agg(put_at) AS moments FROM mirrored
    WHERE provider = :provider AND list = ANY(:lists) AND address_id = a.id) m ON true
LEFT JOIN LATERAL (
    SELECT array_agg(reason) AS reasons, array_agg(lifted_at) AS moments FROM suppression_lift
    WHERE address_id = a.id AND (removed_there_at IS NULL OR removed_there_at < lifted_at)) l ON true
LEFT JOIN LATERAL (
    SELECT id, data_key, sealed FROM contact
    WHERE email_address_id = a.id AND merged_into IS NULL AND erased_at IS NULL ORDER BY id LIMIT 1) h ON true
WHERE a.channel = 'email' AND a.id = ANY(:ids) ORDER BY a.id
""")
# Whoever we may want there at all: the next page of them after an id.
_CANDIDATES = text("""
SELECT id FROM (
    SELECT address_id AS id FROM suppression WHERE address_id > :after
    UNION
    SELECT c.email_address_id FROM consent k JOIN contact c ON c.id = k.contact_id
    WHERE :marketing AND k.channel = 'email' AND k.state = 'withdrawn' AND c.email_address_id > :after) x
ORDER BY id LIMIT :page
""")


def standings_of(
    connection: Connection, key_ring: KeyRing, provider: str, lists: Sequence[TheirList], ids: Sequence[int]
) -> list[Standing]:
    """Return what we hold of these addresses, by id; those that are no e-mail addresses are left out."""
    if not ids:
        return []
    values = {"ids": list(ids), "provider": provider, "lists": [one.name for one in lists]}
    return [_standing(row, key_ring) for row in connection.execute(_OF_THESE, values)]


def candidates(connection: Connection, lists: Sequence[TheirList]) -> Iterator[list[int]]:
    """Yield the ids of every address that may belong on one of the lists, in pages."""
    after = 0
    marketing = any(one.stops == "marketing" for one in lists)
    while page := list(connection.scalars(_CANDIDATES, {"after": after, "marketing": marketing, "page": PAGE})):
        yield page
        after = page[-1]


def _standing(row: Row[Any], key_ring: KeyRing) -> Standing:
    return Standing(
        row.id,
        row.stops_all,
        row.stops_marketing,
        frozenset(row.reasons),
        frozenset(row.told),
        dict(zip(row.mirrored, row.put_at, strict=True)),
        tuple(zip(row.lifted, row.lifted_at, strict=True)),
        row.has_holder,
        open_personal(key_ring, row.data_key, row.sealed).email,
    )
