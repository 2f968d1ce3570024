"""The limit of an API key: counted together by all web rooms; while the broker is away, by each for itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, text
from web_server import Answer, Web, serving

from dispatcher import api_keys
from dispatcher.keys import KeyRing
from dispatcher.rate_limit import LocalRateLimit, RateLimit, SharedRateLimit, TooMany

_ids = itertools.count(1_000_000)


@pytest.fixture
def key_id(broker_url: str) -> int:
    """A key that no other test counts."""
    number = next(_ids)
    redis.Redis.from_url(broker_url).delete(f"dispatcher:requests:{number}")
    return number


@pytest.fixture(params=["shared", "local"])
def rate_limit(request: pytest.FixtureRequest, broker_url: str) -> RateLimit:
    return SharedRateLimit(broker_url) if request.param == "shared" else LocalRateLimit()


def test_a_minutes_worth_may_come_at_once_and_no_more(rate_limit: RateLimit, key_id: int) -> None:
    left = [rate_limit.take(key_id, 5).left for _ in range(5)]

    assert left == [4, 3, 2, 1, 0]
    with pytest.raises(TooMany) as refused:
        rate_limit.take(key_id, 5)
    assert 10 < refused.value.allowance.wait_seconds <= 12
    assert refused.value.allowance.headers["RateLimit"] == '"key";r=0;t=60'
    assert rate_limit.take(key_id + 1, 5).left == 4  # another key has its own


def test_a_refused_request_costs_nothing(rate_limit: RateLimit, key_id: int) -> None:
    rate_limit.take(key_id, 1)
    waits = []
    for _ in range(20):
        with pytest.raises(TooMany) as refused:
            rate_limit.take(key_id, 1)
        waits.append(refused.value.allowance.wait_seconds)

    assert max(waits) <= 60


def test_two_rooms_count_together_under_load(broker_url: str, key_id: int) -> None:
    rooms = [SharedRateLimit(broker_url) for _ in range(4)]

    def take(number: int) -> bool:
        try:
            rooms[number % 4].take(key_id, 100)
        except TooMany:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = sum(pool.map(take, range(300)))
    assert 100 <= taken <= 102  # and what leaked out meanwhile
    assert (
        0 < redis.Redis.from_url(broker_url).pttl(f"dispatcher:requests:{key_id}") <= 60_100
    )  # nothing is left behind


def test_without_a_broker_each_room_counts_for_itself(key_id: int) -> None:
    alone = SharedRateLimit("redis://127.0.0.1:1/0")

    assert [alone.take(key_id, 2).left for _ in range(2)] == [1, 0]
    with pytest.raises(TooMany):
        alone.take(key_id, 2)


@pytest.fixture
def web(database: Engine, key_ring: KeyRing, broker_url: str, tmp_path: Path) -> Iterator[Web]:
    with serving(database, key_ring, tmp_path / "home", broker_url=broker_url) as web:
        yield web


def test_too_many_requests_are_429_with_the_time_to_wait(
    database: Engine, web: Web, broker_url: str, key_id: int
) -> None:
    with database.begin() as connection:
        key = api_keys.create(connection, "shop", ["runs:read"], requests_per_minute=2)
        connection.execute(text("UPDATE api_key SET id = :id"), {"id": key_id})

    def ask() -> Answer:
        return web.ask("GET", "/v1/runs", headers={"Authorization": f"Bearer {key}"})

    first, _, refused = ask(), ask(), ask()
    assert (first.status, first.header("RateLimit-Policy"), first.header("RateLimit")) == (
        200, '"key";q=2;w=60', '"key";r=1;t=30',
    )  # fmt: skip
    assert (refused.status, refused.header("Content-Type")) == (429, "application/problem+json")
    assert 25 < int(refused.header("Retry-After") or 0) <= 30
    assert (refused.header("RateLimit") or "").startswith('"key";r=0;t=')
    assert web.ask("GET", "/healthz").status == 200
    assert web.ask("GET", "/healthz").header("RateLimit") is None
