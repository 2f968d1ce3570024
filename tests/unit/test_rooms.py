from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.authorise import LEASE, SEND_WITHIN
from dispatcher.providers.http import ANSWER_SECONDS
from dispatcher.providers.smtp.connection import REPLY_SECONDS, VERDICT_SECONDS
from dispatcher.rescue import PATIENCE as WEDGED
from dispatcher.room_guard import LONGEST_HAND_OVER_SECONDS, PATIENCE_SECONDS
from dispatcher.rooms import environment_of, pause_seconds
from dispatcher.settings import load_settings
from dispatcher.up import healthz_of, rooms_of


def test_a_room_that_keeps_dying_is_started_ever_more_slowly_but_soon() -> None:
    assert [pause_seconds(failures) for failures in (1, 2, 3, 4)] == [0.5, 1, 2, 4]
    assert pause_seconds(1000) == 5


def test_another_process_reads_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISPATCHER_PORT", "1")
    monkeypatch.setenv("DISPATCHER_BROKER_URL", "redis://of.the.environment")
    settings = load_settings(home=tmp_path / "a home", port=8123, broker_url=None, secret_keys="c2VjcmV0")
    environment = environment_of(settings)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert load_settings() == settings
    assert "DISPATCHER_BROKER_URL" not in environment


def test_a_house_has_every_room_once_and_as_many_marketing_hands_as_asked_for() -> None:
    names = [room.name for room in rooms_of(3)]

    assert names == ["clock", "marketing-1", "marketing-2", "marketing-3", "transactional", "control", "web"]


@pytest.mark.parametrize(
    ("host", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("shop.example", "shop.example")],
)
def test_health_is_asked_from_this_machine_whatever_is_listened_on(host: str, asked: str) -> None:
    assert healthz_of(load_settings(host=host, port=8000)) == f"http://{asked}:8000/healthz"


def test_a_hand_that_is_told_to_stop_has_time_for_its_last_hand_over() -> None:
    slowest = max(ANSWER_SECONDS, REPLY_SECONDS + VERDICT_SECONDS)
    longest = SEND_WITHIN.total_seconds() + slowest

    assert longest < LONGEST_HAND_OVER_SECONDS < PATIENCE_SECONDS
    assert (LEASE + WEDGED).total_seconds() > LONGEST_HAND_OVER_SECONDS, "or it would be killed as wedged"
