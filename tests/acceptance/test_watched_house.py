"""What /readyz and /metrics say while rooms and servers are killed or hang, and when they are back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from house import ROOMY_CAPS, Live, eventually, live_shop, write_people
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.thorough

PEOPLE = 400


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("watched")
    people = write_people(folder / "people.csv", PEOPLE)
    with live_shop(folder / "home", workspace=ROOMY_CAPS, people=people) as live:
        yield live


def ready(live: Live) -> tuple[int, dict[str, Any]]:
    status, body = live.http(f"{live.url}/readyz", timeout=10)
    return status, json.loads(body)["checks"]


def is_ready(live: Live) -> bool:
    return ready(live)[0] == 200


def only_wrong(live: Live, *names: str) -> bool:
    """Whether exactly these checks are wrong, each with its reason."""
    status, checks = ready(live)
    wrong = {name: check.get("reason") for name, check in checks.items() if not check["ok"]}
    return status == 503 and set(wrong) == set(names) and all(wrong.values())


def figures(live: Live) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return what is shown, by name and the values of its labels in the order of their names."""
    status, page = live.http(f"{live.url}/metrics", timeout=10)
    assert status == 200
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


@contextmanager
def hanging(pid: int) -> Iterator[None]:
    """Hold a process still, as a machine that swaps or a disk that is gone would."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def pid_of(live: Live, pid_file: str) -> int:
    path: Path = live.settings.home / pid_file
    return int(path.read_text(encoding="utf-8").split()[0])


def test_everything_is_ready_at_first(live: Live) -> None:
    eventually(lambda: is_ready(live))
    eventually(lambda: figures(live)["dispatcher_rooms_alive", ("control",)] == 1)
    assert figures(live)["dispatcher_rooms_alive", ("marketing",)] == 2


def test_a_clock_that_hangs_is_named_and_found_again(live: Live) -> None:
    clock = live.pid("clock")
    assert clock is not None
    with hanging(clock):
        eventually(lambda: only_wrong(live, "clock"), 20)
        shown = figures(live)
        assert shown["dispatcher_rooms_alive", ("scheduler",)] == 0
        assert shown["dispatcher_clock_silent_seconds", ()] >= 10
    eventually(lambda: is_ready(live), 20)


def test_a_killed_hand_is_counted_out_and_its_successor_in(live: Live) -> None:
    eventually(lambda: figures(live)["dispatcher_rooms_alive", ("transactional",)] == 1)
    hand = live.pid("transactional")
    assert hand is not None
    with hanging(hand):
        eventually(lambda: figures(live)["dispatcher_rooms_alive", ("transactional",)] == 0, 20)
        os.kill(hand, signal.SIGKILL)
    eventually(lambda: figures(live)["dispatcher_rooms_alive", ("transactional",)] == 1, 30)


def test_a_broker_that_hangs_is_named_and_found_again(live: Live) -> None:
    with hanging(pid_of(live, "servers/valkey/valkey.pid")):
        eventually(lambda: only_wrong(live, "broker"), 20)
    eventually(lambda: is_ready(live), 30)


def test_a_killed_database_is_named_and_found_again(live: Live) -> None:
    os.kill(pid_of(live, "servers/postgres/data/postmaster.pid"), signal.SIGKILL)
    eventually(lambda: not ready(live)[1]["database"]["ok"], 20)
    eventually(lambda: is_ready(live), 60)
    assert figures(live)["dispatcher_database_up", ()] == 1


def test_links_answer_and_health_is_said_in_time_while_the_database_hangs(live: Live) -> None:
    eventually(lambda: is_ready(live), 30)
    backends = [row.pid for row in live.rows("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")]
    postmaster = pid_of(live, "servers/postgres/data/postmaster.pid")
    for pid in (postmaster, *backends):
        os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            assert only_wrong(live, "database", "clock", "backlog")
        assert live.http(f"{live.url}/healthz", timeout=2)[0] == 200
    finally:
        for pid in (postmaster, *backends):
            os.kill(pid, signal.SIGCONT)
    eventually(lambda: is_ready(live), 60)


def test_a_campaign_shows_in_the_figures_as_in_the_ledger(live: Live) -> None:
    eventually(lambda: is_ready(live), 60)
    before = figures(live).get(("dispatcher_receipts_total", ("email.marketing", "accepted", "sandbox")), 0.0)
    run_id = live.start("hello")
    live.finish(run_id)
    sent = live.statuses(run_id)["sent"]
    assert sent == PEOPLE - PEOPLE // 40

    def agrees() -> bool:
        shown = figures(live)
        counted = shown.get(("dispatcher_receipts_total", ("email.marketing", "accepted", "sandbox")), 0.0) - before
        listed = shown.get(("dispatcher_messages", ("email.marketing", "", "sent")), 0.0)
        return counted == sent and listed == live.one("SELECT count(*) FROM message WHERE status = 'sent'")

    eventually(agrees, 20)
