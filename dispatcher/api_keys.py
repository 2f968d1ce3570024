"""API keys of the shop's own programs: made once, shown once, kept as a hash.

A key is 256 random bits, so there is nothing to guess from its hash and one SHA-256 is enough: slow hashes (argon2,
scrypt) protect what people make up, and would cost every request tens of milliseconds here.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, text

from dispatcher import audit
from dispatcher.definitions import NAME
from dispatcher.errors import DispatcherError, NotFound, Refused

PREFIX = "dsp_"  #: so that a key in a log or a repository is recognised for what it is
_FORM = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")

#: What a key may be allowed to do.
SCOPES = {
    "events:write": "say what happened in the shop (POST /v1/events)",
    "messages:write": "ask for a transactional message, or stop one (POST /v1/messages, DELETE /v1/messages/{id})",
    "messages:read": "see what became of a message (GET /v1/messages/{id})",
    "consents:write": "ask for, grant and withdraw consent (POST /v1/contacts/{external_id}/consents)",
    "runs:read": "see the figures of a run (GET /v1/runs/{id})",
    "campaigns:read": "see what a campaign would do (POST /v1/campaigns/{name}/simulate)",
    "metrics:read": "read the figures for monitoring (GET /metrics) from another machine",
    "explain:read": "ask why a contact would or would not get a campaign (GET /v1/explain)",
}


class NotAuthenticated(DispatcherError):  # noqa: N818 - named for what it says, like the rest of its family
    """No key, a wrong one or a revoked one; it does not say which."""


class NotPermitted(DispatcherError):  # noqa: N818
    """A good key without the scope that is needed."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


def create(connection: Connection, name: str, scopes: Iterable[str], *, actor: str = "cli") -> str:
    """Return a new key, in the only moment it can be read."""
    wanted = sorted(set(scopes))
    if not re.fullmatch(NAME, name):
        raise Refused(f"{name!r} is no name for a key; use small letters, digits, - and _")
    if not wanted or (unknown := set(wanted) - set(SCOPES)):
        wrong = f"there is no scope {sorted(unknown)[0]!r}" if wanted else "a key needs at least one scope"
        raise Refused(f"{wrong}; the scopes are {', '.join(SCOPES)}")
    key = PREFIX + secrets.token_urlsafe(32)
    made = connection.execute(
        text(
            "INSERT INTO api_key (name, hash, scopes) VALUES (:name, :hash, :scopes) "
            "ON CONFLICT (name) DO NOTHING RETURNING id"
        ),
        {"name": name, "hash": _hash(key), "scopes": wanted},
    )
    if made.first() is None:
        raise Refused(f"there is, or was, a key called {name}; messages are told apart by it, so take another name")
    audit.record(connection, actor, "key.created", f"key {name}", {"scopes": wanted})
    return key


def authenticate(connection: Connection, bearer: str, scope: str) -> ApiKey:
    """Return the key that `bearer` is, if it may do `scope`; else NotAuthenticated or NotPermitted.

    The look-up goes by the hash of what was sent, so its timing tells nothing about any key.
    """
    hashed = _hash(bearer)
    row = connection.execute(text("SELECT * FROM api_key WHERE hash = :hash"), {"hash": hashed}).one_or_none()
    well_formed = _FORM.fullmatch(bearer) is not None
    if not well_formed or row is None or not hmac.compare_digest(bytes(row.hash), hashed) or row.revoked_at is not None:
        raise NotAuthenticated("this API key is not known, or was revoked")
    if scope not in row.scopes:
        raise NotPermitted(f"key {row.name} lacks the scope {scope}")
    _note_use(connection, row.id)
    return _api_key(row)


def revoke(connection: Connection, name: str, *, actor: str = "cli") -> None:
    """Make the key useless from this commit on; its name stays taken."""
    revoked = connection.execute(
        text(
            "UPDATE api_key SET revoked_at = clock_timestamp() WHERE name = :name AND revoked_at IS NULL RETURNING id"
        ),
        {"name": name},
    )
    if revoked.first() is not None:
        audit.record(connection, actor, "key.revoked", f"key {name}")
    elif connection.execute(text("SELECT 1 FROM api_key WHERE name = :name"), {"name": name}).first() is None:
        raise NotFound(f"there is no key called {name}; see: dispatcher key list")


def list_keys(connection: Connection) -> list[ApiKey]:
    """Return every key, the revoked ones too, by name."""
    return [_api_key(row) for row in connection.execute(text("SELECT * FROM api_key ORDER BY name"))]


def _note_use(connection: Connection, key_id: int) -> None:
    """Stamp the key at most once a minute, and never wait for another request that does it right now."""
    connection.execute(
        text(
            """
            UPDATE api_key SET last_used_at = clock_timestamp() WHERE id IN (
                SELECT id FROM api_key
                WHERE id = :id AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 minute')
                FOR NO KEY UPDATE SKIP LOCKED)
            """
        ),
        {"id": key_id},
    )


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _api_key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(row.name, tuple(row.scopes), row.created_at, row.last_used_at, row.revoked_at)
