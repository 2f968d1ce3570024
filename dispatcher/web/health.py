"""Is this process alive, and can the engine do its work?"""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dispatcher.web.room import Room, in_thread, room_of

_SECONDS = 2
#: The clock beats every few seconds; this long without one and nothing new is started.
_CLOCK_IS_DEAD_AFTER_SECONDS = 10

_STATE = text("""
SELECT stopped_at, (
    SELECT extract(epoch FROM min(clock_timestamp() - heartbeat_at)) FROM worker
    WHERE kind = 'scheduler' AND ended_at IS NULL
) AS clock_age, (
    SELECT extract(epoch FROM clock_timestamp() + clock_offset - m.due_at)
    FROM message m JOIN run r ON r.id = m.run_id
    WHERE m.status = 'pending' AND m.batch_id IS NULL AND m.due_at <= clock_timestamp() + clock_offset
      AND r.state IN ('planning', 'running')
    ORDER BY m.due_at LIMIT 1
) AS backlog FROM engine
""")


async def alive(_: Request) -> Response:
    """Whether this process answers; says nothing about the database."""
    return JSONResponse({"alive": True})


async def ready(request: Request) -> Response:
    """200 if database, broker and clock are there; else 503 and which is not.

    An engine that was stopped is still ready: whoever unsubscribes meanwhile must be heard.
    """
    room = room_of(request)
    checks = await in_thread(room.pools.health, lambda: _check(room))
    is_ready = all(check["ok"] for check in checks.values())
    return JSONResponse({"ready": is_ready, "checks": checks}, 200 if is_ready else 503)


def _check(room: Room) -> dict[str, dict[str, Any]]:
    return {**_check_database(room.database), "broker": {"ok": _broker_answers(room.broker_url)}}


def _check_database(database: Engine) -> dict[str, dict[str, Any]]:
    try:
        with database.begin() as connection:
            connection.execute(text(f"SET LOCAL statement_timeout = '{_SECONDS}s'"))
            row = connection.execute(_STATE).one()
    except SQLAlchemyError:
        return {"database": {"ok": False}}
    age = None if row.clock_age is None else round(float(row.clock_age), 3)
    return {
        "database": {"ok": True},
        "clock": {"ok": age is not None and age < _CLOCK_IS_DEAD_AFTER_SECONDS, "last_beat_seconds_ago": age},
        "engine": {"ok": True, "stopped": row.stopped_at is not None},
        "backlog": {
            "ok": True,
            "oldest_due_seconds_ago": None if row.backlog is None else round(float(row.backlog), 3),
        },
    }


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
