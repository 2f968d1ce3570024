"""Why somebody got it or did not, from the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from asked import NOON, _sent, gate
from crowd import plan
from ledger import Ledger, make_ledger
from people import add_person, say
from sqlalchemy import Engine, text

from dispatcher import db, runs
from dispatcher.errors import NotFound, Refused
from dispatcher.explain import explain
from dispatcher.keys import KeyRing
from dispatcher.places import TZDATA_VERSION


def test_a_past_run_is_told_from_the_ledger_and_today_stands_beside(shop: Engine, key_ring: KeyRing, ask: Any) -> None:
    with shop.begin() as connection:
        add_person(connection, key_ring, "late", granted=())
    run_id = plan(shop, "hello")
    with shop.begin() as connection:
        contact_id = connection.scalar(text("SELECT id FROM contact WHERE external_id = 'late'"))
        say(connection, key_ring, contact_id, [("email", "offers", "granted")])
    found = ask("late", run=run_id)

    assert (found["verdict"], found["reason"]) == ("skip", "NO_CONSENT")
    assert found["sentence"].startswith(
        "late did not get hello in the run of 7 May 2030 at 12:00 UTC: there is no record"
    )
    assert "(NO_CONSENT, decided on 7 May 2030 at 12:00 UTC)." in found["sentence"]
    verdicts = {one["gate"]: one["verdict"] for one in found["gates"]}
    assert (verdicts["SUPPRESSED"], verdicts["NO_CONSENT"], verdicts["CAPPED"]) == ("send", "skip", "not asked")
    assert gate(found, "NO_CONSENT")["facts"]["because"] == "never granted"
    assert found["today"]["verdict"] == "send", "today's facts decide of today only"
    assert found["ledger"]["tzdata"] == TZDATA_VERSION
    assert found["run"]["run"] == run_id


def test_what_was_sent_shows_when_it_left_and_how_it_ended(shop: Engine, ask: Any) -> None:
    _sent(shop, "hello", NOON)
    found = ask("agreed", run=ask("agreed")["run"]["run"])

    assert found["sentence"] == "agreed was sent hello on 7 May 2030 at 12:00 UTC, and sandbox accepted it."
    assert (found["verdict"], found["reason"]) == ("send", None)
    assert found["ledger"]["handed_over_at"] == found["ledger"]["settled_at"] == NOON
    assert {one["verdict"] for one in found["gates"]} == {"send"}


def test_a_paused_run_says_what_lets_it_go_on(shop: Engine, ask: Any) -> None:
    run_id = plan(shop, "hello")
    with shop.begin() as connection:
        runs.pause(connection, run_id, by="test")

    assert "paused the run, until somebody runs dispatcher campaign resume" in ask("agreed")["ledger_sentence"]
    found = ask("agreed", run=run_id)
    assert found["sentence"] == ask("agreed")["ledger_sentence"]
    assert (found["verdict"], found["reason"], found["until"]) == ("defer", "OPERATOR", None)
    assert gate(found, "OPERATOR")["facts"] == {"run": "paused"}
    assert gate(found["today"], "OPERATOR")["facts"] == {"engine_stopped": False}, "a run of today would be a new one"


def test_a_run_that_is_not_planned_yet_has_them_in_its_audience(shop: Engine, ask: Any) -> None:
    with shop.begin() as connection:
        run_id = runs.start(connection, "hello", started_by="test")

    found = ask("agreed", run=run_id)
    assert (found["verdict"], found["reason"]) == ("defer", None)
    assert "in the audience of hello" in found["sentence"]
    with shop.begin() as connection:
        runs.pause(connection, run_id, by="test")
    found = ask("agreed", run=run_id)
    assert (found["verdict"], found["reason"]) == ("defer", "OPERATOR")
    assert found["sentence"].endswith("has not been decided on yet, and the run is paused.")


def test_a_missed_occurrence_was_sent_to_nobody(shop: Engine, ask: Any) -> None:
    with shop.begin() as connection:
        run_id = runs.fire(
            connection, "hello", occurrence_key="o", nominal_at=NOON, now=NOON, started_by="schedule", missed=True
        )
    found = ask("agreed", run=run_id)

    assert (found["verdict"], found["reason"]) == ("skip", "LATE")
    assert "its hour had passed, and it was sent to nobody" in found["sentence"]


@pytest.mark.parametrize("year", [1, 1900, 9999])
def test_an_instant_centuries_away_is_refused(ask: Any, year: int) -> None:
    with pytest.raises(Refused, match=f"in the year {year}; choose one from 1970 to 2200"):
        ask("agreed", as_of=datetime(year, 1, 1, tzinfo=UTC))


def test_who_came_after_the_audience_was_frozen_is_told_so(shop: Engine, key_ring: KeyRing, ask: Any) -> None:
    run_id = plan(shop, "hello")
    with shop.begin() as connection:
        add_person(connection, key_ring, "german", country="DE")
    found = ask("german", run=run_id)

    assert (found["verdict"], found["reason"], found["ledger"]) == ("skip", "NOT_IN_SEGMENT", None)
    assert "segment everybody did not mean them when its audience was frozen on 7 May 2030" in found["sentence"]


def test_a_cancelled_run_names_the_operator(shop: Engine, ask: Any) -> None:
    run_id = plan(shop, "hello")
    with shop.begin() as connection:
        runs.cancel(connection, run_id, by="test")
        runs.sweep(connection, NOON)

    assert "an operator cancelled it before it left (OPERATOR" in ask("agreed", run=run_id)["sentence"]


def test_a_retired_campaign_still_has_its_past(shop: Engine, ask: Any) -> None:
    run_id = plan(shop, "hello")
    with shop.begin() as connection:
        connection.execute(text("UPDATE campaign SET active = false WHERE name = 'hello'"))
    found = ask("agreed")

    assert found["today"] is None
    assert found["ledger"]["run"] == run_id
    with pytest.raises(NotFound, match="there is no campaign nothing"):
        ask("agreed", "nothing")


def test_a_run_of_another_campaign_or_of_none_is_refused(shop: Engine, ask: Any) -> None:
    run_id = plan(shop, "again")

    with pytest.raises(Refused, match="is of again, not of hello"):
        ask("agreed", run=run_id)
    with pytest.raises(NotFound, match="there is no run"):
        ask("agreed", run=uuid4())


def test_every_row_of_a_lived_in_ledger_has_its_sentence(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    lived: Ledger = make_ledger(database, key_ring, tmp_path)
    with db.reading(lived.database) as connection:
        rows = connection.execute(
            text("""SELECT r.name, r.id AS run, c.external_id, m.status, COALESCE(m.reason, m.deferred_reason) AS reason
                    FROM message m JOIN run r ON r.id = m.run_id JOIN contact c ON c.id = m.contact_id
                    WHERE r.kind = 'campaign' AND c.merged_into IS NULL""")
        ).all()
        told = [
            (row, explain(connection, key_ring, row.external_id, row.name, run=row.run)) for row in rows
        ]  # fmt: skip

    assert {row.status for row in rows} >= {"sent", "skipped", "failed", "unknown", "cancelled", "pending"}
    for row, found in told:
        assert found["ledger"]["status"] == row.status
        assert found["reason"] == row.reason
        assert found["sentence"].startswith((row.external_id, "Whether"))
        assert (row.reason or "") in found["sentence"]
        assert "None" not in found["sentence"]
