"""The examples of docs/howto/using-the-api.md, run in their order by a real curl and a real Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from web_process import web_process

from dispatcher import api_keys
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.workspace import read_workspace

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.thorough
PAGE = (ROOT / "docs" / "howto" / "using-the-api.md").read_text(encoding="utf-8")
_CURL = re.compile(r"```bash\n(.*?)```\n→ (\d+)\n```json\n(.*?)```", re.DOTALL)
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
#: Say the status behind the body, and nothing of the progress.
_WITH_STATUS = "curl() { command curl -sS -w '\\n%{http_code}' \"$@\"; }\n"


@pytest.fixture
def environment(database: Engine, key_ring: KeyRing, broker_url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A served workspace as `dispatcher init` makes it, and a key: what the page says one needs."""
    with database.begin() as connection:
        apply(connection, read_workspace(ROOT / "examples" / "workspace"), by="test")
        key = api_keys.create(connection, "shop-backend", api_keys.SCOPES)
    url = database.url.render_as_string(hide_password=False)
    with web_process(url, broker_url, tmp_path / "home") as address:
        yield os.environ | {"API": address, "KEY": key}


def shape_is_there(shown: Any, found: Any, where: str = "answer") -> None:
    """Whatever the page shows is in the answer: the same names, and of the same kind."""
    if isinstance(shown, dict):
        assert isinstance(found, dict), where
        assert shown.keys() <= found.keys(), f"{where} lacks {shown.keys() - found.keys()}"
        for name, part in shown.items():
            shape_is_there(part, found[name], f"{where}.{name}")
    elif isinstance(shown, list) and shown:
        assert isinstance(found, list), where
        assert found, where
        shape_is_there(shown[0], found[0], f"{where}[0]")
    elif shown is not None:
        assert type(found) is type(shown), f"{where} is {found!r}"


def test_every_curl_example_answers_what_the_page_shows(environment: dict[str, str]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    examples = _CURL.findall(PAGE)
    assert len(examples) == PAGE.count("```bash")

    for command, status, shown in examples:
        done = subprocess.run(
            ["bash", "-c", _WITH_STATUS + command], env=environment, capture_output=True, text=True, timeout=60
        )
        body, _, code = done.stdout.rpartition("\n")
        assert code == status, (command, done.stdout, done.stderr)
        answer = json.loads(body)
        shape_is_there(json.loads(shown), answer)
        environment |= {name.upper(): answer[name] for name in ("id", "run") if isinstance(answer.get(name), str)}


def test_the_python_example_runs_and_may_run_again(environment: dict[str, str]) -> None:
    [script] = _PYTHON.findall(PAGE)

    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-I", "-c", script], env=environment, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["pending", "['christmas', 'christmas-sms', 'kitchen-week']"]
