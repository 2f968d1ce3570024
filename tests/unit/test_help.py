"""What `--help` shows: all that was written, under headings that somebody new can find their way by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from dispatcher.cli import HEADINGS, app

COMMAND: Any = typer.main.get_command(app)


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    waiting: list[tuple[tuple[str, ...], Any]] = [((), COMMAND)]
    while waiting:
        names, command = waiting.pop()
        yield names, command
        waiting += [((*names, name), one) for name, one in getattr(command, "commands", {}).items()]


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text))


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.usefixtures("wide")
def test_no_word_of_a_help_is_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    for names, command in commands():
        COMMAND.main([*names, "--help"], standalone_mode=False)
        written = [command.help or "", *(getattr(parameter, "help", None) or "" for parameter in command.params)]
        shown = words(capsys.readouterr().out)

        assert [part for part in written if words(part) not in shown] == [], names


@pytest.mark.usefixtures("wide")
def test_every_command_stands_under_a_heading(capsys: pytest.CaptureFixture[str]) -> None:
    COMMAND.main(["--help"], standalone_mode=False)
    headings = re.findall(r"─ ([A-Z][\w' ]+) ─", capsys.readouterr().out)

    assert headings == ["Options", *(heading for heading, _ in HEADINGS)]
