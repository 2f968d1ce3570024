"""Whether Twilio takes our token, whether the account is active, and whether the Messaging Service is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import orjson

from dispatcher.providers.protocol import Trial
from dispatcher.providers.trying import ask_account

_API = "https://api.twilio.com"
#: Messaging Services have a host of their own; a stand-in answers for both.
_SERVICES = "https://messaging.twilio.com"


def try_account(
    place: str, account_sid: str, service_sid: str, headers: Mapping[str, str], seconds: float
) -> list[Trial]:
    """Return what is to be said of the account, and of the service if the account is in order."""
    said, found = ask_account(
        "Twilio", f"{place}/2010-04-01/Accounts/{account_sid}.json", headers, seconds,
        refused="set DISPATCHER_TWILIO_ACCOUNT_SID and _AUTH_TOKEN to those of one account",
    )  # fmt: skip
    if said is None:
        return [found]
    state = _status(said.body)
    if state not in ("active", None):
        return [replace(found, ok=False, detail=f"Twilio: the account is {state}", to_do="see the console of Twilio")]
    _, service = ask_account(
        "Twilio, for the Messaging Service,", f"{_SERVICES if place == _API else place}/v1/Services/{service_sid}",
        headers, seconds, refused="set DISPATCHER_TWILIO_MESSAGING_SERVICE_SID to a service of this account",
    )  # fmt: skip
    return [found, service]


def _status(body: bytes) -> str | None:
    try:
        status = orjson.loads(body).get("status")
    except (orjson.JSONDecodeError, AttributeError):
        return None
    return str(status) if status else None
