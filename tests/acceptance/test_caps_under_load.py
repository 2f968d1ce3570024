"""Caps are exact: campaigns that all want the same people at once, with four worker processes, get what is allowed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from house import CROWD, Live, eventually, live_shop, own_servers, write_people
from small_workspace import FILES, write_workspace
from sqlalchemy.engine import URL

from dispatcher import runs
from dispatcher.apply import apply
from dispatcher.up import rooms_of
from dispatcher.workspace import read_workspace

CAMPAIGNS = [f"wish-{number}" for number in range(8)]
HANDS = 4
SECONDS = 300.0


def workspace(cap: int) -> dict[str, str]:
    hello = FILES["campaigns/hello.yaml"]
    return {
        "dispatcher.toml": FILES["dispatcher.toml"].replace("max = 1\n", f"max = {cap}\n"),
        **{f"campaigns/{name}.yaml": hello.replace("hello", name) for name in CAMPAIGNS},
    }


@pytest.mark.parametrize(
    ("cap", "people", "heap"),
    [
        pytest.param(3, 250, True, marks=pytest.mark.thorough),
        *(pytest.param(cap, 1_000, heap, marks=pytest.mark.slow) for cap in (1, 3) for heap in (True, False)),
    ],
)
def test_everybody_gets_exactly_as_many_as_the_cap_allows(
    servers: tuple[str, str], template_database: URL, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    cap: int, people: int, heap: bool,
) -> None:  # fmt: skip
    """`heap`: all wait planned, and without a cap, when it comes into force and everything is let go at once."""
    crowd = write_people(tmp_path / "people.csv", people)
    rules = workspace(CROWD if heap else cap)
    with (
        own_servers(servers, template_database) as own,
        live_shop(
            tmp_path / "home", servers=own, workspace=rules, people=crowd, rooms=rooms_of(HANDS, web=False)
        ) as live,
    ):
        live.tell_sandbox(seconds_per_call=0.2)  # long enough for every hand to have something
        with live.database.begin() as connection:
            if heap:
                runs.stop_all(connection, by="test")
            started = [runs.start(connection, name, started_by="test") for name in CAMPAIGNS]
        if heap:
            _let_go_at_once(live, tmp_path, cap, people)
        seconds = sum(live.finish(run_id, SECONDS) for run_id in started)

        got = Counter(mail["contact"] for mail in live.outbox())
        assert len(got) == live.agreed()
        assert set(got.values()) == {min(cap, len(CAMPAIGNS))}
        for run_id in started:
            assert set(live.check_nobody_twice_nobody_lost(run_id)) <= {"sent", "skipped"}
        live.check_invariants()
        hands = live.one("SELECT count(DISTINCT worker_id) FROM batch")
    assert hands == HANDS or not heap
    with capsys.disabled():
        print(f"\ncap {cap}: {len(CAMPAIGNS)} campaigns, {people} people, {hands} workers at it: {seconds:.1f} s")


def _let_go_at_once(live: Live, folder: Path, cap: int, people: int) -> None:
    rows = len(CAMPAIGNS) * people
    eventually(lambda: live.one("SELECT count(*) FROM message") == rows, saying="everything planned")
    with live.database.begin() as connection:
        apply(connection, read_workspace(write_workspace(folder / "capped", dict(workspace(cap)))), by="test")
        runs.go_on(connection, by="test")
