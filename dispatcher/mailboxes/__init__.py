"""A mailbox where bounces and complaints arrive, read again and again: what `import bounces` does with files.

How far it was read is kept here, by the numbers that IMAP gives mails (they only rise), and moves only after what the
mails said is committed: whoever dies in between reads some again, which changes nothing.  A mail that told us
something is marked as seen; whatever else lies there, letters to humans for instance, is left as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine, text

from dispatcher.feedback.report import Report
from dispatcher.imports.bounces import BounceReport, read_one, record_reports
from dispatcher.imports.rejects import Rejects
from dispatcher.keys import KeyRing
from dispatcher.mailboxes.imap import LARGEST_MAIL, Imap, Mailbox, MailboxAway

log = structlog.get_logger()

#: So many mails are read, committed and marked together.
PAGE = 50


@dataclass(slots=True)
class MailboxReport(BounceReport):
    """What became of the mails of a mailbox."""

    set_aside: int = 0  #: mails that could not be read, flagged for a human


@dataclass(slots=True)
class _Page:
    """Some mails: what they report, and who is to be marked how."""

    reports: list[Report] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    poisonous: list[int] = field(default_factory=list)


def read_mailbox(
    database: Engine,
    key_ring: KeyRing,
    mailbox: Mailbox,
    *,
    seconds: float = float("inf"),
    progress: Callable[[int, int], None] = lambda _done, _whole: None,
) -> MailboxReport:
    """Take in the mails that were not read yet, for about so many seconds; return what became of them.

    MailboxAway if it cannot be reached or does not let us in; what was read until then stays read.
    """
    report = MailboxReport()
    until = time.monotonic() + seconds
    with Imap(mailbox) as imap, Rejects(None) as aside:
        last = _read_up_to(database, mailbox.name, imap.uid_validity)
        whole = max(imap.uid_next - 1 - last, 0)
        begin = last
        for uids in imap.numbers_after(last, PAGE):
            page = _read_page(imap, uids, aside, report)
            record_reports(database, key_ring, page.reports, report)
            imap.mark(page.used, r"\Seen")
            imap.mark(page.poisonous, r"\Flagged")
            _note(database, mailbox.name, imap.uid_validity, uids[-1], len(page.poisonous))
            report.set_aside += len(page.poisonous)
            progress(min(uids[-1] - begin, whole), whole)
            if time.monotonic() > until:
                break
        report.rejected = aside.count
    if report.read:
        log.info("mailbox.read", read=report.read, recorded=report.recorded, suppressed=report.suppressed,
                 rejected=report.rejected, set_aside=report.set_aside)  # fmt: skip
    return report


def _read_page(imap: Imap, uids: list[int], aside: Rejects, report: MailboxReport) -> _Page:
    page = _Page()
    sizes = imap.sizes(uids)
    for uid in uids:
        if uid not in sizes:  # deleted meanwhile
            continue
        report.read += 1
        if sizes[uid] > LARGEST_MAIL:
            log.warning("mailbox.too_large", uid=uid)
            page.poisonous.append(uid)
            continue
        raw = imap.fetch(uid)
        if raw is None:
            continue
        try:
            found = read_one(f"mail {uid}", uid, raw, aside, report)
        except Exception as error:  # whatever a stranger wrote must not keep the next mail from being read
            log.error("mailbox.not_readable", uid=uid, error=type(error).__name__)
            page.poisonous.append(uid)
            continue
        if found:
            page.reports += found
            page.used.append(uid)
    return page


def _read_up_to(database: Engine, name: str, uid_validity: int) -> int:
    """Return the number of the last mail that was read; 0 if the mailbox was made anew since: all of it counts."""
    with database.begin() as connection:
        return int(
            connection.execute(
                text("""INSERT INTO mailbox (name, uid_validity, last_uid) VALUES (:name, :validity, 0)
                        ON CONFLICT (name) DO UPDATE SET uid_validity = excluded.uid_validity, last_uid =
                            CASE WHEN mailbox.uid_validity = excluded.uid_validity THEN mailbox.last_uid ELSE 0 END
                        RETURNING last_uid"""),
                {"name": name, "validity": uid_validity},
            ).scalar_one()
        )


def _note(database: Engine, name: str, uid_validity: int, uid: int, set_aside: int) -> None:
    """Note how far it was read; another who was here before us has counted already."""
    with database.begin() as connection:
        connection.execute(
            text("""UPDATE mailbox SET last_uid = :uid, set_aside = set_aside + :aside, read_at = clock_timestamp()
                    WHERE name = :name AND uid_validity = :validity AND last_uid < :uid"""),
            {"name": name, "validity": uid_validity, "uid": uid, "aside": set_aside},
        )


__all__ = ["Mailbox", "MailboxAway", "MailboxReport", "read_mailbox"]
