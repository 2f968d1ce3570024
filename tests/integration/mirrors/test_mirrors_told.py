"""When it is compared, what the commands tell of it, and what a person's export shows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from mirroring import ANA, House
from sqlalchemy import text
from standin_lists import GROUP
from standins import StandIn

from dispatcher import cli
from dispatcher.mirrors import mirror_when_due
from dispatcher.rights import export_contact


def test_it_is_compared_once_a_day(house: House) -> None:
    assert mirror_when_due(house.database, house.key_ring, house.provider) is not None
    assert mirror_when_due(house.database, house.key_ring, house.provider) is None
    with house.database.begin() as connection:
        left = connection.scalar(text("SELECT reconcile_at - clock_timestamp() FROM mirror"))
        assert left is not None
        assert timedelta(hours=23) < left <= timedelta(hours=24)
        connection.execute(text("UPDATE mirror SET reconcile_at = clock_timestamp()"))
    assert mirror_when_due(house.database, house.key_ring, house.provider) is not None


@pytest.fixture
def run(house: House, api: StandIn, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:  # fmt: skip
    """Run a command of an installation that sends through SendGrid."""
    for name in [name for name in os.environ if name.startswith("DISPATCHER_")]:
        monkeypatch.delenv(name)
    settings = {"DATABASE_URL": database_url, "BROKER_URL": "redis://127.0.0.1:1", "HOME": str(tmp_path / "home"),
                "EMAIL_PROVIDER": "sendgrid", "SENDGRID_API_KEY": "SG.secret", "SENDGRID_URL": api.url,
                "SENDGRID_UNSUBSCRIBE_GROUP": str(GROUP), "PUBLIC_URL": "https://shop.example"}  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(f"DISPATCHER_{name}", value)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return (cli.run(list(arguments)), *capsys.readouterr())

    return run


def test_the_commands_compare_and_tell_what_was_different(
    house: House, run: Callable[..., tuple[int, str, str]]
) -> None:
    house.person("ana")
    house.lists.put("unsubscribes", ANA)

    code, out, err = run("suppression", "mirror", "--dry-run")
    assert (code, err) == (0, "nothing was changed\n")
    assert "taken_in" in out
    assert house.reasons(ANA) == set()

    assert run("suppression", "differences")[2] == "nothing was compared yet\n"
    code, out, _ = run("suppression", "mirror", "--json")
    assert json.loads(out) == {"sendgrid": {"unsubscribes": {"taken_in": 1}}}
    told = json.loads(run("suppression", "differences", "--json")[1])
    assert told["complete"]
    assert [(one["list"], one["what"], one["contact"]) for one in told["differences"]] == [
        ("unsubscribes", "taken_in", "ana")
    ]
    assert ANA not in run("suppression", "differences")[1]


def test_without_a_provider_that_has_lists_the_command_says_so(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHER_EMAIL_PROVIDER", "sandbox")

    code, _, err = run("suppression", "mirror")

    assert code == 1
    assert "no provider that is configured" in err


def test_the_export_of_a_person_shows_on_which_lists_we_put_them_and_what_was_taken_back(house: House) -> None:
    ana = house.person("ana")
    house.suppress(ANA, "operator")
    house.push()
    house.suppress(ANA, "hard_bounce")
    house.lift(ANA, "hard_bounce")

    with house.database.connect() as connection:
        told = export_contact(connection, house.key_ring, ana)

    assert {(one["list"], one["is_about_to_change"]) for one in told["provider_lists"]} == {
        ("unsubscribes", True), ("group", True)
    }  # fmt: skip
    assert [one["reason"] for one in told["suppressions_lifted"]] == ["hard_bounce"]
