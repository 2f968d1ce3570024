from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from pathlib import Path

import pytest
from sqlalchemy import text

from dispatcher import clock
from dispatcher.errors import Refused
from dispatcher.runtime import open_runtime
from dispatcher.settings import Settings


class RealProvider(Settings):
    """Settings of an installation from which something can really leave."""

    @cached_property
    def sandbox_only(self) -> bool:
        return False


def settings_for(kind: type[Settings], tmp_path: Path, database_url: str, broker_url: str) -> Settings:
    return kind(home=tmp_path / "home", database_url=database_url, broker_url=broker_url)


def test_configured_servers_are_used_and_none_is_started(tmp_path: Path, database_url: str, broker_url: str) -> None:
    with open_runtime(settings_for(Settings, tmp_path, database_url, broker_url)) as runtime:
        assert (runtime.database_url, runtime.broker_url) == (database_url, broker_url)
        with runtime.database.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM engine")).scalar_one() == 1

    assert not (tmp_path / "home" / "servers").exists()
    assert (tmp_path / "home" / "secret_keys").stat().st_mode & 0o777 == 0o600


def test_the_same_keys_are_opened_again(tmp_path: Path, database_url: str, broker_url: str) -> None:
    hashes = []
    for _ in range(2):
        with open_runtime(settings_for(Settings, tmp_path, database_url, broker_url)) as runtime:
            hashes.append(runtime.key_ring.address_hash("email", "anna@shop.example"))

    assert hashes[0] == hashes[1]


def test_a_shifted_clock_is_refused_where_something_can_leave(
    tmp_path: Path, database_url: str, broker_url: str
) -> None:
    with (
        open_runtime(settings_for(Settings, tmp_path, database_url, broker_url)) as runtime,
        runtime.database.begin() as c,
    ):
        clock.shift(c, timedelta(hours=3), sandbox_only=True)

    with open_runtime(settings_for(Settings, tmp_path, database_url, broker_url)):
        pass
    with (
        pytest.raises(Refused, match="clock is shifted"),
        open_runtime(settings_for(RealProvider, tmp_path, database_url, broker_url)),
    ):
        pass


def test_what_is_shown_of_a_runtime_holds_no_password(tmp_path: Path, database_url: str) -> None:
    settings = settings_for(Settings, tmp_path, f"{database_url}&password=geheim", "redis://shop:geheim@127.0.0.1:1/0")
    with open_runtime(settings) as runtime:
        assert "geheim" not in repr(runtime)


def test_a_broker_that_is_away_stops_only_those_who_need_it(tmp_path: Path, database_url: str) -> None:
    settings = settings_for(Settings, tmp_path, database_url, "redis://127.0.0.1:1/0")
    with open_runtime(settings):
        pass
    with pytest.raises(Refused, match="DISPATCHER_BROKER_URL"), open_runtime(settings, needs_broker=True):
        pass
