"""Whether SendGrid takes our key, and what the key may do (GET /v3/scopes)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import orjson

from dispatcher.providers.protocol import Trial
from dispatcher.providers.trying import ask_account

NEEDED = "mail.send"
_NEW_KEY = "make an API key with the permission Mail Send and set DISPATCHER_SENDGRID_API_KEY"


def try_account(place: str, headers: Mapping[str, str], seconds: float) -> list[Trial]:
    """Return the one finding about the key."""
    said, found = ask_account("SendGrid", f"{place}/v3/scopes", headers, seconds, refused=_NEW_KEY)
    if said is None:
        return [found]
    try:
        scopes = orjson.loads(said.body).get("scopes", [])
    except (orjson.JSONDecodeError, AttributeError):
        return [replace(found, ok=None, detail="SendGrid's answer about our key cannot be read")]
    if NEEDED not in scopes:
        return [replace(found, ok=False, detail=f"SendGrid takes our key, but it lacks {NEEDED}", to_do=_NEW_KEY)]
    return [replace(found, detail=f"SendGrid takes our key, and it has {NEEDED}")]
