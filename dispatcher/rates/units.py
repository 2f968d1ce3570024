"""What a message takes of a rate, in the unit its provider counts in: mails, or the parts of an SMS."""

from __future__ import annotations

from dispatcher.content import Content
from dispatcher.content.sms import sms_segments, with_way_out
from dispatcher.providers.protocol import Envelope

#: What each account's rate is counted in.
UNITS = {"sandbox": "messages", "sendgrid": "mails", "smtp": "mails", "twilio": "parts"}


def units_of(channel: str, envelope: Envelope) -> int:
    """Return the units: for an SMS its parts, as it is sent (with the way out of a marketing text), at least one."""
    return parts_of(envelope.content, marketing=envelope.marketing) if channel == "sms" else 1


def parts_of(content: Content, *, marketing: bool) -> int:
    """Return the parts of a text as it is sent."""
    return max(1, sms_segments(with_way_out(content.text, content.locale) if marketing else content.text)[1])


def domain_of(channel: str, envelope: Envelope) -> str | None:
    """Return the domain a mail goes to, in normal form."""
    return envelope.to.rpartition("@")[2].lower() if channel == "email" else None
