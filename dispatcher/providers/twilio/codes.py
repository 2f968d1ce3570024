"""Twilio's error codes of a refused `Messages.json`, and what each means for the message.

From Twilio's error reference (twilio.com/docs/api/errors) and its own guidance; a code that is not here concerns the
message alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from dispatcher.providers.protocol import Scope


@dataclass(frozen=True, slots=True)
class Refusal:
    """It was refused for good."""

    scope: Scope = "message"
    suppress: Literal["hard_bounce", "invalid", "stop"] | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """It was not taken now; so much later it may be.  None: as the answer's headers say."""

    wait: timedelta | None = None


CODES: dict[int, Refusal | Wait] = {
    # too much, for now
    20429: Wait(),  # too many requests at once; never processed
    21611: Wait(timedelta(minutes=10)),  # the sender's queue is full for ten hours
    35125: Wait(timedelta(minutes=10)),  # too many scheduled messages
    63017: Wait(),  # over the rate of all senders together
    63018: Wait(),  # over the rate of the channel
    63038: Wait(timedelta(hours=1)),  # the account's messages of the day are used up
    # the person
    21610: Refusal("address", "stop"),  # has answered STOP to this sender
    21211: Refusal("address", "invalid"),  # no valid number
    21214: Refusal("address", "invalid"),  # cannot be reached
    21217: Refusal("address", "invalid"),  # does not seem to be valid
    21614: Refusal("address", "invalid"),  # no mobile number
    21635: Refusal("address", "invalid"),  # a landline
    21408: Refusal("address"),  # sending to its country is not switched on
    21612: Refusal("address"),  # no route from our senders to it
    # what is said
    21602: Refusal("template"),  # no text
    21605: Refusal("template"),  # too long
    21617: Refusal("template"),  # too long
    21609: Refusal("account"),  # the status callback's address is not valid: DISPATCHER_PUBLIC_URL
    21619: Refusal("template"),  # neither text nor media
    # us
    20003: Refusal("account"),  # credentials
    20005: Refusal("account"),  # not active
    20404: Refusal("account"),  # no such account
    21606: Refusal("account"),  # the sender may not send
    21608: Refusal("account"),  # a trial account
    21701: Refusal("account"),  # no such messaging service
    21703: Refusal("account"),  # the messaging service has no sender
    21704: Refusal("account"),  # nor one that fits
    30002: Refusal("account"),  # suspended
    30034: Refusal("account"),  # the sender is not registered
    572005: Refusal("account"),  # not verified
}
