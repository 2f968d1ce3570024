"""Where a list goes on: the key of the last one shown, signed, so that nobody can make one up or carry it elsewhere."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from itsdangerous import URLSafeSerializer
from itsdangerous.exc import BadData

from dispatcher.errors import InvalidFields
from dispatcher.keys import KeyRing

LONGEST = 1_000


class Cursors:
    """Signs and opens cursors; one of another list, or of other filters, is refused like one that was made up."""

    def __init__(self, key_ring: KeyRing) -> None:
        self._serializer = URLSafeSerializer(
            key_ring.signing_keys("cursor"),
            salt=b"dispatcher/cursor",
            serializer=orjson,
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def make(self, listing: str, last: list[Any]) -> str:
        """Return the cursor behind `last`, the key of an item of this listing."""
        signed: str | bytes = self._serializer.dumps([listing, last])
        return signed if isinstance(signed, str) else signed.decode("ascii")

    def read(self, listing: str, cursor: str | None) -> list[Any] | None:
        """Return the key that the cursor stands behind, None without one; InvalidFields if it is of another list."""
        if cursor is None:
            return None
        try:
            found, last = self._serializer.loads(cursor)
        except (BadData, ValueError, TypeError) as error:
            raise _not_ours() from error
        if found != listing or not isinstance(last, list):
            raise _not_ours()
        return last


def _not_ours() -> InvalidFields:
    return InvalidFields([("query.cursor", "is none of this list; follow `next`, or begin without one")])
