"""DKIM (RFC 6376, RFC 8463): the key that signatures of a domain are looked at with."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from dispatcher.doctor.check import Check
from dispatcher.doctor.names import Names

#: RFC 8301: verifiers must not take shorter ones, signers should use at least the second.
LEAST_BITS, GOOD_BITS = 1024, 2048
_NAME = "DKIM"


def read_tags(text: str) -> dict[str, str]:
    """Return the tags of `a=b; c=d`, as DKIM and DMARC write them, without white space inside the values."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip().lower(): re.sub(r"\s+", "", value) for name, found, value in pairs if found}


def look_at_key(names: Names, domain: str, selector: str) -> Iterator[Check]:
    """Return what is to be said of one selector's key; Unanswered if DNS does not say."""
    place = f"{selector}._domainkey.{domain}"
    records = [tags for tags in map(read_tags, names.texts(place)) if "p" in tags]
    if not records:
        yield Check(
            _NAME,
            "wrong",
            f"there is no key at {place}: signatures by this selector count for nothing",
            "publish the record that your provider shows, or set DISPATCHER_DKIM_SELECTORS to the selectors in use",
        )
    elif len(records) > 1:
        yield Check(_NAME, "wrong", f"there are {len(records)} keys at {place}, so none counts", "leave one")
    else:
        yield from _judge(place, records[0])


def _judge(place: str, tags: dict[str, str]) -> Iterator[Check]:
    if not tags["p"]:
        yield Check(
            _NAME,
            "wrong",
            f"the key at {place} is revoked (p= is empty)",
            "sign with another selector, or publish its key",
        )
        return
    kind = tags.get("k", "rsa").lower()
    bits = _bits(kind, tags["p"])
    if bits is None:
        yield Check(
            _NAME,
            "wrong",
            f"the key at {place} cannot be read ({kind})",
            "publish it again; in the zone file long values are cut into strings of 255",
        )
        return
    shown = f"{kind} key of {bits:,} bits at {place}"
    if kind == "rsa" and bits < LEAST_BITS:
        yield Check(_NAME, "wrong", f"{shown}: receivers ignore it", f"make one of {GOOD_BITS} bits")
    elif kind == "rsa" and bits < GOOD_BITS:
        yield Check(_NAME, "look", f"{shown}: short for today", f"make one of {GOOD_BITS} bits")
    elif kind == "ed25519":
        yield Check(_NAME, "look", f"{shown}: not every receiver knows this kind", "sign with an RSA key beside it")
    else:
        yield Check(_NAME, "ok", shown)
    if "y" in tags.get("t", "").split(":"):
        yield Check(_NAME, "look", f"the key at {place} says that it is a test (t=y)", "take t=y out once it works")


def _bits(kind: str, encoded: str) -> int | None:
    """Return the length of a key, or None if it is none."""
    try:
        raw = base64.b64decode(encoded, validate=True)
        if kind == "ed25519":
            return 256 if len(raw) == 32 else None
        key = load_der_public_key(raw)
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        return None
    return key.key_size if isinstance(key, RSAPublicKey) and kind == "rsa" else None
