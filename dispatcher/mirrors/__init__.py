"""A provider's own suppression lists and ours, kept in step.

* `pushing`: what changes here goes there within a minute, by an outbox (`mirror_change`).
* `comparing`: once a day the whole of their lists is read; what is new is taken in, what is missing is pushed again,
  what was taken back here is taken off there, and each difference is kept.
* `turns`: one at a time for each provider, and when.

Our own mails do not depend on any of it: whether one may leave is decided here.  It serves whoever else sends over the
account, and tells us what they and the provider have heard.
"""

from __future__ import annotations

from dispatcher.mirrors.comparing import Comparison, compare
from dispatcher.mirrors.pushing import Pushed, push_changes
from dispatcher.mirrors.reports import Difference, MirrorReport, differences_of, last_report
from dispatcher.mirrors.turns import mirror_now, mirror_when_due, mirrors_of

__all__ = [
    "Comparison",
    "Difference",
    "MirrorReport",
    "Pushed",
    "compare",
    "differences_of",
    "last_report",
    "mirror_now",
    "mirror_when_due",
    "mirrors_of",
    "push_changes",
]
