"""import bounces: bounce and complaint mail from files, mbox files or maildirs; notices of SendGrid and Amazon SES.

A mail counts only if our message id came back in it: anybody can write a bounce.  A notice (JSON) is what the operator
got from the provider's own interface, so there an address is enough.
"""

from __future__ import annotations

import mailbox
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine

from dispatcher.errors import Refused
from dispatcher.feedback.bounce_mail import Ignored, read_mail
from dispatcher.feedback.notices import read_json
from dispatcher.feedback.recording import Tally, record
from dispatcher.feedback.report import Report
from dispatcher.imports.rejects import Rejects
from dispatcher.keys import KeyRing

_PAGE = 200
_LARGEST_MAIL = 25 * 1024 * 1024
NO_ID = "no message of ours came back in it"


@dataclass(slots=True)
class BounceReport:
    """What became of the mails."""

    read: int = 0
    reports: Counter[str] = field(default_factory=Counter)  #: by kind: bounced (hard), bounced (soft), complained ...
    ignored: Counter[str] = field(default_factory=Counter)  #: mails that report nothing, by what they are
    recorded: int = 0
    known: int = 0  #: told before
    moved: int = 0  #: messages whose status changed
    suppressed: int = 0  #: addresses
    unmatched: int = 0  #: about no message of this ledger
    rejected: int = 0  #: mails that could not be used, with their reason in the file of rejects
    rejects_file: Path | None = None


def import_bounces(
    database: Engine,
    key_ring: KeyRing,
    path: Path,
    *,
    rejects: Path | None = None,
    progress: Callable[[int, int], None] = lambda _done, _whole: None,
) -> BounceReport:
    """Take in every mail under `path`; return what became of them.  The same mails again change nothing."""
    report = BounceReport()
    files = _files(path)
    whole, done = sum(file.stat().st_size for file in files), 0
    pending: list[Report] = []
    with Rejects(rejects, ("file",)) as aside:
        for file in files:
            for number, (name, raw) in enumerate(_mails(file), 1):
                report.read += 1
                pending += read_one(name, number, raw, aside, report)
                if len(pending) >= _PAGE:
                    record_reports(database, key_ring, pending, report)
                    pending = []
            done += file.stat().st_size
            progress(done, whole)
        record_reports(database, key_ring, pending, report)
        report.rejected, report.rejects_file = aside.count, aside.written
    return report


def _files(path: Path) -> list[Path]:
    """Return the files of a path: itself, those of a maildir, or all under a folder."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise Refused(f"there is no file or folder {path}")
    folders = [path / "cur", path / "new"] if (path / "cur").is_dir() and (path / "new").is_dir() else None
    found = [f for folder in folders for f in folder.iterdir()] if folders else list(path.rglob("*"))
    files = sorted(file for file in found if file.is_file() and not file.name.startswith("."))
    if not files:
        raise Refused(f"there is no mail in {path}")
    return files


def _mails(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the mails of a file: one, or those of an mbox."""
    with file.open("rb") as opened:
        begin = opened.read(5)
    if begin == b"From " and file.suffix != ".eml":  # a mail by itself may have an envelope line, too
        box = mailbox.mbox(file, create=False)
        try:
            for number, key in enumerate(box.iterkeys(), 1):
                yield f"{file.name} mail {number}", box.get_bytes(key)
        finally:
            box.close()
    elif file.stat().st_size > _LARGEST_MAIL:
        yield file.name, b""
    else:
        yield file.name, file.read_bytes()


def read_one(name: str, number: int, raw: bytes, aside: Rejects, report: BounceReport) -> Sequence[Report]:
    """Return what one mail reports and can be used; the rest is counted, and set aside with its reason."""
    if not raw.strip():
        aside.add(number, "is empty, or too large for a mail", (name,))
        return ()
    is_notice = raw.lstrip()[:1] in (b"{", b"[")
    found = read_json(raw) if is_notice else read_mail(raw)
    if found is None:
        aside.add(number, "is JSON of another kind than the notices of SendGrid and Amazon SES", (name,))
        return ()
    if isinstance(found, Ignored):
        report.ignored[found.what] += 1
        return ()
    report.reports.update(map(_label, found))
    usable = [one for one in found if is_notice or one.message_id is not None]
    for _ in range(len(found) - len(usable)):
        aside.add(number, NO_ID, (name,))
    return usable


def _label(one: Report) -> str:
    kind = str(one.kind) if one.kind else "other"
    return kind if one.hard is None else f"{kind} ({'hard' if one.hard else 'soft'})"


def record_reports(database: Engine, key_ring: KeyRing, reports: list[Report], report: BounceReport) -> None:
    tally: Tally = record(database, key_ring, reports)
    report.recorded += tally.recorded
    report.known += tally.known
    report.moved += tally.moved
    report.suppressed += tally.suppressed
    report.unmatched += tally.unmatched
