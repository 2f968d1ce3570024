"""The broker: whether it answers, how old it is, and whether it may throw tickets away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatcher.doctor.check import Check
from dispatcher.errors import DispatcherError
from dispatcher.runtime import check_broker

_NAME = "broker"
_SECONDS = 5
#: Of Redis; every Valkey is newer.
OLDEST_REDIS = 6


def look_at_broker(broker_url: str) -> Iterator[Check]:
    """Ask the broker what it is."""
    try:
        check_broker(broker_url)
        client = redis.Redis.from_url(
            broker_url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS, retry=Retry(NoBackoff(), 0)
        )
        with client:
            told: Mapping[str, Any] = client.info()
    except DispatcherError as error:
        yield Check(_NAME, "wrong", str(error), "without it nothing moves; start it, or correct DISPATCHER_BROKER_URL")
    except redis.RedisError:  # a service that answers PING and hides INFO
        yield Check(_NAME, "ok", "answers; it does not say what it is")
    else:
        yield from judge_broker(told)


def judge_broker(told: Mapping[str, Any]) -> Iterator[Check]:
    """Judge what INFO says."""
    valkey, version = told.get("valkey_version"), str(told.get("redis_version", "?"))
    disk = "kept on disk" if told.get("aof_enabled") or told.get("rdb_saves") else "in memory only, which is enough"
    shown = f"{f'Valkey {valkey}' if valkey else f'Redis {version}'}, {disk}"
    major = version.partition(".")[0]
    if not valkey and major.isdecimal() and int(major) < OLDEST_REDIS:
        yield Check(_NAME, "look", shown, f"at least Redis {OLDEST_REDIS} is what we test with")
    else:
        yield Check(_NAME, "ok", shown)
    policy = told.get("maxmemory_policy")
    if policy not in (None, "noeviction"):
        detail = f"maxmemory-policy {policy}: when memory is short it throws tickets away, and each costs ten seconds"
        yield Check(_NAME, "look", detail, "set maxmemory-policy noeviction")
