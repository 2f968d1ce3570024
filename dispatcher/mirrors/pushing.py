"""What changes here goes onto the provider's lists, or off them: an outbox, carried out by whoever comes.

A row of `mirror_change` is written in the transaction of the change and says only whom to look at; what is to be done
is read when it is done.  It is noted before an address is put on a list, so that after any crash we know what may be
ours there; every request is safe to repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy import Connection, Engine, text

from dispatcher import clock, db
from dispatcher.keys import KeyRing
from dispatcher.mirrors.wanted import PAGE, Standing, standings_of
from dispatcher.providers.protocol import MirrorsSuppressions, TheirList

log = structlog.get_logger()

#: Less than this the provider's clock and ours differ.
_CLOCKS_APART = timedelta(minutes=1)
_FIRST_WAIT, _LONGEST_WAIT = timedelta(minutes=10), timedelta(days=1)


@dataclass(slots=True)
class Pushed:
    """What became of the changes."""

    changes: int = 0  #: addresses looked at
    put_on: int = 0  #: entries of lists
    taken_off: int = 0
    refused: int = 0  #: addresses that the provider does not take
    without_address: int = 0  #: nobody has it any more, or they were erased: we cannot name it


def push_changes(database: Engine, key_ring: KeyRing, provider: MirrorsSuppressions) -> Pushed:
    """Carry out every change that waits; ListsUnavailable leaves the rest for the next time.

    The caller has the turn of this provider (`turns`): two at once would do no harm but to each other's order.
    """
    pushed = Pushed()
    lists = provider.suppression_lists()
    _hear_consents(database, provider.name, lists)
    while page := _next_page(database, key_ring, provider.name, lists):
        _carry_out(database, provider, lists, page, pushed)
    if pushed.put_on or pushed.taken_off or pushed.refused:
        log.info("mirror.pushed", provider=provider.name, put_on=pushed.put_on, taken_off=pushed.taken_off,
                 refused=pushed.refused)  # fmt: skip
    return pushed


# Evidence has numbers without a gap, in the order of its commits: nothing is passed over.  A grant only matters to
# whom we put on a list.
_HEAR = text("""
WITH heard AS (
    SELECT id, contact_id, channel, action FROM consent_event WHERE id > :seen ORDER BY id LIMIT 5000
), whom AS (
    SELECT DISTINCT c.email_address_id AS address_id FROM heard h
    JOIN contact t ON t.id = h.contact_id JOIN contact c ON c.id = COALESCE(t.merged_into, t.id)
    WHERE h.channel = 'email' AND c.email_address_id IS NOT NULL
      AND (h.action = 'withdrawn' OR EXISTS (
          SELECT FROM mirrored m
          WHERE m.provider = :provider AND m.list = ANY(:lists) AND m.address_id = c.email_address_id))
), noted AS (
    INSERT INTO mirror_change (address_id) SELECT address_id FROM whom ORDER BY address_id
    ON CONFLICT (address_id) DO UPDATE SET version = mirror_change.version + 1, retry_at = NULL)
