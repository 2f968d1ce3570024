"""API keys of the shop's own programs: made once, shown once, kept as a hash, and given a new secret by rotation.

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
from datetime import datetime, timedelta

from sqlalchemy import Connection, Row, text

from dispatcher import audit
from dispatcher.definitions import NAME
from dispatcher.errors import DispatcherError, NotFound, Refused

PREFIX = "dsp_"  #: so that a key in a log or a repository is recognised for what it is
_FORM = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")

#: What a key may be allowed to do.
SCOPES = {
    "contacts:read": "see a contact, personal fields masked, and how an erasure goes (GET /v1/contacts/{external_id})",
    "contacts:write": "make and change a contact (PUT /v1/contacts/{external_id})",
    "contacts:erase": "ask for a contact's erasure (DELETE /v1/contacts/{external_id})",
    "personal:read": "see personal fields in full, and export everything known of a contact (GET .../export)",
    "consents:write": "ask for, grant and withdraw consent (POST /v1/contacts/{external_id}/consents)",
    "suppressions:read": "see which addresses are never sent to, as hashes (GET /v1/suppressions)",
    "events:write": "say what happened in the shop (POST /v1/events)",
    "messages:write": "ask for a transactional message, or stop one (POST /v1/messages, DELETE /v1/messages/{id})",
    "messages:read": "see what became of messages (GET /v1/messages, GET /v1/messages/{id})",
    "segments:read": "see the segments, and how many contacts one means (GET /v1/segments)",
    "campaigns:read": "see campaigns, and what one would do (GET /v1/campaigns, POST /v1/campaigns/{name}/simulate)",
    "campaigns:write": "write and retire a campaign (PUT and DELETE /v1/campaigns/{name})",
    "runs:read": "see the figures of runs (GET /v1/runs, GET /v1/runs/{id})",
    "runs:write": "start, pause, resume and cancel runs (POST /v1/campaigns/{name}/runs, POST /v1/runs/{id}/...)",
    "metrics:read": "read the figures for monitoring (GET /metrics) from another machine",
    "explain:read": "ask why a contact would or would not get a campaign (GET /v1/explain)",
}

#: How many requests a key may make in a minute, unless its maker says otherwise: a busy shop's day at its busiest.
REQUESTS_PER_MINUTE = 6_000
MOST_REQUESTS_PER_MINUTE = 10_000_000
#: How long the secret before a rotation still opens, unless told.
GRACE = timedelta(hours=24)
LONGEST_GRACE = timedelta(days=30)


class NotAuthenticated(DispatcherError):  # noqa: N818 - named for what it says, like the rest of its family
    """No key, a wrong one or a revoked one; it does not say which."""


class NotPermitted(DispatcherError):  # noqa: N818
    """A good key without the scope that is needed."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: int
    name: str
    scopes: tuple[str, ...]
    requests_per_minute: int
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    previous_until: datetime | None  #: until then the secret before the last rotation opens, too

    @property
    def actor(self) -> str:
        """Return whom the audit names when this key's program does something."""
        return f"key:{self.name}"


def create(
    connection: Connection, name: str, scopes: Iterable[str], *, actor: str = "cli",
    requests_per_minute: int = REQUESTS_PER_MINUTE, expires_after: timedelta | None = None,
) -> str:  # fmt: skip
    """Return a new key, in the only moment it can be read."""
    wanted = sorted(set(scopes))
    if not re.fullmatch(NAME, name):
        raise Refused(f"{name!r} is no name for a key; use small letters, digits, - and _")
    if not wanted or (unknown := set(wanted) - set(SCOPES)):
        wrong = f"there is no scope {sorted(unknown)[0]!r}" if wanted else "a key needs at least one scope"
        raise Refused(f"{wrong}; the scopes are {', '.join(SCOPES)}")
    if not 1 <= requests_per_minute <= MOST_REQUESTS_PER_MINUTE:
        raise Refused(f"a key makes 1 to {MOST_REQUESTS_PER_MINUTE:,} requests a minute")
    if expires_after is not None and expires_after <= timedelta(0):
        raise Refused("a key that expires at once opens nothing; give it some time, like 90d")
    key = _new_secret()
    made = connection.execute(
        text(
            "INSERT INTO api_key (name, hash, scopes, requests_per_minute, expires_at) "
            "VALUES (:name, :hash, :scopes, :rate, clock_timestamp() + CAST(:expires_after AS interval)) "
            "ON CONFLICT (name) DO NOTHING RETURNING id"
        ),
        {"name": name, "hash": _hash(key), "scopes": wanted, "rate": requests_per_minute,
         "expires_after": expires_after},
    )  # fmt: skip
    if made.first() is None:
        raise Refused(f"there is, or was, a key called {name}; messages are told apart by it, so take another name")
    details = {"scopes": wanted, "requests_per_minute": requests_per_minute, "expires_after": expires_after}
    audit.record(connection, actor, "key.created", f"key {name}", details)
    return key


def rotate(connection: Connection, name: str, *, grace: timedelta = GRACE, actor: str = "cli") -> str:
    """Return a new secret for the key; the one it had still opens for `grace`, one from an earlier rotation no more.

    Name, scopes, limit and expiry stay.  NotFound, or Refused for a revoked key.
    """
    if not timedelta(0) <= grace <= LONGEST_GRACE:
        raise Refused(f"the old secret may open for at most {LONGEST_GRACE.days} days more")
    row = connection.execute(
        text("SELECT id, revoked_at FROM api_key WHERE name = :name FOR UPDATE"), {"name": name}
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no key called {name}; see: dispatcher key list")
    if row.revoked_at is not None:
        raise Refused(f"key {name} is revoked, for good; make a new one: dispatcher key create")
    key = _new_secret()
    connection.execute(
        text("""UPDATE api_key SET hash = :hash, previous_hash = hash,
                       previous_until = clock_timestamp() + CAST(:grace AS interval) WHERE id = :id"""),
        {"id": row.id, "hash": _hash(key), "grace": grace},
    )
    audit.record(connection, actor, "key.rotated", f"key {name}", {"grace": grace})
    return key


_FIND = text("""
    SELECT *, revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
              AND (hash = :hash OR previous_until > clock_timestamp()) AS opens
    FROM api_key WHERE hash = :hash OR previous_hash = :hash
""")


def authenticate(connection: Connection, bearer: str) -> ApiKey:
    """Return the key that `bearer` is; else NotAuthenticated.

    The look-up goes by the hash of what was sent, so its timing tells nothing about any key.
    """
    hashed = _hash(bearer)
    row = connection.execute(_FIND, {"hash": hashed}).one_or_none() if _FORM.fullmatch(bearer) else None
    if row is None or not row.opens or not any(_is_same(kept, hashed) for kept in (row.hash, row.previous_hash)):
        raise NotAuthenticated("this API key is not known, has expired or was revoked")
    _note_use(connection, row.id)
    return _api_key(row)


def require(key: ApiKey, scope: str) -> None:
    """NotPermitted unless the key may do `scope`."""
    if scope not in key.scopes:
        raise NotPermitted(f"key {key.name} lacks the scope {scope}")


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


def _is_same(kept: bytes | None, hashed: bytes) -> bool:
    return kept is not None and hmac.compare_digest(bytes(kept), hashed)


def _new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _api_key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(
        row.id, row.name, tuple(row.scopes), row.requests_per_minute, row.created_at, row.last_used_at,
        row.expires_at, row.revoked_at, row.previous_until,
    )  # fmt: skip
