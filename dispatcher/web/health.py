"""Is this process alive, and can the engine do its work?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio.to_thread
import redis
from anyio import CapacityLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Checks = dict[str, dict[str, Any]]

_SECONDS = 2
_PATIENCE_SECONDS = 4
#: The clock beats every few seconds; this long without one and nothing new is started.
_CLOCK_IS_DEAD_AFTER_SECONDS = 10
#: What is due is put into batches within seconds, a million messages that become due at once within minutes.  Whoever
#: waits longer for that waits for somebody who does not come.
_BACKLOG_IS_OLD_AFTER_SECONDS = 300

_STATE = text("""
SELECT stopped_at, (
    SELECT extract(epoch FROM min(clock_timestamp() - heartbeat_at)) FROM worker
    WHERE kind = 'scheduler' AND ended_at IS NULL
) AS clock_age FROM engine
""")
# Of the oldest due messages only: those of a paused campaign, however many, must not keep anybody waiting.
_BACKLOG = text("""
SELECT extract(epoch FROM now - m.due_at)
FROM (SELECT clock_timestamp() + clock_offset AS now FROM engine) AS e, LATERAL (
    SELECT run_id, due_at FROM message
    WHERE status = 'pending' AND batch_id IS NULL AND due_at <= e.now ORDER BY due_at LIMIT 10000) AS m
JOIN run r ON r.id = m.run_id WHERE r.state IN ('planning', 'running') ORDER BY m.due_at LIMIT 1
""")


async def alive(_: Request) -> Response:
    """Whether this process answers; says nothing about the database."""
    return JSONResponse({"alive": True})


async def ready(request: Request) -> Response:
    """200 if database, broker and clock are there and what is due is taken up; else 503, and which is not and why.

    An engine that was stopped is still ready: whoever unsubscribes meanwhile must be heard.
    """
    checks: Health = request.app.state.room.health
    seen = await asyncio.gather(checks.database.look(), checks.broker.look())
    found = {name: check for some in seen for name, check in some.items()}
    is_ready = all(check["ok"] for check in found.values())
    return JSONResponse({"ready": is_ready, "checks": found}, 200 if is_ready else 503)


class Health:
    """How database and broker do, each looked at by one thread at a time."""

    def __init__(self, database: Engine, broker_url: str, pool: CapacityLimiter) -> None:
        self.database = _Look(pool, lambda: _check_database(database), _no_database("does not answer in time"))
        self.broker = _Look(pool, lambda: _check_broker(broker_url), {"broker": _not_ok("does not answer in time")})


class _Look:
    """One look at a time, shared by all who ask meanwhile: a server that hangs must not pile them up."""

    def __init__(self, pool: CapacityLimiter, look: Callable[[], Checks], hangs: Checks) -> None:
        self._pool, self._look, self._hangs = pool, look, hangs
        self._looking: asyncio.Task[Checks] | None = None

    async def look(self) -> Checks:
        """Return what is found, or within some seconds that nothing is."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._in_thread())
        looking = self._looking
        done, _ = await asyncio.wait({looking}, timeout=_PATIENCE_SECONDS)
        return looking.result() if done else self._hangs

    async def _in_thread(self) -> Checks:
        return await anyio.to_thread.run_sync(self._look, limiter=self._pool)


def _check_database(database: Engine) -> Checks:
    """Return the checks of what the database knows; none but its own if it does not answer."""
    try:
        with database.begin() as connection:
            connection.execute(text(f"SET LOCAL statement_timeout = '{_SECONDS}s'"))
            row = connection.execute(_STATE).one()
            waits = connection.execute(_BACKLOG).scalar()
    except SQLAlchemyError:
        return _no_database("does not answer")
    stopped = row.stopped_at is not None
    return {
        "database": {"ok": True},
        "clock": check_clock(None if row.clock_age is None else float(row.clock_age)),
        "engine": {"ok": True, "stopped": stopped},
        "backlog": check_backlog(None if waits is None else float(waits), stopped=stopped),
    }


def _no_database(why: str) -> Checks:
    unknown = _not_ok("not known: only the database knows")
    return {"database": _not_ok(why), "clock": unknown, "backlog": unknown}


def _check_broker(broker_url: str) -> Checks:
    return {"broker": {"ok": True} if _broker_answers(broker_url) else _not_ok("does not answer")}


def check_clock(silent_seconds: float | None) -> dict[str, Any]:
    """Judge how long ago a clock was heard of; None: none is running."""
    if silent_seconds is None:
        return _not_ok("no clock is running: nothing is started or released", last_beat_seconds_ago=None)
    shown = round(silent_seconds, 3)
    if silent_seconds >= _CLOCK_IS_DEAD_AFTER_SECONDS:
        return _not_ok(f"no clock has beaten for {shown:g} seconds", last_beat_seconds_ago=shown)
    return {"ok": True, "last_beat_seconds_ago": shown}


def check_backlog(waits_seconds: float | None, *, stopped: bool) -> dict[str, Any]:
    """Judge for how long the oldest message is due that nobody has taken up; while all is stopped nobody shall."""
    shown = None if waits_seconds is None else round(waits_seconds, 3)
    if waits_seconds is not None and waits_seconds >= _BACKLOG_IS_OLD_AFTER_SECONDS and not stopped:
        why = f"a message is due for {waits_seconds:.0f} seconds and nobody takes it up: is a control worker running?"
        return _not_ok(why, oldest_due_seconds_ago=shown)
    return {"ok": True, "oldest_due_seconds_ago": shown}


def _not_ok(reason: str, **facts: Any) -> dict[str, Any]:
    return {"ok": False, "reason": reason, **facts}


def _broker_answers(broker_url: str) -> bool:
    try:
        client = redis.Redis.from_url(
            broker_url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS, retry=Retry(NoBackoff(), 0)
        )
        with client:
            return bool(client.ping())
    except (redis.RedisError, ValueError, OSError):
        return False


ROUTES = [Route("/healthz", alive), Route("/readyz", ready)]
