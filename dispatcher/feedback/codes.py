"""What a status code says of an address: is it the address that cannot work, or this mail, this moment, this sender?

Sources: RFC 3463 and the IANA registry of enhanced status codes for mail; Twilio's error dictionary for SMS.  Only what
speaks of the address itself is hard; anything doubtful is soft, and only many of those in a row end an address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dispatcher.feedback.report import Kind
from dispatcher.suppression import Reason as SuppressionReason

_ENHANCED = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.])")
_REPLY = re.compile(r"(?<![\d.])([45]\d\d)(?![\d.])")

#: No such mailbox, no such host, bad syntax, moved away, no such recipient (as Microsoft says it).
_HARD = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})
#: Codes that say nothing but "permanent": there the words decide.
_VAGUE = frozenset({"5.0.0", "5.1.0", "5.3.0", "5.5.0"})
_NO_SUCH_ADDRESS = re.compile(
    r"unknown user|user (?:is )?unknown|no such (?:user|mailbox|recipient|person|address|account)|unknown (?:recipient|"
    r"local[ -]?part|address|mailbox)|(?:user|mailbox|recipient|account|address)(?: \S+)? (?:does not|doesn'?t) exist|"
    r"doesn'?t have an? \S+ account|invalid (?:recipient|mailbox)|no mailbox here|not a valid (?:mailbox|recipient)|"
    r"recipient (?:address )?(?:not found|unknown)|address rejected: user|(?:user|account) not found|"
    r"mail domain mentioned in email address is unknown|domain (?:name )?not found|host (?:or domain name )?not found|"
    r"unrouteable (?:mail )?(?:address|domain)|address not present|no account by that name|user does not exist",
    re.IGNORECASE,
)  # fmt: skip
_LONGEST_TEXT = 2_000


def enhanced_code(text: str) -> str | None:
    """Return the first enhanced status code in a text, like 5.1.1; else the reply code, like 550; None: neither."""
    text = text[:_LONGEST_TEXT]
    found = _ENHANCED.search(text)
    if found:
        return ".".join(found.groups())
    reply = _REPLY.search(text)
    return reply[1] if reply else None


def is_vague(code: str | None) -> bool:
    """Whether the code says no more than that it failed."""
    return code is None or code in _VAGUE or (_REPLY.fullmatch(code) is not None and code.startswith("5"))


def speaks_of_the_address(code: str | None, words: str) -> bool:
    """Whether a bounce with this code and these words says that the address cannot work: a hard bounce."""
    if code is not None and _ENHANCED.fullmatch(code):
        if code in _HARD:
            return True
        if code not in _VAGUE:
            return False
    elif code is not None and code.startswith("4"):
        return False
    return _NO_SUCH_ADDRESS.search(words[:_LONGEST_TEXT]) is not None


@dataclass(frozen=True, slots=True)
class SmsError:
    """What one of Twilio's codes means for a message and its number."""

    kind: Kind
    hard: bool = False
    suppress: SuppressionReason | None = None


_INVALID = SmsError(Kind.BOUNCED, hard=True, suppress="invalid")
_SOFT = SmsError(Kind.BOUNCED)
_DROPPED = SmsError(Kind.DROPPED)

#: Error codes of Twilio that come with `undelivered` and `failed`.
SMS_ERRORS: dict[str, SmsError] = {
    "21211": _INVALID,  # not a number
    "21614": _INVALID,  # takes no SMS
    "21635": _INVALID,  # a landline
    "30005": _INVALID,  # nobody has this number
    "30006": _INVALID,  # a landline, or a carrier that cannot be reached
    "21610": SmsError(Kind.DROPPED, suppress="stop"),  # they told the provider to stop
    "30640": SmsError(Kind.DROPPED, suppress="stop"),  # known for suing senders
    "30003": _SOFT,  # switched off, or out of reach
    "30004": _SOFT,  # blocked by the handset or the carrier
    "30008": _SOFT,  # no reason given
    "30001": _DROPPED,  # the provider's queue is full
    "30002": _DROPPED,  # our account is suspended
    "30007": _DROPPED,  # filtered by the carrier: our content or name, never the person
    "30022": _DROPPED,  # faster than the registered rate
    "30023": _DROPPED,  # the registered day's number is used up
    "30034": _DROPPED,  # our number is not registered
    "30036": _DROPPED,  # too old before it could go
    "30450": _DROPPED,  # taken for fraud
    "30500": _DROPPED,  # a fault of the provider's
    "30610": _DROPPED,  # the provider kept it back for the night
}


def sms_error(code: str | None) -> SmsError:
    """Return what a code means; one that we do not know says nothing about the number."""
    return SMS_ERRORS.get(code or "", _SOFT)