SELECT max(id) FROM heard
""")


def _hear_consents(database: Engine, provider: str, lists: Sequence[TheirList]) -> None:
    """Note whose consent has changed since the last time, if that matters to one of the lists."""
    names = [one.name for one in lists if one.stops == "marketing"]
    if not names:
        return
    while db.insist(lambda: _hear_some(database, provider, names), mirror=provider):
        pass


def _hear_some(database: Engine, provider: str, names: Sequence[str]) -> bool:
    """Note whom some of the evidence is about; False if there is no more."""
    with database.begin() as connection:
        seen = connection.execute(
            text("SELECT consent_seen FROM mirror WHERE provider = :provider FOR UPDATE"), {"provider": provider}
        ).scalar_one()
        last = connection.scalar(_HEAR, {"seen": seen, "provider": provider, "lists": names})
        if last is not None:
            connection.execute(
                text("UPDATE mirror SET consent_seen = :last WHERE provider = :provider"),
                {"last": last, "provider": provider},
            )
    return last is not None


@dataclass(frozen=True, slots=True)
class _Page:
    versions: dict[int, int]
    standings: list[Standing]
    to_put: dict[str, list[Standing]] = field(default_factory=dict)  # by list


_WAITING = text("""
SELECT address_id, version FROM mirror_change WHERE retry_at IS NULL OR retry_at <= clock_timestamp()
ORDER BY since, address_id LIMIT :page
""")
_NOTE = text("""
INSERT INTO mirrored (provider, list, address_id, put_at) SELECT :provider, :list, unnest(CAST(:ids AS bigint[])), :now
ON CONFLICT DO NOTHING
""")


def _next_page(database: Engine, key_ring: KeyRing, provider: str, lists: Sequence[TheirList]) -> _Page | None:
    """Return the next changes, with what is to be put where noted as maybe there; None if none waits."""
    with database.begin() as connection:
        versions = {row.address_id: row.version for row in connection.execute(_WAITING, {"page": PAGE})}
        if not versions:
            return None
        page = _Page(versions, standings_of(connection, key_ring, provider, lists, list(versions)))
        for one in lists:
            page.to_put[one.name] = [s for s in page.standings if s.address is not None and s.belongs_on(one)]
            note_put(connection, provider, one, [s.address_id for s in page.to_put[one.name]])
        return page


def note_put(connection: Connection, provider: str, list_: TheirList, ids: Sequence[int]) -> None:
    """Note that these addresses may stand on the list because of us."""
    if ids:
        now = clock.read_now(connection)
        connection.execute(_NOTE, {"provider": provider, "list": list_.name, "ids": list(ids), "now": now})


def _carry_out(
    database: Engine, provider: MirrorsSuppressions, lists: Sequence[TheirList], page: _Page, pushed: Pushed
) -> None:
    refused: set[int] = set()
    for one in lists:
        by_address = {s.address or "": s.address_id for s in page.to_put[one.name]}
        if by_address:
            not_taken = {by_address[address] for address in provider.put_on(one, list(by_address))}
            refused |= not_taken
            pushed.put_on += len(by_address) - len(not_taken)
    gone: list[tuple[str, int]] = []
    for standing in page.standings:
        for one in standing.to_take_off(lists) if standing.address is not None else ():
            gone.append((one.name, standing.address_id))
            if not _stood_there_before(provider, one, standing):
                provider.take_off(one, standing.address or "")
                pushed.taken_off += 1
    pushed.refused += len(refused)
    pushed.changes += len(page.versions)
    pushed.without_address += sum(_cannot_be_named(standing, lists) for standing in page.standings)
    db.insist(lambda: _write_down(database, provider.name, page, gone, refused), mirror=provider.name)


def _stood_there_before(provider: MirrorsSuppressions, list_: TheirList, standing: Standing) -> bool:
    """Whether only we take it back, and somebody had put it there before us: then the next comparison takes that in."""
    put_at = standing.mirrored.get(list_.name)
    if put_at is None or list_.reason in {reason for reason, _ in standing.lifted}:
        return False
    since = provider.since(list_, standing.address or "")
    return since is not None and since < put_at - _CLOCKS_APART


def _cannot_be_named(standing: Standing, lists: Sequence[TheirList]) -> bool:
    return standing.address is None and (
        any(standing.belongs_on(one) for one in lists) or bool(standing.to_take_off(lists))
    )


_GONE = text("""
DELETE FROM mirrored m USING unnest(CAST(:lists AS text[]), CAST(:ids AS bigint[])) AS x(list, address_id)
WHERE m.provider = :provider AND m.list = x.list AND m.address_id = x.address_id
""")
_REMOVED_THERE = text("""
UPDATE suppression_lift l SET removed_there_at = x.lifted_at
FROM unnest(CAST(:ids AS bigint[]), CAST(:reasons AS text[]), CAST(:moments AS timestamptz[]))
    AS x(address_id, reason, lifted_at)
WHERE l.address_id = x.address_id AND l.reason = x.reason AND l.lifted_at = x.lifted_at
""")
# What has changed again meanwhile stays, and is looked at again.
_DONE = text("""
DELETE FROM mirror_change c USING unnest(CAST(:ids AS bigint[]), CAST(:versions AS int[])) AS x(address_id, version)
WHERE c.address_id = x.address_id AND c.version = x.version AND NOT c.address_id = ANY(:refused)
""")
_LATER = text("""
UPDATE mirror_change SET failures = LEAST(failures + 1, 100),
       retry_at = clock_timestamp() + LEAST(:first * power(2, LEAST(failures, 10)), :longest)
WHERE address_id = ANY(:refused)
""")


def _write_down(database: Engine, provider: str, page: _Page, gone: list[tuple[str, int]], refused: set[int]) -> None:
    with database.begin() as connection:
        _write_down_in(connection, provider, page, gone, refused)


def _write_down_in(
    connection: Connection, provider: str, page: _Page, gone: list[tuple[str, int]], refused: set[int]
) -> None:
    if gone:
        values = {"provider": provider, "lists": [name for name, _ in gone], "ids": [number for _, number in gone]}
        connection.execute(_GONE, values)
    lifted = [(s.address_id, reason, at) for s in page.standings if s.address is not None for reason, at in s.lifted]
    if lifted:
        ids, reasons, moments = (list(column) for column in zip(*lifted, strict=True))
        connection.execute(_REMOVED_THERE, {"ids": ids, "reasons": reasons, "moments": moments})
    given_up = list(refused)
    connection.execute(
        _DONE, {"ids": list(page.versions), "versions": list(page.versions.values()), "refused": given_up}
    )
    if given_up:
        connection.execute(_LATER, {"refused": given_up, "first": _FIRST_WAIT, "longest": _LONGEST_WAIT})
