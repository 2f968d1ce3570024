"""The command line against a real database: what it prints where, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import typer.main
from ledger_rows import add_message
from name_server import name_server
from people import add_person
from small_workspace import FILES, write_workspace
from sqlalchemy import Engine, TextClause, text

from dispatcher import cli, replies
from dispatcher.feedback.inbox import Mail
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture
def environment(
    database_url: str, tmp_path: Path, key_ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """The settings of these commands: this test's database and home, in a workspace folder of its own."""
    for name in [name for name in os.environ if name.startswith("DISPATCHER_")]:
        monkeypatch.delenv(name)
    settings = {
        "DISPATCHER_DATABASE_URL": database_url,
        "DISPATCHER_BROKER_URL": "redis://127.0.0.1:1",  # nobody is there: no command here needs it
        "DISPATCHER_HOME": str(tmp_path / "home"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(write_workspace(tmp_path / "workspace"))
    handlers = list(logging.getLogger().handlers)
    yield settings
    logging.captureWarnings(capture=False)
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def run(environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command in this process; what it raises would be a traceback for the user."""

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        code = cli.run(list(arguments))
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def shop(run: Run, database: Engine, key_ring: KeyRing) -> Run:
    """The small workspace, applied, and three people: one agreed, one did not, one has no address."""
    assert run("apply").code == 0
    with database.begin() as connection:
        add_person(connection, key_ring, "agreed")
        add_person(connection, key_ring, "silent", granted=())
        add_person(connection, key_ring, "mailless", email=None)
    return run


def audited(database: Engine) -> list[tuple[str, str]]:
    with database.connect() as connection:
        return [(row.action, row.subject) for row in connection.execute(text("SELECT * FROM audit ORDER BY id"))]


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


# --- how commands end


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


# --- what commands do


def test_a_new_workspace_can_be_applied_as_it_is(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new"

    assert run("init", str(folder)).out == f"{folder}\n"
    ended = run("apply", str(folder), "--json")

    assert ended.code == 0
    assert {change["action"] for change in ended.json} == {"added"}
    assert {change["action"] for change in run("apply", str(folder), "--json").json} == {"unchanged"}


def test_apply_names_every_mistake_and_changes_nothing(run: Run, database: Engine) -> None:
    Path("campaigns/hello.yaml").write_text(FILES["campaigns/hello.yaml"].replace("everybody", "nobody"))
    Path("segments/fans.yaml").write_text("name: fans\n")

    ended = run("apply")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.splitlines() == [
        "campaigns/hello.yaml:3: segment: there is no segments/nobody",
        "segments/fans.yaml:1: match: is missing",
    ]
    assert audited(database) == []


def test_segments_are_counted_and_sampled_as_of_an_instant(shop: Run) -> None:
    counted = shop("segment", "count", "everybody", "--as-of", "2026-12-01T12:00:00+02:00", "--json")
    assert counted.json == {"segment": "everybody", "as_of": "2026-12-01T10:00:00.000000Z", "count": 3}
    assert shop("segment", "count", "everybody").out == "3\n"
    assert (
        shop("segment", "count", "everybody", "--as-of", "2026-12-01", "--json").json["as_of"][:19]
        == "2026-12-01T00:00:00"
    )
    sampled = shop("segment", "sample", "everybody", "--json").json["contacts"]
    assert sorted(sampled) == ["agreed", "mailless", "silent"]
    assert shop("segment", "list", "--json").json == [
        {"segment": "everybody", "version": 1, "campaigns": ["hello"]},
        {"segment": "fans", "version": 1, "campaigns": ["christmas"]},
    ]


def test_a_simulation_speaks_of_everybody_and_writes_nothing(shop: Run, database: Engine) -> None:
    found = shop("campaign", "simulate", "hello", "--json").json

    funnel = {name: found[name] for name in ("audience", "send", "defer", "skip")}
    assert funnel == {"audience": 3, "send": 1, "defer": {}, "skip": {"NO_CONSENT": 1, "NO_ADDRESS": 1}}
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message")) == 0
    assert "NO_CONSENT" in shop("campaign", "simulate", "hello").out


def test_a_campaign_starts_pauses_resumes_and_is_cancelled(shop: Run, database: Engine) -> None:
    started = shop("campaign", "start", "hello", "--yes")
    run_id = started.out.strip()

    assert (started.code, len(run_id)) == (0, 36)
    assert "less than 24 h ago" in shop("campaign", "start", "hello", "--yes").err
    assert shop("campaign", "start", "hello", "--yes", "--again").code == 0
    shown = shop("run", "show", run_id, "--json").json
    assert (shown["run"], shown["campaign"], shown["state"], shown["audience"]) == (run_id, "hello", "planning", 3)
    assert (shown["status"], shown["reasons"], shown["not_yet_planned"]) == ({}, {}, 3)

    for command, argument, state in (
        ("pause", "hello", "paused"),
        ("resume", run_id, "planning"),
        ("cancel", "hello", "cancelled"),
    ):
        ended = shop("campaign", command, argument, *(["--yes"] if command == "cancel" else []))
        assert ended.code == 0, ended.err
        assert shop("run", "show", run_id, "--json").json["state"] == state
    assert {run["state"] for run in shop("run", "list", "--json").json} == {"cancelled"}
    assert [action for action, _ in audited(database)][-5:] == [
        "run.paused", "run.paused", "run.running", "run.cancelled", "run.cancelled",
    ]  # fmt: skip


def test_cancelling_asks_first(shop: Run) -> None:
    shop("campaign", "start", "hello", "--yes")

    ended = shop("campaign", "cancel", "hello")

    assert ended.code == 1
    assert ended.err.endswith("say --yes\n")


def test_an_export_is_csv_on_stdout_or_in_a_file(shop: Run, tmp_path: Path) -> None:
    shop("campaign", "start", "hello", "--yes")

    out = shop("run", "export", "latest").out
    assert shop("run", "export", "latest", "--to", str(tmp_path / "run.csv")).out == ""

    assert next(csv.reader(io.StringIO(out)))[:4] == ["message_id", "run", "campaign", "contact"]
    assert (tmp_path / "run.csv").read_text() == out
    refused = shop("run", "export", "latest", "--to", str(tmp_path / "no" / "run.csv"))
    assert (refused.code, refused.err.count("\n")) == (1, 1)


def test_explain_says_it_in_a_sentence_and_as_json(shop: Run) -> None:
    found = shop("explain", "silent", "hello", "--json").json

    assert (found["verdict"], found["reason"], found["until"]) == ("skip", "NO_CONSENT", None)
    assert {"gate", "verdict", "facts"} <= set(found["gates"][0])
    assert found["as_of"].endswith("Z")
    said = shop("explain", "silent", "hello").out.splitlines()
    assert said[0].startswith("silent would not get hello, judged at ")
    assert said[0].endswith(": there is no record that they agreed to offers (NO_CONSENT).")
    assert said[1] == "hello has never been run."
    assert shop("explain", "agreed@people.example", "hello").out.startswith("agreed would get hello now, judged at ")
    assert shop("explain", "agreed", "hello", "--as-of", "2026-12-01", "--json").json["as_of"][:10] == "2026-12-01"
    assert shop("explain", "agred", "hello").err == "there is no contact 'agred'; did you mean agreed?\n"


def test_explain_tells_first_what_became_of_them_in_the_last_run(shop: Run, database: Engine) -> None:
    run_id = shop("campaign", "start", "hello", "--yes").out.strip()
    plan_page(database, UUID(run_id))

    said = shop("explain", "silent", "hello").out.splitlines()
    assert said[0].startswith("silent did not get hello in the run of ")
    assert "(NO_CONSENT, decided on " in said[0]
    assert said[1].startswith("Now: silent would not get hello, judged at ")
    then = shop("explain", "silent", "hello", "--run", "latest").out
    assert f"decided then, in run {run_id}:" in then
    assert "today, if it ran again, judged at " in then
    found = shop("explain", "silent", "hello", "--run", run_id[:30], "--json").json
    assert (found["reason"], found["today"]["reason"]) == ("NO_CONSENT", "NO_CONSENT")
    assert (found["ledger"]["status"], found["run"]["state"]) == ("skipped", "running")


def test_a_simulation_shows_funnel_hours_and_what_to_mind(shop: Run) -> None:
    said = shop("campaign", "simulate", "hello").out

    assert said.startswith("hello: a start by hand, judged at ")
    assert re.search(r"^ audience +3 $", said, re.MULTILINE)
    assert re.search(r"^ hour \(UTC\) +Europe/London +leave +where they are", said, re.MULTILINE)
    assert re.search(r" █+ +1 +Europe/London 1 *$", said, re.MULTILINE)
    assert "1 would leave, the last at " in said
    assert shop("campaign", "simulate", "hello", "--as-of", "2026-12-01T10:00:00Z", "--json").json["timeline"] == [
        {
            "hour": "2026-12-01T10:00:00.000000Z", "local": "2026-12-01T10:00+00:00", "send": 1,
            "zones": {"Europe/London": 1},
        }
    ]  # fmt: skip


def test_a_lane_too_slow_for_a_campaign_refuses_its_start(shop: Run, database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("INSERT INTO lane (name, rate_per_second) VALUES ('email.marketing', 0.00000001)"))
        connection.execute(text("UPDATE lane SET theoretical_arrival_at = clock_timestamp() + interval '100 years'"))

    refused = shop("campaign", "start", "hello", "--yes")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("it cannot finish in time: 1 contact would expire before their turn, because lane ")
    assert refused.err.endswith("if you mean it all the same, add --even-unfinished\n")
    assert shop("campaign", "start", "hello", "--yes", "--even-unfinished").code == 0


def test_personal_data_is_masked_unless_it_is_revealed_and_that_is_audited(shop: Run, database: Engine) -> None:
    masked = shop("contact", "show", "agreed", "--json").json
    assert masked["email"] == "a•••@p•••.example"
    assert "contact.reveal" not in dict(audited(database))

    revealed = shop("contact", "show", "agreed", "--reveal", "--json").json
    assert revealed["email"] == "agreed@people.example"
    assert audited(database)[-1][0] == "contact.reveal"
    assert "agreed@people.example" not in shop("contact", "show", "agreed").out


def test_a_person_gets_everything_there_is_about_them_and_that_is_audited(shop: Run, database: Engine) -> None:
    told = shop("contact", "export", "agreed").out
    assert json.loads(told)["contact"]["email"] == "agreed@people.example"

    written = shop("contact", "export", "agreed", "--format", "html", "-o", "agreed.html")

    assert written.out == ""
    assert written.err == "agreed.html: 0 messages, 0 events, 1 consent evidence\n"
    page = Path("agreed.html")
    assert page.stat().st_mode & 0o777 == 0o600
    assert "agreed@people.example" in page.read_text(encoding="utf-8")
    assert [action for action, _ in audited(database)][-2:] == ["contact.export"] * 2
    assert "agreed@" not in str(audited(database))


def test_a_contact_is_corrected_and_the_audit_names_the_fields_only(shop: Run, database: Engine) -> None:
    done = shop("contact", "correct", "agreed", "--set", "email=New@People.example", "--set", "locale=pt-BR")
    assert (done.code, done.err) == (0, "changed: email, locale\n")

    told = shop("contact", "show", "agreed", "--reveal", "--json").json
    assert (told["email"], told["locale"]) == ("new@people.example", "pt-BR")
    assert shop("consent", "show", "agreed", "--json").json[0]["for_present_address"] is False
    [entry] = shop("audit", "list", "--action", "contact.correct", "--json").json
    assert entry["details"] == {"fields": ["email", "locale"]}
    assert shop("contact", "correct", "agreed", "--set", "locale=pt-BR").err == "unchanged: locale\n"
    assert shop("contact", "correct", "agreed", "--set", "locale=").err == "changed: locale\n"
    assert shop("contact", "show", "agreed", "--json").json["locale"] is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("shoe=44", "a contact has no field shoe; there are email, phone, first_name, last_name"),
        ("email=nobody", "email: is not an e-mail address"),
        ("zone=Nowhere", "timezone: is not a time zone"),
        (f"last_name={'B' * 201}", "last_name: is longer than 200 characters"),
    ],
)
def test_what_is_no_correction_is_refused(shop: Run, value: str, said: str) -> None:
    refused = shop("contact", "correct", "agreed", "--set", value)

    assert refused.code == 1
    assert refused.err.startswith(said)
    assert "nobody" not in refused.err


def test_a_person_is_erased_for_good_and_the_audit_has_the_proof(shop: Run) -> None:
    assert shop("contact", "erase", "agreed").err.endswith("Nobody is at a terminal to answer; say --yes\n")
    assert shop("contact", "show", "agreed", "--json").json["erasure"] is None

    assert shop("contact", "erase", "agreed", "--yes").err.startswith("erased at ")
    assert shop("contact", "erase", "agreed").err.startswith("erased at ")
    assert shop("contact", "erase", "agreed", "--json").json["state"] == "done"
    Path("proofs.json").write_text(shop("audit", "list", "--action", "erasure.done", "--json").out)
    again = shop("contact", "erase-again", "proofs.json", "--json").json
    assert again == {"proofs": 1, "erased": 0, "suppressed": 0, "in_progress": 0}

    told = shop("contact", "show", "agreed", "--json").json
    assert (told["erasure"]["state"], told["email"]) == ("done", None)
    actions = [entry["action"] for entry in shop("audit", "list", "--action", "erasure", "--json").json]
    assert actions == ["erasure.requested", "erasure.done"]
    assert "erasure.done" in shop("audit", "list", "--contact", "agreed").out


def test_an_erasure_waits_for_what_is_in_flight(shop: Run, database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.rights.finishing.LONGEST_WAIT", timedelta(0))
    with database.begin() as connection:
        row = connection.execute(
            text("SELECT id, email_address_id FROM contact WHERE external_id = 'agreed'")
        ).one()  # fmt: skip
        add_message(connection, row.id, row.email_address_id, status="sending")

    assert shop("contact", "erase", "agreed", "--yes").err.startswith("in progress")
    assert shop("contact", "show", "agreed", "--json").json["erasure"]["state"] == "in progress"
    with database.begin() as connection:
        connection.execute(text("UPDATE erasure SET requested_at = requested_at - interval '11 minutes'"))
        connection.execute(text("UPDATE campaign SET active = false WHERE definition = '{}'"))
    [erasures] = [check for check in shop("doctor", "--offline", "--json").json if check["name"] == "erasures"]
    assert (erasures["verdict"], erasures["detail"]) == ("look", "1 in progress, one of them for over 10 minutes")


def test_what_is_kept_too_long_is_shown_and_taken(shop: Run) -> None:
    told = shop("retention", "--dry-run", "--json").json
    assert told["dry_run"] is True
    assert {rule["name"]: rule["kept_days"] for rule in told["rules"]}["events"] == 1100
    assert shop("audit", "list", "--action", "retention", "--json").json == []

    assert "events of providers as they came" in shop("retention").out
    assert len(shop("audit", "list", "--action", "retention", "--json").json) == 1


def test_who_touches_the_audit_is_found(shop: Run, database: Engine) -> None:
    whole = shop("audit", "verify")
    assert whole.code == 0
    assert "each as it was written; the newest link is " in whole.out
    told = shop("audit", "verify", "--json").json
    assert (told["ok"], told["not_linked"], told["findings"]) == (True, 0, [])

    with database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE audit SET actor = 'somebody else' WHERE id = 1"))

    assert shop("audit", "verify").out == "audit entry 1 was changed after it was linked\n"
    assert shop("audit", "verify").code == 1
    assert shop("verify").code == 1


def test_a_contacts_pause_and_quiet_hours_are_shown(shop: Run, database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(
            text("""UPDATE contact SET paused_until = '2100-01-01Z', quiet_hours =
                    '[{"hours": "22:00-08:00", "days": ["mon", "tue"]}, {"hours": "00:00-24:00", "days": ["sun"]}]'
                    WHERE external_id = 'agreed'""")
        )

    assert shop("contact", "show", "agreed", "--json").json["quiet_hours"] == ["22:00-08:00 mon tue", "00:00-24:00 sun"]
    assert "2100-01-01" in shop("contact", "show", "agreed").out
    assert "22:00-08:00 mon tue; 00:00-24:00 sun" in shop("contact", "show", "agreed").out
    assert shop("contact", "show", "silent", "--json").json["quiet_hours"] == []


def test_consent_is_shown_granted_and_withdrawn_for_good(shop: Run, database: Engine) -> None:
    def states(contact: str) -> dict[str, str]:
        return {held["topic"]: held["state"] for held in shop("consent", "show", contact, "--json").json}

    assert shop("consent", "grant", "silent", "--topic", "offers", "--source", "paper form").code == 0
    assert states("silent") == {"offers": "granted"}
    assert shop("explain", "silent", "hello", "--json").json["verdict"] == "send"

    assert shop("consent", "withdraw", "silent", "--source", "phone call").code == 0
    assert states("silent") == {"offers": "withdrawn", "letters": "withdrawn"}
    refused = shop("consent", "grant", "silent", "--topic", "offers")
    assert refused.code == 1
    assert "only their own later act can grant it again" in refused.err
    assert states("silent")["offers"] == "withdrawn"
    assert [action for action, _ in audited(database)][-2:] == ["consent.grant", "consent.withdraw"]


def test_a_purchase_is_granted_until_it_expires_where_the_topic_accepts_it(shop: Run) -> None:
    bought = ("consent", "grant", "silent", "--topic", "offers", "--basis", "implied_purchase", "--source", "order 7")
    refused = shop(*bought, "--since", "2026-01-31")
    assert (refused.code, "does not accept implied_purchase" in refused.err) == (1, True)

    toml = Path("dispatcher.toml")
    toml.write_text(toml.read_text().replace("[topics.offers]", '[topics.offers]\nbases = ["implied_purchase"]'))
    assert shop("apply").code == 0
    assert "until 2028-01-31" in shop(*bought, "--since", "2026-01-31").err
    assert shop("explain", "silent", "hello", "--json").json["verdict"] == "send"
    [gate] = [
        gate
        for gate in shop("explain", "silent", "hello", "--as-of", "2028-01-31", "--json").json["gates"]
        if gate["gate"] == "NO_CONSENT"
    ]
    assert (gate["verdict"], gate["facts"]["because"]) == ("skip", "no longer in force")
    assert (gate["facts"]["basis"], gate["facts"]["expires_at"]) == ("implied_purchase", "2028-01-31T00:00:00.000000Z")


def test_a_request_needs_something_to_ask_with_and_then_waits(shop: Run, database: Engine) -> None:
    assert "add it to templates/" in shop("consent", "request", "silent", "--topic", "letters").err

    folder = Path("templates/email/opt-in-confirmation")
    folder.mkdir()
    for name, content in {
        "meta.yaml": "class: transactional\n", "subject.txt": "Sure?\n", "body.txt": "Yes: {{ confirm_url }}\n"
    }.items():  # fmt: skip
        (folder / name).write_text(content)
    assert shop("apply").code == 0
    asked = shop("consent", "request", "silent", "--topic", "letters", "--source", "phone")
    assert (asked.code, asked.out) == (0, "pending: letters on email\n")
    again = shop("consent", "request", "silent", "--topic", "letters")
    assert again.code == 0
    assert "nothing is sent: a confirmation was asked for less than 24 hours ago" in again.err
    assert "/d/preview" in shop("template", "preview", "opt-in-confirmation", "silent").out
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message")) == 1


def test_the_evidence_is_exported_as_a_private_page_and_as_json(shop: Run, tmp_path: Path) -> None:
    page = tmp_path / "evidence.html"
    page.write_text("an older one")
    page.chmod(0o644)

    assert shop("consent", "export", "agreed", "--html", str(page)).code == 0
    assert page.stat().st_mode & 0o777 == 0o600
    assert "agreed@people.example" in page.read_text()
    assert shop("consent", "export", "agreed").out.startswith("<!doctype html>")
    exported = shop("consent", "export", "agreed", "--json").json
    assert exported["chain"]["verified"] is True
    assert [event["action"] for event in exported["events"]] == ["granted"]
    assert shop("consent", "export", "nobody").code == 1
    assert "cannot be written" in shop("consent", "export", "agreed", "--html", str(tmp_path)).err


def test_who_has_no_address_can_still_withdraw(shop: Run) -> None:
    assert shop("consent", "withdraw", "mailless", "--topic", "offers").code == 0
    assert [held["state"] for held in shop("consent", "show", "mailless", "--json").json] == ["withdrawn"]
    assert "has no address for email" in shop("consent", "grant", "mailless", "--topic", "letters").err


def test_an_address_is_suppressed_and_let_go(shop: Run) -> None:
    assert shop("suppression", "add", "Agreed@People.Example").code == 0
    (listed,) = shop("suppression", "list", "--json").json
    assert (listed["channel"], listed["reason"], listed["scope"]) == ("email", "operator", "all")
    assert "people.example" not in shop("suppression", "list").out
    assert shop("explain", "agreed", "hello", "--json").json["reason"] == "SUPPRESSED"

    assert shop("suppression", "remove", "agreed@people.example").code == 0
    assert shop("suppression", "list", "--json").json == []
    assert shop("suppression", "remove", "agreed@people.example").code == 1


def test_templates_are_checked_and_previewed(shop: Run, database: Engine) -> None:
    checked = shop("template", "check", "--json")
    assert (checked.code, checked.json) == (0, {"errors": [], "warnings": []})
    previewed = shop("template", "preview", "christmas", "agreed", "--json").json
    assert previewed["subject"] == "For you"
    assert "Hello Firstagreed" in previewed["text"]
    assert ["List-Unsubscribe-Post", "List-Unsubscribe=One-Click"] in previewed["headers"]
    assert shop("template", "preview", "christmas", "agreed", "--html").out.startswith("<html")
    assert audited(database)[-1] == ("template.preview", "email/christmas")

    Path("templates/email/christmas/body.html").write_text("<html lang='en'><p>{{ contact.frist }}</p></html>")
    broken = shop("template", "check", "christmas")
    assert broken.code == 1
    assert broken.out.startswith("templates/email/christmas/body.html:1: contact.frist is not known")
    assert shop("template", "check", "order").code == 0
    assert shop("template", "check", "nothing").code == 1


def test_a_preview_takes_the_data_a_shop_would_send(shop: Run) -> None:
    Path("templates/email/order/body.html").write_text("<html lang='en'><p>Order {{ data.number }}</p></html>")
    Path("data.json").write_text('{"number": "A-1"}')
    shop("apply")

    assert "Order A-1" in shop("template", "preview", "order", "agreed", "--data", "data.json").out
    assert shop("template", "preview", "order", "agreed", "--data", "campaigns/hello.yaml").code == 1


def test_a_test_message_goes_through_the_provider(shop: Run, database: Engine, tmp_path: Path) -> None:
    assert shop("template", "send", "christmas", "--to", "me@people.example").code == 0

    (line,) = (tmp_path / "home" / "sandbox" / "outbox.jsonl").read_text().splitlines()
    sent = json.loads(line)
    assert (sent["to"], sent["subject"], sent["run"]) == ("me@people.example", "For you", None)
    assert audited(database)[-1] == ("template.send", "email/christmas")
    assert shop("template", "send", "christmas", "--to", "nonsense").code == 1


def test_files_come_in_with_a_report_and_what_is_set_aside(shop: Run, database: Engine) -> None:
    Path("people.csv").write_text(
        "Kunde,E-Mail,email_consent,email_consent_at\nk1,k1@people.example,subscribed,2026-01-02T03:04:05Z\nk2,nonsense,,\n"
    )
    Path("events.jsonl").write_text(
        '{"source_key": "1", "contact": "k1", "name": "order.placed", "occurred_at": "2026-01-03T00:00:00Z",'
        ' "items": [{"interest": "christmas"}]}\nnonsense\n'
    )

    came = shop("import", "contacts", "people.csv", "--map", "Kunde=contact_id", "--map", "E-Mail=email", "--json")
    assert came.code == 0
    assert came.json["created"] >= 1
    assert came.json["read"] == 2
    events = shop("import", "events", "events.jsonl", "--json")
    assert (events.code, events.json["new"], events.json["rejected"]) == (0, 1, 1)
    assert "set aside, with line and reason: events.rejected.csv" in events.err
    assert "not JSON" in Path("events.rejected.csv").read_text()
    assert shop("segment", "count", "fans").out == "1\n"
    assert [action for action, _ in audited(database)][-2:] == ["contacts.import", "events.import"]


def test_contacts_need_the_shop_s_topics_first(run: Run) -> None:
    Path("people.csv").write_text("contact_id\nk1\n")

    assert "dispatcher apply" in run("import", "contacts", "people.csv").err


def test_a_key_is_shown_once(shop: Run) -> None:
    made = shop("key", "create", "backend", "--scope", "messages:write")
    assert made.out.startswith("dsp_")
    (listed,) = shop("key", "list", "--json").json
    assert (listed["name"], listed["scopes"], listed["revoked_at"]) == ("backend", ["messages:write"], None)
    assert shop("key", "revoke", "backend").code == 0
    assert shop("key", "list", "--json").json[0]["revoked_at"].endswith("Z")
    assert made.out.strip() not in shop("key", "list").out


def test_a_key_gets_a_new_secret_a_limit_and_an_end(shop: Run) -> None:
    made = shop("key", "create", "backend", "--rate", "600", "--expires-after", "90d")
    rotated = shop("key", "rotate", "backend", "--grace", "2h")
    (listed,) = shop("key", "list", "--json").json

    assert rotated.out.startswith("dsp_")
    assert rotated.out != made.out
    assert "the old secret opens for 2h more" in rotated.err
    assert listed["requests_per_minute"] == 600
    assert listed["expires_at"] > listed["previous_until"] > listed["created_at"]
    assert shop("key", "rotate", "backend", "--grace", "soon").code == 2
    assert shop("key", "create", "other", "--expires-after", "0s").code == 1


def test_the_brake_holds_until_it_is_lifted(shop: Run) -> None:
    shop("stop-all")
    assert shop("explain", "agreed", "hello", "--json").json["reason"] == "OPERATOR"
    assert "nothing leaves until dispatcher go-on" in shop("doctor").out.replace("\n", " ")

    shop("go-on")
    assert shop("explain", "agreed", "hello", "--json").json["verdict"] == "send"


def test_verify_ends_with_one_if_a_promise_is_broken(shop: Run, database: Engine) -> None:
    sound = shop("verify", "--json")
    assert (sound.code, sound.json["ok"]) == (0, True)

    shop("campaign", "start", "hello", "--yes")
    with database.begin() as connection:
        connection.execute(text("UPDATE run SET audience = audience + 1"))
    broken = shop("verify")
    assert broken.code == 1
    assert "INV-2" in broken.out


def test_the_doctor_finds_what_is_wrong(run: Run) -> None:
    found = {check["name"]: check["verdict"] for check in run("doctor", "--json").json}

    assert (found["database"], found["keys"], found["workspace"], found["broker"]) == ("ok", "ok", "look", "wrong")
    assert run("doctor").code == 1  # the broker does not answer


def test_the_doctor_says_what_to_do_about_what_it_finds(shop: Run, database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE campaign SET fire_error = 'no segment fans' WHERE name = 'hello'"))
    found = {check["name"]: check for check in shop("doctor", "--offline", "--json").json}

    assert found["schedules"]["verdict"] == "wrong"
    assert "hello cannot be fired: no segment fans" in found["schedules"]["detail"]
    assert found["postal address"]["verdict"] == "ok"
    assert found["secret keys"]["verdict"] == "ok"
    assert all(check["to_do"] for check in found.values() if check["verdict"] == "wrong")
    assert "tried again by itself" in " ".join(shop("doctor", "--offline").out.split())


def test_offline_the_doctor_asks_nobody(shop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it went to the network")

    monkeypatch.setattr("dispatcher.doctor.look_side_by_side", refuse)
    found = {check["name"]: check["verdict"] for check in shop("doctor", "--offline", "--json").json}

    assert found["network"] == "ok"
    assert "SPF" not in found


def test_the_doctor_asks_the_name_server_it_is_told_about_the_senders_domain(
    shop: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"name": "sender", "verdict": "look"}.items() <= next(
        check for check in shop("doctor", "--json").json if check["name"] == "sender"
    ).items()  # small.example is nobody's, and is not asked for

    monkeypatch.setenv("DISPATCHER_FROM_EMAIL", "hello@shop-of-ours.eu")
    texts = {"shop-of-ours.eu": "v=spf1 ip4:192.0.2.1 -all", "_dmarc.shop-of-ours.eu": "v=DMARC1; p=none"}
    with name_server(texts) as dns:
        found = {check["name"]: check for check in shop("doctor", "--nameserver", dns.address, "--json").json}

    assert (found["SPF"]["verdict"], found["DMARC"]["verdict"], found["MX"]["verdict"]) == ("ok", "look", "look")
    assert found["email provider"]["detail"] == "the sandbox reaches nobody"


def test_the_doctor_looks_at_a_mail_that_was_received(run: Run, tmp_path: Path) -> None:
    (tmp_path / "received.eml").write_text("From: hello@shop.test\nSubject: Hi\n\nHello")
    looked = run("doctor", "--mail", str(tmp_path / "received.eml"), "--offline")

    assert looked.code == 1
    assert "the mail is not signed" in looked.out
    assert run("doctor", "--mail", str(tmp_path / "nothing.eml")).err.count("\n") == 1


def test_migrating_twice_does_nothing(run: Run) -> None:
    first = run("migrate")

    assert first.code == 0
    assert run("migrate").err == first.err


# --- as a process


def process(environment: dict[str, str], *arguments: str, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from dispatcher.cli import main; main()", *arguments]
    return subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def test_help_is_there_at_once() -> None:
    began = time.monotonic()
    imports = """import sys, dispatcher.cli
dispatcher.cli.run(["--help"])
print([name for name in ("sqlalchemy", "pydantic", "fastapi") if name in sys.modules])"""
    shown = subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, check=True)

    assert shown.stdout.rstrip().endswith("[]"), "help imports what only commands need"
    assert time.monotonic() - began < 10


def test_whoever_reads_only_the_beginning_leaves_no_traceback(shop: Run, environment: dict[str, str]) -> None:
    shop("campaign", "start", "hello", "--yes")
    running = process(environment, "run", "export", "latest")
    assert running.stdout is not None
    running.stdout.close()

    _, err = running.communicate(timeout=30)

    assert err == ""


def _holds(database: Engine, question: TextClause) -> bool:
    with database.connect() as connection:  # each transaction sees the activity as it was when it first looked
        return bool(connection.scalar(question))


def test_an_interrupt_ends_with_130(shop: Run, environment: dict[str, str], database: Engine) -> None:
    with database.begin() as connection:  # the command waits for this lock
        connection.execute(text("LOCK TABLE run"))
        running = process(environment, "run", "list")
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        deadline = time.monotonic() + 30
        while not _holds(database, waiting):
            assert time.monotonic() < deadline, "the command did not get as far as the lock"
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)

    assert running.returncode == 130
    assert err == "interrupted\n"


def test_bounces_come_in_and_texts_are_reviewed(run: Run, database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    (tmp_path / "bounces.json").write_text('[{"email": "a@b.example", "status": "550", "reason": "550 5.1.1 no"}]')
    assert run("import", "bounces", str(tmp_path / "bounces.json"), "--json").json["reports"] == {"bounced (hard)": 1}
    assert run("import", "bounces", str(tmp_path / "nothing")).code == 1

    form = b"MessageSid=SM1&From=%2B447700900123&Body=please+stop+texting+me"
    replies.take(database, key_ring, Mail("twilio.inbound", form, "", "", datetime.now(UTC)))
    [waiting] = run("review", "list", "--json").json
    assert waiting["text"] == "please stop texting me"
    assert "please stop" in run("review", "list").out

    assert run("review", "settle", str(waiting["id"])).code == 2
    assert run("review", "settle", str(waiting["id"]), "--not-stop").code == 0
    again = run("review", "settle", str(waiting["id"]), "--stop")
    assert (again.code, again.err.strip()) == (1, f"reply {waiting['id']} was reviewed already: not_stop")
    assert run("suppression", "list", "--json").json[0]["reason"] == "hard_bounce"
