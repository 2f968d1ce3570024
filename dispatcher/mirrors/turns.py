"""Whose turn it is, and when: one at a time for each provider, however many workers and commands come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import structlog
from sqlalchemy import Engine, text

from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.mirrors import reports
from dispatcher.mirrors.comparing import Comparison, compare
from dispatcher.mirrors.pushing import push_changes
from dispatcher.providers.protocol import ListsUnavailable, MirrorsSuppressions

log = structlog.get_logger()

COMPARE_EVERY = timedelta(hours=24)
_LOCK = 0x6D697272  # "mirr"


def mirrors_of(providers: Iterable[object]) -> list[MirrorsSuppressions]:
    """Return those of the providers whose suppression lists can be read and changed, each once."""
    return list({one.name: one for one in providers if isinstance(one, MirrorsSuppressions)}.values())


@contextmanager
def _turn(database: Engine, provider: str) -> Iterator[bool]:
    """Yield whether it is our turn; it is nobody else's until we are done, or dead."""
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        key = {"lock": _LOCK, "provider": provider}
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:lock, hashtext(:provider))"), key):
            yield False
            return
        try:
            yield True
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:lock, hashtext(:provider))"), key)


# The evidence is looked at by its number alone, whatever it says: that is read where it matters.
_DUE = text("""
SELECT m.reconcile_at <= clock_timestamp() AS compare,
       EXISTS (SELECT FROM mirror_change WHERE retry_at IS NULL OR retry_at <= clock_timestamp())
       OR :marketing AND m.consent_seen < (SELECT event_id FROM consent_head) AS push
FROM mirror m WHERE m.provider = :provider AND (m.wait_until IS NULL OR m.wait_until <= clock_timestamp())
""")
_MADE = text("INSERT INTO mirror (provider) VALUES (:provider) ON CONFLICT DO NOTHING")
_COMPARED = text("UPDATE mirror SET reconcile_at = clock_timestamp() + :every WHERE provider = :provider")
_WAIT = text("UPDATE mirror SET wait_until = clock_timestamp() + :wait WHERE provider = :provider")


def mirror_when_due(database: Engine, key_ring: KeyRing, provider: MirrorsSuppressions) -> Comparison | None:
    """Push what waits, and compare if a day is over; return what was compared.  Cheap while nothing is due."""
    named = {"provider": provider.name}
    marketing = any(one.stops == "marketing" for one in provider.suppression_lists())
    with database.begin() as connection:
        connection.execute(_MADE, named)
        due = connection.execute(_DUE, {**named, "marketing": marketing}).one_or_none()
    if due is None or not (due.compare or due.push):
        return None
    with _turn(database, provider.name) as mine:
        if not mine:
            return None
        try:
            if not due.compare:
                push_changes(database, key_ring, provider)
                return None
            return _compare(database, key_ring, provider)
        except ListsUnavailable as error:
            log.warning("mirror.waits", provider=provider.name, why=str(error), seconds=error.wait.total_seconds())
            with database.begin() as connection:
                connection.execute(_WAIT, {**named, "wait": error.wait})
            return None


def mirror_now(
    database: Engine,
    key_ring: KeyRing,
    provider: MirrorsSuppressions,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _whole: None,
) -> Comparison:
    """Compare at once; Refused while somebody else does, or if the provider does not let us."""
    with database.begin() as connection:
        connection.execute(_MADE, {"provider": provider.name})
    with _turn(database, provider.name) as mine:
        if not mine:
            raise Refused(f"the lists of {provider.name} are being compared just now; try again in a minute")
        try:
            if dry_run:
                return compare(database, key_ring, provider, dry_run=True, progress=progress)
            return _compare(database, key_ring, provider, progress)
        except ListsUnavailable as error:
            raise Refused(f"{error}; try again in {error.wait.total_seconds():.0f} seconds") from error


def _compare(
    database: Engine,
    key_ring: KeyRing,
    provider: MirrorsSuppressions,
    progress: Callable[[int, int], None] = lambda _done, _whole: None,
) -> Comparison:
    try:
        comparison = compare(database, key_ring, provider, progress=progress)
    except ListsUnavailable as error:
        with database.begin() as connection:
            reports.break_off(connection, provider.name, str(error))
        raise
    with database.begin() as connection:
        connection.execute(_COMPARED, {"provider": provider.name, "every": COMPARE_EVERY})
    return comparison
