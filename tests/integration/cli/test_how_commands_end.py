"""Every command's help, and how commands end: wrong usage, what is refused, what nobody foresaw."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from running import Run

from dispatcher import cli


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with its path."""
    group = group or typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_has_a_help_with_an_example_of_itself() -> None:
    for path, command in commands():
        assert command.help, path
        assert f"dispatcher {' '.join(path)}" in command.help, f"{path} has no example"
        assert all(parameter.help for parameter in command.params if parameter.name != "help"), path


def test_every_command_of_the_contract_is_there() -> None:
    promised = (
        "init, demo, up, serve, worker, schedule, apply, migrate, import contacts, import events, segment list, "
        "segment count, segment sample, campaign list, campaign simulate, campaign start, campaign pause, "
        "campaign resume, campaign cancel, run list, run show, run export, explain, contact show, contact export, "
        "contact correct, contact erase, contact erase-again, audit list, audit verify, consent show, "
        "consent request, consent grant, consent withdraw, consent export, suppression list, suppression add, "
        "suppression remove, template check, "
        "template preview, template send, key create, key list, key revoke, verify, doctor, stop-all, go-on, lost"
    )
    assert {" ".join(path) for path, _ in commands()} >= set(promised.split(", "))


def test_reading_commands_speak_json() -> None:
    reading = ("list", "show", "count", "sample", "simulate", "explain", "verify", "doctor", "check")
    for path, command in commands():
        if path[-1] in reading:
            assert "as_json" in {parameter.name for parameter in command.params}, path


WRONG_USAGE = [
    ("bogus",),
    ("segment", "count"),
    ("segment", "count", "fans", "--as-of", "yesterday"),
    ("segment", "count", "fans", "--as-of", "2026-13-01"),
    ("segment", "sample", "fans", "--limit", "0"),
    ("import", "contacts", "x.csv", "--map", "email"),
    ("suppression", "add", "nobody"),
    ("consent", "withdraw", "agreed", "--topic", "nothing"),
    ("consent", "request", "agreed", "--topic", "nothing"),
    ("consent", "grant", "agreed", "--topic", "offers", "--basis", "whim"),
    ("consent", "grant", "agreed", "--topic", "offers", "--basis", "soft_opt_in"),
    ("consent", "grant", "agreed", "--topic", "offers", "--since", "2026-01-01"),
    ("consent", "withdraw", "agreed", "--channel", "fax"),
    ("worker", "gardening"),
]


def test_wrong_usage_ends_with_two(shop: Run) -> None:
    for arguments in WRONG_USAGE:
        ended = shop(*arguments)

        assert (ended.code, ended.out) == (2, ""), arguments
        assert "Error: " in ended.err
        assert "Traceback" not in ended.err


def test_a_wrong_instant_is_answered_with_a_right_one(run: Run) -> None:
    assert "write it like 2011-12-01T10:00:00Z" in run("segment", "count", "x", "--as-of", "noon").err


REFUSED = [
    (("segment", "count", "fanz"), "there is no segment fanz; did you mean fans?"),
    (("campaign", "simulate", "nothing"), "there is no campaign nothing; there are christmas, hello"),
    (("run", "show", "latest"), "there is no run yet; dispatcher campaign start makes one"),
    (("run", "show", "0123"), "there is no run 0123; see: dispatcher run list"),
    (("campaign", "pause", "hello"), "campaign hello has no run that is planning or running"),
    (("campaign", "pause", "helo"), "there is no campaign or run helo; see: dispatcher campaign list"),
    (("template", "preview", "christmas", "agreed", "--data", "no.json"), "no.json cannot be read: No such file"),
    (("verify", "--provider-log", "dispatcher.toml"), "dispatcher.toml is no provider log: "),
    (("explain", "nobody", "hello"), "there is no contact 'nobody'; give an external id or an e-mail address"),
    (("contact", "show", "x@people.example"), "there is no contact with this e-mail address"),
    (("apply", "elsewhere"), "elsewhere is not a workspace: it has no dispatcher.toml; dispatcher init makes one"),
    (("init", "."), ". is there already and not empty; choose a new folder"),
    (("import", "contacts", "nothing.csv"), "there is no file nothing.csv"),
    (("key", "revoke", "none"), "there is no key called none; see: dispatcher key list"),
    (("template", "preview", "christmas", "mailless"), "the contact has no email address"),
    (("template", "preview", "easter", "agreed"), "there is no template easter; dispatcher apply brings them in"),
    (("campaign", "start", "hello"), "hello means 3 contacts of everybody; those the rules allow get an e-mail."),
]


def test_what_is_refused_ends_with_one_and_one_clear_line(shop: Run) -> None:
    for arguments, line in REFUSED:
        ended = shop(*arguments)

        assert (ended.code, ended.out) == (1, ""), arguments
        assert ended.err.startswith(line), ended.err
        assert ended.err.count("\n") == 1


def test_a_database_that_does_not_answer_is_said_without_its_password(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHER_DATABASE_URL", "postgresql://me:geheim@127.0.0.1:1/shop")

    ended = run("segment", "list")

    assert ended.code == 1
    assert ended.err.startswith("DISPATCHER_DATABASE_URL: ")
    assert "geheim" not in ended.err


def test_the_unexpected_is_one_line_and_the_details_are_in_a_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("jane@people.example")

    monkeypatch.setattr("dispatcher.reports.list_runs", fail)

    ended = run("run", "list")

    log = tmp_path / "home" / "logs" / "cli.log"
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"unexpected ZeroDivisionError; the details are in {log}\n"
    assert "ZeroDivisionError" in log.read_text()
    assert "jane" not in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_debug_shows_the_traceback_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_LOG_LEVEL", "debug")
    monkeypatch.setattr("dispatcher.reports.list_runs", lambda *_, **__: 1 / 0)

    assert "Traceback" in run("run", "list").err


def test_wrong_settings_are_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_PORT", "many")

    ended = run("segment", "list")

    assert ended.code == 1
    assert ended.err.startswith("DISPATCHER_PORT: ")
