"""Keys, and what they protect.

* A **secret key** (DISPATCHER_SECRET_KEYS, newest first) wraps data keys and signs links.  Old ones still open.
* Each contact has a **data key** of its own, wrapped; destroying it erases the person everywhere.
* The **hash key** makes the keyed hash of an address (blind index).  It is wrapped too, and never changes while address
  rows exist: a suppressed address must be recognised for ever.

Keys are made only while the database holds none, and their fingerprints are kept there: a process with other keys would
write what nobody can read and sign links that nobody can open, so it refuses to start.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, text

from dispatcher.errors import Refused

_NONCE_BYTES = 12
_FINGERPRINT_BYTES = 6


def _derive(secret: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"dispatcher/" + purpose.encode()).derive(secret)


@dataclass(frozen=True, slots=True)
class DataKey:
    """One contact's key: seals and opens that contact's personal data."""

    raw: bytes

    def seal(self, value: dict[str, Any]) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self.raw).encrypt(nonce, orjson.dumps(value), None)

    def open(self, sealed: bytes) -> dict[str, Any]:
        value: dict[str, Any] = orjson.loads(
            AESGCM(self.raw).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        )
        return value


class KeyRing:
    """The secret keys (newest first) and the hash key, ready to use."""

    def __init__(self, secrets: list[bytes], hash_key: bytes, *, wraps_with: str | None = None) -> None:
        self._secrets = secrets
        self._hash_key = hash_key
        self._wrapping = {fingerprint_of(secret): AESGCM(_derive(secret, "wrap")) for secret in secrets}
        self._newest = wraps_with or fingerprint_of(secrets[0])

    def new_data_key(self) -> tuple[DataKey, bytes]:
        """Return a fresh data key and its wrapped form, to be stored."""
        raw = os.urandom(32)
        return DataKey(raw), self._wrap(raw)

    def open_data_key(self, wrapped: bytes) -> DataKey:
        return DataKey(_unwrap(self._wrapping, wrapped))

    def _wrap(self, raw: bytes) -> bytes:
        return _wrap(self._wrapping[self._newest], self._newest, raw)

    def address_hash(self, channel: str, normal: str) -> bytes:
        """Return the keyed hash of a normalised address, 32 bytes; equal for equal addresses of one channel."""
        return hmac.digest(self._hash_key, f"{channel}\0{normal}".encode(), "sha256")

    def signing_keys(self, purpose: str) -> list[bytes]:
        """Return the keys that sign links of one purpose, oldest first (as itsdangerous takes them)."""
        return [_derive(secret, f"sign/{purpose}") for secret in reversed(self._secrets)]


def fingerprint_of(secret: bytes) -> str:
    return hashlib.sha256(b"dispatcher/fingerprint" + secret).hexdigest()[: _FINGERPRINT_BYTES * 2]


def _wrap(cipher: AESGCM, fingerprint: str, raw: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return bytes.fromhex(fingerprint) + nonce + cipher.encrypt(nonce, raw, None)


def _unwrap(wrapping: dict[str, AESGCM], wrapped: bytes) -> bytes:
    fingerprint, rest = wrapped[:_FINGERPRINT_BYTES].hex(), wrapped[_FINGERPRINT_BYTES:]
    try:
        return wrapping[fingerprint].decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], None)
    except (KeyError, InvalidTag) as error:
        raise Refused(
            f"data is wrapped by secret key {fingerprint}, which DISPATCHER_SECRET_KEYS does not have"
        ) from error


def parse_secret_keys(value: str) -> list[bytes]:
    """Return the keys of a comma-separated base64 list; Refused if one is not 32 bytes."""
    keys = []
    for number, part in enumerate(filter(None, (p.strip() for p in value.split(","))), 1):
        try:
            key = base64.b64decode(part, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != 32:
            raise Refused(f"secret key {number} is not base64 of 32 bytes; make one with: openssl rand -base64 32")
        keys.append(key)
    if not keys:
        raise Refused("DISPATCHER_SECRET_KEYS is empty; unset it to use the key file under DISPATCHER_HOME")
    return keys


def open_key_ring(connection: Connection, home: Path, secret_keys: str | None, *, adopt: bool = True) -> KeyRing:
    """Return the ring for this database; the first caller of an empty one makes the keys, inside its transaction.

    A new key in front wraps from now on if `adopt`, and is needed for ever after; else the newest known one goes on
    wrapping, so that looking something up with a key from the shell changes nothing.
    Raises Refused if the database was made with keys that are not here.
    """
    row = connection.execute(text("SELECT key_fingerprints, hash_key FROM engine FOR UPDATE")).one()
    first_time = not row.key_fingerprints
    secrets = (
        parse_secret_keys(secret_keys) if secret_keys else _read_key_file(home / "secret_keys", may_make=first_time)
    )
    fingerprints = [fingerprint_of(secret) for secret in secrets]
    if first_time:
        hash_key = os.urandom(32)
        newest = AESGCM(_derive(secrets[0], "wrap"))
        _store(connection, fingerprints, _wrap(newest, fingerprints[0], hash_key))
        return KeyRing(secrets, hash_key)
    if not set(row.key_fingerprints) <= set(fingerprints):
        missing = ", ".join(sorted(set(row.key_fingerprints) - set(fingerprints)))
        raise Refused(
            f"this database needs secret key {missing}, which is not configured; restore DISPATCHER_SECRET_KEYS or "
            f"{home / 'secret_keys'} from the backup made with the database"
        )
    wrapping = {f: AESGCM(_derive(s, "wrap")) for f, s in zip(fingerprints, secrets, strict=True)}
    hash_key = _unwrap(wrapping, row.hash_key)
    if fingerprints == row.key_fingerprints:
        return KeyRing(secrets, hash_key)
    if not adopt:
        return KeyRing(secrets, hash_key, wraps_with=row.key_fingerprints[0])
    _store(connection, fingerprints, _wrap(wrapping[fingerprints[0]], fingerprints[0], hash_key))
    return KeyRing(secrets, hash_key)


def _store(connection: Connection, fingerprints: list[str], hash_key: bytes) -> None:
    connection.execute(
        text("UPDATE engine SET key_fingerprints = CAST(:fingerprints AS jsonb), hash_key = :hash_key"),
        {"fingerprints": orjson.dumps(fingerprints).decode(), "hash_key": hash_key},
    )


def _read_key_file(path: Path, *, may_make: bool) -> list[bytes]:
    if path.exists():
        if path.stat().st_mode & 0o077:
            raise Refused(f"{path} can be read by others; run: chmod 600 {path}")
        return parse_secret_keys(path.read_text(encoding="ascii").replace("\n", ","))
    if not may_make:
        raise Refused(f"{path} is missing, and the database was made with it; restore it from the backup")
    path.parent.mkdir(parents=True, exist_ok=True)
    secret = os.urandom(32)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(base64.b64encode(secret).decode() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return [secret]
