"""Runs that a program asks for: the same request again is the same run, however often it is sent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from dispatcher import runs
from dispatcher.messages import KeyReused

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:request, 0))")
_KNOWN = text("SELECT id, body_hash FROM run WHERE client = :client AND idempotency_key = :key")
_NOTE = text("UPDATE run SET client = :client, idempotency_key = :key, body_hash = :hash WHERE id = :id")


@dataclass(frozen=True, slots=True)
class RunRequest:
    """Who asks for a run, under which key of their own, and what."""

    client: str
    idempotency_key: str | None  #: None: each request is one of its own
    campaign: str
    again: bool = False  #: also if it ran within a day
    even_unfinished: bool = False  #: also if its lane cannot carry it in time

    @property
    def body_hash(self) -> bytes:
        return hashlib.sha256(orjson.dumps([self.campaign, self.again, self.even_unfinished])).digest()


def known_run(connection: Connection, request: RunRequest) -> UUID | None:
    """Return the run that this request has started before; KeyReused if its key came with another request."""
    if request.idempotency_key is None:
        return None
    row = connection.execute(_KNOWN, {"client": request.client, "key": request.idempotency_key}).one_or_none()
    if row is None:
        return None
    if bytes(row.body_hash) != request.body_hash:
        raise KeyReused(
            f"Idempotency-Key {request.idempotency_key!r} was used before with another request; take a new key"
        )
    return UUID(str(row.id))


def start(connection: Connection, request: RunRequest, *, by: str) -> UUID:
    """Return the run of this request; the first time it is started.  Errors: those of `known_run` and `runs.start`."""
    connection.execute(_LOCK, {"request": f"run {request.client} {request.idempotency_key}"})
    known = known_run(connection, request)
    if known is not None:
        return known
    run_id = runs.start(connection, request.campaign, started_by=by, again=request.again)
    if request.idempotency_key is not None:
        noted = {"client": request.client, "key": request.idempotency_key, "hash": request.body_hash}
        connection.execute(_NOTE, {"id": run_id, **noted})
    return run_id
