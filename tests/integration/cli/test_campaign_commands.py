"""Workspaces, segments, campaigns and runs on the command line."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from uuid import UUID

from running import Run, audited
from small_workspace import FILES
from sqlalchemy import Engine, text

from dispatcher.plan import plan_page


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
