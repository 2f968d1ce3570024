"""Do the invariants hold?  Looked up in the ledger and, if there is one, in the provider's log.

Nothing is changed.  Call it in a transaction of its own, best REPEATABLE READ (all checks then see one instant), and
roll back: the provider's log is put beside the ledger in temporary tables.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, text

from dispatcher.definitions import Shop
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.shop import load_shop
from dispatcher.verify import acceptance, accounting, life, limits, permission, places, rights, timing
from dispatcher.verify.provider_log import read_log
from dispatcher.verify.report import Invariant, Report, Result, Subject, examine

__all__ = ["INVARIANTS", "Report", "Result", "look_at", "verify"]

INVARIANTS = (
    Invariant("INV-1", "at most one message per run and contact, and per run and address", acceptance.nobody_twice),
    Invariant("INV-2", "every contact of an audience has exactly one row, and the numbers add up", accounting.adds_up),
    Invariant("INV-3", "every acceptance has its row, at the same address", acceptance.is_ours, needs_log=True),
    Invariant("INV-4", "every sent message has its acceptance, every delivery and bounce its report",
              acceptance.was_accepted),
    Invariant("INV-5", "nothing left before it was authorised, nor after its deadline", timing.authorised_first),
    Invariant("INV-6", "nothing was authorised without a grant, or after a withdrawal or suppression",
              permission.authorised_with_consent),
    Invariant("INV-7", "nothing left after an unsubscribe was answered as done", permission.silent_after_goodbye),
    Invariant("INV-8", "every cap holds in every window", places.caps_hold),
    Invariant("INV-9", "no marketing left inside quiet hours", places.quiet_at_night),
    Invariant("INV-10", "every message left between its due time and its expiry", timing.in_time),
    Invariant("INV-11", "one run per occurrence", accounting.one_run_per_occurrence),
    Invariant("INV-12", "only legal moves: every row has what its status needs", life.rows_fit_their_status),
    Invariant("INV-13", "no second try without proof that the first was not accepted", life.tried_again_with_proof),
    Invariant("INV-14", "each mail's link opens its own contact, topic and address", acceptance.links_are_own,
              needs_log=True),
    Invariant("INV-15", "no message carries somebody else's address", acceptance.content_is_own, needs_log=True),
    Invariant("INV-16", "the chain of consent evidence is unbroken", permission.evidence_is_whole),
    Invariant("INV-17", "no lane and no account was faster than its rate", limits.rate_holds),
    Invariant("INV-18", "reports show the ledger's numbers", accounting.reports_agree),
    Invariant("INV-19", "no finished batch owns a pending message", life.nothing_forgotten_in_batches),
    Invariant("INV-20", "of whom was erased nothing can be read, and nothing was authorised since",
              rights.erased_for_good),
    Invariant("INV-21", "the audit is what was written, and nothing of it is missing", rights.audit_is_whole),
)  # fmt: skip


def verify(
    connection: Connection,
    key_ring: KeyRing,
    provider_log: Path | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Check every invariant and return what was found; Refused if the provider's log cannot be read."""
    tell = progress or (lambda _: None)
    subject = look_at(connection, key_ring, provider_log, tell)
    results = []
    for invariant in INVARIANTS:
        tell(f"{invariant.name}: {invariant.statement}")
        results.append(examine(invariant, subject))
    return Report(subject.moment, tuple(results), subject.log.as_json() if subject.log else None)


def look_at(
    connection: Connection, key_ring: KeyRing, provider_log: Path | None, progress: Callable[[str], None]
) -> Subject:
    """Return what the checks look at, the provider's log read."""
    # Every check joins whole tables.  After a run the statistics may still say that these are empty, and a nested loop
    # over tables that are not takes a hundred times as long as a hash join.
    connection.execute(text("SET LOCAL enable_nestloop = off"))
    moment = _begun_at(connection)
    log = read_log(connection, key_ring, provider_log, moment=moment, progress=progress) if provider_log else None
    return Subject(connection, key_ring, moment, log, _shop(connection), *_rules_since(connection))


def _begun_at(connection: Connection) -> datetime:
    """Return the engine's time when this transaction began: what settled before it is visible to every check."""
    moment: datetime = connection.execute(text("SELECT now() + clock_offset FROM engine")).scalar_one()
    return moment


def _shop(connection: Connection) -> Shop | None:
    try:
        return load_shop(connection)
    except Refused:
        return None


def _rules_since(connection: Connection) -> tuple[datetime | None, datetime | None]:
    """Return when the shop's rules were last changed, by the database's clock and by the engine's."""
    row = connection.execute(
        text("""SELECT max(a.at), max(a.at) + (SELECT clock_offset FROM engine) FROM audit a
                WHERE a.action IN ('shop.added', 'shop.changed')""")
    ).one()
    return row[0], row[1]
