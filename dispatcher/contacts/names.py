"""External ids that are personal data themselves, and what is kept of them once their contact is erased.

A customer number means nothing to who does not have the shop's books, and it is kept: by it the shop's later files and
events are recognised, and refused.  An e-mail address or a phone number in its place is the person; of that only a
keyed hash is kept, which does the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from dispatcher.keys import KeyRing
from dispatcher.logs import masked

_PREFIX = "erased:"
_DIGITS = 32  # of 64: half a SHA-256 tells a billion people apart


def is_personal(external_id: str) -> bool:
    """Whether the id holds what looks like an e-mail address or a phone number."""
    return "@" in external_id or masked(external_id) != external_id


def after_erasure(key_ring: KeyRing, external_id: str) -> str:
    """Return what stands for the id once its contact is erased: itself, or a keyed hash if it is personal."""
    if not is_personal(external_id) or external_id.startswith(_PREFIX):
        return external_id
    return _PREFIX + key_ring.address_hash("external id", external_id).hex()[:_DIGITS]


def spellings(key_ring: KeyRing, external_ids: Iterable[str]) -> dict[str, str]:
    """Return every spelling under which these ids may be known -> the id as given; most ids have one."""
    known = {}
    for external_id in external_ids:
        known[after_erasure(key_ring, external_id)] = external_id
        known[external_id] = external_id
    return known
