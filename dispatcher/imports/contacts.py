"""Contacts from a CSV file: who they are, and what they allowed.

Streaming, a page of 500 contacts a transaction, and safe to repeat: what is known already changes nothing, so an import
that was cut short is simply run again.  A bad cell does not cost the contact, a bad row does not cost its neighbours.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from psycopg.errors import DeadlockDetected, UniqueViolation
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError, OperationalError

from dispatcher import consent
from dispatcher.clock import read_now
from dispatcher.contacts import Saved, save_contacts
from dispatcher.contacts.saving import MOST_AT_ONCE, Outcome
from dispatcher.definitions import Shop
from dispatcher.imports.contact_rows import ContactReader, ContactRow, Rejected
from dispatcher.imports.csvfile import BadRow, CsvFile
from dispatcher.imports.rejects import Rejects
from dispatcher.keys import KeyRing

TRIES = 5
#: What another writer of the same contacts can cause; COPY speaks in the driver's own words.
OTHER_WRITER = (IntegrityError, OperationalError, UniqueViolation, DeadlockDetected)


@dataclass(slots=True)
class ContactReport:
    """What became of the rows of a file: each was created, changed, unchanged, merged, rejected or erased."""

    read: int = 0
    created: int = 0
    changed: int = 0
    unchanged: int = 0
    merged: int = 0  # another id of a contact that was there already, or in the same file
    rejected: int = 0
    erased: int = 0  # of people who were erased: left out
    notes: int = 0  # cells that could not be used; their contacts came in without them
    evidence: int = 0  # new pieces of consent evidence
    left_out: Counter[str] = field(default_factory=Counter)  # consents and addresses that count for nothing, and why
    ignored_columns: list[str] = field(default_factory=list)
    rejects_file: Path | None = None  # with the rejected rows and the notes, if there are any


def topics_by_channel(shop: Shop) -> dict[str, list[str]]:
    """Return the topics of each channel: what a consent without a topic of its own speaks for."""
    return {c: [name for name, topic in shop.topics.items() if c in topic.channels] for c in ("email", "sms")}


def bases_by_topic(shop: Shop) -> dict[str, Sequence[str]]:
    """Return what each topic accepts beside consent."""
    return {name: topic.bases for name, topic in shop.topics.items()}


def import_contacts(
    database: Engine,
    key_ring: KeyRing,
    path: Path,
    *,
    topics: Mapping[str, Sequence[str]],
    bases: Mapping[str, Sequence[str]] | None = None,
    mapping: Mapping[str, str] | None = None,
    rejects: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ContactReport:
    """Take in the contacts of a file; return what became of them.

    `topics`: see `topics_by_channel`.  `bases`: see `bases_by_topic`; default: consent only.  `mapping`: column ->
    field, for files with other column names.  `progress` is called with (bytes read, bytes in all).
    """
    with CsvFile(path) as file:
        source = f"file:{_digest(path)}"
        reader = ContactReader(
            file.columns, key_ring=key_ring, topics=topics, bases=bases or {}, mapping=mapping, source=source
        )
        with Rejects(rejects, file.columns) as rejected:
            report = ContactReport(ignored_columns=reader.ignored)
            _import_rows(database, key_ring, file, reader, rejected, report, progress)
        report.rejects_file = rejected.written
    return report


def _import_rows(
    database: Engine,
    key_ring: KeyRing,
    file: CsvFile,
    reader: ContactReader,
    rejected: Rejects,
    report: ContactReport,
    progress: Callable[[int, int], None] | None,
) -> None:
    def bad(row: BadRow) -> None:
        report.read += 1
        report.rejected += 1
        rejected.add(row.line, row.reason, row.cells)

    page: list[ContactRow] = []
    for line, cells in file.rows(bad=bad):
        try:
            row = reader.read(line, cells)
        except Rejected as error:
            bad(BadRow(line, str(error), list(cells.values())))
            continue
        report.read += 1
        page.append(row)
        if row.notes:
            report.notes += len(row.notes)
            rejected.add(line, "; ".join(map(str, row.notes)), list(cells.values()))
        if len(page) == MOST_AT_ONCE:
            _save_page(database, key_ring, page, report)
            page.clear()
            if progress is not None:
                progress(file.position, file.size)
    _save_page(database, key_ring, page, report)
    if progress is not None:
        progress(file.size, file.size)


def _save_page(database: Engine, key_ring: KeyRing, page: list[ContactRow], report: ContactReport) -> None:
    """Save a page in one transaction; again if another writer made one of its contacts at the same moment."""
    for tries_left in reversed(range(TRIES)):
        try:
            with database.begin() as connection:
                saved = save_contacts(connection, key_ring, [row.particulars for row in page])
                left_out, outcomes = record_claims(connection, key_ring, page, saved, actor="import")
            break
        except OTHER_WRITER:
            if tries_left == 0:
                raise
    report.left_out.update(left_out)
    for one, outcome in zip(saved, outcomes, strict=True):
        news = sum(each is not consent.Outcome.KNOWN for each in outcome)
        report.evidence += news
        what = Outcome.CHANGED if news and one.outcome is Outcome.UNCHANGED else one.outcome
        setattr(report, what.value, getattr(report, what.value) + 1)


def record_claims(
    connection: Connection, key_ring: KeyRing, page: list[ContactRow], saved: list[Saved], *, actor: consent.Actor
) -> tuple[Counter[str], list[list[consent.Outcome]]]:
    """Record what the rows say of consent; return what was left out, and for each row what became of its claims."""
    left_out: Counter[str] = Counter()
    changes: list[consent.ConsentChange] = []
    lengths = []
    for row, one in zip(page, saved, strict=True):
        begun = len(changes)
        if one.contact_id is not None:
            changes += _changes(row, one, left_out, actor)
        lengths.append(len(changes) - begun)
    outcomes = iter(consent.record(connection, key_ring, changes, now=read_now(connection)))
    return left_out, [[next(outcomes) for _ in range(length)] for length in lengths]


def _changes(
    row: ContactRow, saved: Saved, left_out: Counter[str], actor: consent.Actor
) -> list[consent.ConsentChange]:
    """Return the row's claims as changes of its contact."""
    assert saved.contact_id is not None
    left_out.update(f"{channel} consent for no topic of the shop" for channel in row.topicless)
    left_out.update(f"{one} for topics that do not accept it" for one in row.unaccepted)
    if saved.other_email:
        left_out["e-mail address of an alias, other than its contact's"] += 1
    changes = []
    for claim in row.claims:
        address_id = saved.email_address_id if claim.channel == "email" else saved.sms_address_id
        if address_id is None and claim.action != "withdrawn":
            left_out[f"{claim.channel} consent without an address"] += 1
            continue
        changes += [
            consent.ConsentChange(
                saved.contact_id, claim.channel, topic, claim.action, actor, claim.source, claim.occurred_at,
                address_id, opt_in_level=claim.opt_in_level, basis=claim.basis,
            )
            for topic in claim.topics
        ]  # fmt: skip
    return changes


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
