"""`make demo` as a stranger sees it: the whole journey, an honest exit code, and nothing left behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import REPOSITORY, bare_environment, command, eventually, running

from dispatcher import embedded

pytestmark = pytest.mark.thorough

DEMO_SECONDS = 180.0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    embedded.remove(tmp_path / "home")


def demo(home: Path) -> str:
    """Play the demo and return what it said; everything must have held."""
    done = command(["demo"], bare_environment(home), timeout=DEMO_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything held." in done.stdout
    return done.stdout


def funnels(said: str) -> dict[str, dict[str, int]]:
    """Return the lines of each campaign's funnel: what -> how many."""
    found: dict[str, dict[str, int]] = {}
    for block in re.split(r"^Campaign |^The next campaign, ", said, flags=re.MULTILINE)[1:]:
        name = re.match(r"[\w-]+", block)
        rows = re.findall(r"^ (\S+)(?: +(?:sent|skipped|deferred|failed|unknown|pending))? +([\d,]+) *$", block, re.M)
        assert name is not None
        found[name[0]] = {what: int(number.replace(",", "")) for what, number in rows}
    return found


def test_the_demo_plays_the_main_job_and_leaves_nothing_running(home: Path) -> None:
    said = demo(home)
    by_campaign = funnels(said)

    assert list(by_campaign) == ["christmas", "christmas-sms", "kitchen-week"]
    for funnel in by_campaign.values():
        audience, *others = funnel.values()
        assert audience == sum(others) >= 100
        assert funnel["sent"] > 0
    assert "QUIET_HOURS" in by_campaign["christmas-sms"]
    assert re.search(r"POST /v1/messages: 202, message \S+, handed over after", said)
    assert re.search(r"POST List-Unsubscribe=One-Click \(RFC 8058\): 200", said)
    assert re.search(r"the reader who unsubscribed, contact \d+: skipped NO_CONSENT", said)
    assert re.search(r"^ NO_CONSENT +skip ", said, flags=re.MULTILINE), "explain shows the gate"
    assert len(re.findall(r"^ *INV-\d+ +holds", said, flags=re.MULTILINE)) >= 15
    assert not re.search(r"Traceback|^ *INV-\d+ +broken", said, flags=re.MULTILINE)
    assert running(home) == []


@pytest.mark.slow
def test_the_demo_works_twice_and_after_one_that_was_killed(home: Path) -> None:
    demo(home)
    demo(home)
    killed = subprocess.Popen(
        [str(Path(sys.executable).with_name("dispatcher")), "demo"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=bare_environment(home), cwd=REPOSITORY, text=True,
    )  # fmt: skip
    with killed:
        assert killed.stdout is not None
        assert any("Campaign christmas-sms" in line for line in iter(killed.stdout.readline, ""))
        killed.send_signal(signal.SIGKILL)
    demo(home)  # at once, while what was left of the other one is still ending
    assert running(home) == []


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_leaves_nothing_running(home: Path, how: signal.Signals) -> None:
    stopped = subprocess.Popen(
        [str(Path(sys.executable).with_name("dispatcher")), "demo"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=bare_environment(home), cwd=REPOSITORY, text=True,
    )  # fmt: skip
    with stopped:
        assert stopped.stdout is not None
        assert any("Campaign christmas-sms" in line for line in iter(stopped.stdout.readline, ""))
        assert running(home), "or this test could not fail"
        stopped.send_signal(how)
        rest = stopped.stdout.read()
    assert "Traceback" not in rest
    assert stopped.returncode != 0
    eventually(lambda: not running(home), saying="everything ended")
