"""Is this really from the storefront?  Asked over the raw bytes, before anything of the body is read.

Both sign alike: base64 of HMAC-SHA256 over the body.  Sources: shopify.dev, "Verify webhook deliveries" (after a
rotation the old secret may sign for an hour); WooCommerce's class-wc-webhook.php (it decodes the HTML entities of the
secret it has stored; its ping is not signed).
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence

#: Shorter pieces are what a comma in a secret leaves, and could be guessed.
_SHORTEST_IN_A_LIST = 8
#: As PHP's wp_specialchars_decode with ENT_QUOTES does it, in one pass.
_ENTITIES = {
    "&lt;": "<", "&gt;": ">", "&quot;": '"', "&amp;": "&", "&#039;": "'", "&#39;": "'", "&#x27;": "'",
    "&#060;": "<", "&#062;": ">", "&#034;": '"', "&#x22;": '"', "&#038;": "&", "&#x26;": "&",
}  # fmt: skip
_ENTITY = re.compile("|".join(map(re.escape, _ENTITIES)))
_PING = re.compile(rb"webhook_id=\d{1,20}")


def secrets_of(setting: str) -> tuple[str, ...]:
    """Return the secrets that a setting names, newest first: the whole of it, and what stands between its commas.

    WooCommerce makes secrets that hold commas.  So it is a list only if each part is long enough to be a secret.
    """
    whole = setting.strip()
    parts = [part.strip() for part in whole.split(",")]
    if len(parts) == 1 or any(len(part) < _SHORTEST_IN_A_LIST for part in parts):
        return (whole,) if whole else ()
    return (*parts, whole)


def signed(secrets: Sequence[str], signature: str, body: bytes) -> bool:
    """Whether one of the secrets signed exactly these bytes; takes as long whichever it was, or none."""
    given = signature.strip().encode("utf-8", "replace")
    found = False
    for secret in secrets:
        for spelling in {secret, _ENTITY.sub(lambda entity: _ENTITIES[entity[0]], secret)}:
            expected = base64.b64encode(hmac.digest(spelling.encode(), body, "sha256"))
            found |= hmac.compare_digest(expected, given)
    return found


def is_ping(body: bytes) -> bool:
    """Whether this is what WooCommerce sends, unsigned, when a webhook is made: the number of the webhook, no more."""
    return _PING.fullmatch(body.strip()) is not None
