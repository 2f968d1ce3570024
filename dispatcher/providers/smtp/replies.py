"""What a mail server's replies mean: the code (RFC 5321), and the enhanced status beside it (RFC 3463) where it helps.

Every reply but a 2xx is proof that this server did not take the mail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from dispatcher.providers.protocol import NotSent, Receipt, Rejected, RetryAfter, without_addresses

#: About which command a reply is.  What a server says to `RCPT` is about the address, unless its words say otherwise.
Stage = Literal["greeting", "login", "mail", "rcpt", "data", "content"]

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})\b")
_SOON = timedelta(seconds=30)
_LATER = timedelta(minutes=5)  # a mailbox that is full, a server that greylists
_LANE_RESTS = timedelta(seconds=30)

#: (class, subject, detail) of addresses that cannot work.
_NO_SUCH_ADDRESS = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})
#: What is wrong with who we are, not with the mail: authentication, its absence, relaying, the sender's own address.
_OUR_ACCOUNT = frozenset({"5.7.8", "5.7.9", "5.7.11", "5.7.14", "5.1.7", "5.1.8", "5.7.3"})
_OUR_ACCOUNT_CODES = frozenset({530, 534, 535, 538, 454})
_RELAYING = re.compile(r"\brelay", re.IGNORECASE)  # 5.7.1 says it of policies, too; only the words tell
_FULL_MAILBOX = "5.2.2"


@dataclass(frozen=True, slots=True)
class Reply:
    code: int
    words: str  #: without the code, lines joined

    @property
    def enhanced(self) -> str:
        """The enhanced status, like 5.1.1, or nothing."""
        found = _ENHANCED.match(self.words)
        return found[0] if found else ""


def refusal(reply: Reply, stage: Stage, first_byte: float | None) -> Receipt:
    """Return what it means that a server answered so, and not with success."""
    words = without_addresses(reply.words.removeprefix(reply.enhanced))
    detail = f"the mail server answered {reply.code} {reply.enhanced} {words}".replace("  ", " ").rstrip()
    if (
        stage in ("greeting", "login")
        or reply.code in _OUR_ACCOUNT_CODES
        or reply.enhanced in _OUR_ACCOUNT
        or (reply.code >= 500 and (stage == "mail" or _RELAYING.search(reply.words)))
    ):
        # Here a 4xx is a server that has enough, a 5xx one that does not want us, whoever the mail is for.
        if 400 <= reply.code < 500:
            return RetryAfter(detail, _LANE_RESTS)
        return Rejected(detail, first_byte, scope="account")
    if reply.code == 421:
        return RetryAfter(detail, _LANE_RESTS)
    if 400 <= reply.code < 500:
        return NotSent(detail, _LATER if stage == "rcpt" else _SOON, answered=True)
    return _for_good(reply, stage, detail, first_byte)


def _for_good(reply: Reply, stage: Stage, detail: str, first_byte: float | None) -> Rejected:
    enhanced = reply.enhanced
    if enhanced in _NO_SUCH_ADDRESS:
        return Rejected(detail, first_byte, suppress="hard_bounce", scope="address")
    if enhanced == _FULL_MAILBOX or (stage == "rcpt" and reply.code == 552):
        return Rejected(detail, first_byte, scope="address")
    if enhanced.startswith("5.7."):  # policy or reputation: no reason to give up the person
        return Rejected(detail, first_byte)
    if enhanced.startswith(("5.3.4", "5.6.")):
        return Rejected(detail, first_byte, scope="template")
    if stage == "rcpt" and not enhanced and reply.code in (550, 551, 553):
        return Rejected(detail, first_byte, scope="address")  # the mailbox, or a policy: too little to give it up
    return Rejected(detail, first_byte)
