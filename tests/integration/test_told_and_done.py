"""INV-18: what a simulation and an explanation say is what a run then does, for a crowd with every obstacle."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from crowd import external_ids, make_crowd, plan, set_clock
from sqlalchemy import Connection, Engine, text

from dispatcher import db, reports
from dispatcher.explain import explain
from dispatcher.gates import Reason
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page
from dispatcher.schedules import fire_due
from dispatcher.simulate import simulate

CAMPAIGNS = ("hello", "short", "texts", "local")


@pytest.fixture(params=[1, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (2, 3, 4))])
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def crowd(database: Engine, key_ring: KeyRing, tmp_path: Path, seed: int) -> Engine:
    make_crowd(database, key_ring, tmp_path, seed=seed)
    return database


def ledger(connection: Connection, run_id: object) -> dict[str, Any]:
    rows = connection.execute(
        text("""SELECT c.external_id, m.status, m.reason, m.deferred_reason, m.due_at FROM message m
                JOIN contact c ON c.id = m.contact_id WHERE run_id = :run"""),
        {"run": run_id},
    )
    return {row.external_id: row for row in rows}


def funnel_of(rows: dict[str, Any]) -> dict[str, Any]:
    """Return what the rows of a run say, in the simulation's words."""
    waits = [row.deferred_reason for row in rows.values() if row.status == "pending"]
    return {
        "audience": len(rows),
        "send": waits.count(None),
        "defer": dict(Counter(reason for reason in waits if reason)),
        "skip": dict(Counter(row.reason for row in rows.values() if row.status == "skipped")),
    }


@pytest.mark.parametrize("name", ["hello", "short", "texts"])
def test_what_is_told_before_a_start_is_what_the_run_then_plans(crowd: Engine, key_ring: KeyRing, name: str) -> None:
    with db.reading(crowd) as connection:
        simulated = simulate(connection, name).as_json()
        told = {who: explain(connection, key_ring, who, name) for who in external_ids(connection)}
    run_id = plan(crowd, name)

    with db.reading(crowd) as connection:
        rows = ledger(connection, run_id)
        report = reports.run_report(connection, run_id)
        then = {who: explain(connection, key_ring, who, name, run=run_id) for who in rows}
    assert {key: simulated[key] for key in ("audience", "send", "defer", "skip")} == funnel_of(rows)
    assert report["reasons"] == simulated["defer"] | simulated["skip"]
    for who, row in rows.items():
        expected = (told[who]["verdict"], told[who]["reason"])
        assert (then[who]["verdict"], then[who]["reason"]) == expected, (who, told[who]["sentence"])
        assert expected[1] == (row.reason or row.deferred_reason), who
        if row.deferred_reason is not None:
            assert then[who]["until"] == row.due_at
            # the spread over an opening is a run's own
            assert abs(told[who]["until"] - row.due_at) <= timedelta(minutes=30)
    for who in told.keys() - rows.keys():
        assert "NOT_IN_SEGMENT" in [gate["gate"] for gate in told[who]["gates"] if gate["verdict"] == "skip"]


def test_the_next_occurrence_at_a_local_hour_is_what_then_happens(crowd: Engine, key_ring: KeyRing) -> None:
    with db.reading(crowd) as connection:
        simulated = simulate(connection, "local")
        told = {who: explain(connection, key_ring, who, "local")["next_occurrence"] for who in external_ids(connection)}
    with crowd.begin() as connection:
        set_clock(connection, simulated.as_of)
    [run_id] = fire_due(crowd)
    while plan_page(crowd, run_id):
        pass

    with db.reading(crowd) as connection:
        rows = ledger(connection, run_id)
        occurrence = connection.scalar(text("SELECT occurrence_key FROM run WHERE id = :run"), {"run": run_id})
    found = simulated.as_json()
    assert simulated.occurrence == occurrence
    assert {key: found[key] for key in ("audience", "send", "defer", "skip")} == funnel_of(rows)
    for who, row in rows.items():
        assert told[who]["reason"] == (row.reason or row.deferred_reason), who
        assert told[who]["due_at"] == row.due_at or row.status != "pending" or row.deferred_reason, who
        assert told[who]["occurrence"] == occurrence


def test_everybody_is_in_the_timeline_or_told_why_not(crowd: Engine) -> None:
    with db.reading(crowd) as connection:
        simulated = [simulate(connection, name).as_json() for name in CAMPAIGNS]

    for found in simulated:
        in_time = sum(hour["send"] for hour in found["timeline"])
        assert in_time == found["leaves"]
        assert all(hour["send"] == sum(hour["zones"].values()) for hour in found["timeline"])
        assert found["send"] + sum(found["defer"].values()) + sum(found["skip"].values()) == found["audience"]
        assert in_time + sum(sum(found[end].values()) for end in ("never", "waiting", "skip")) == found["audience"]


def test_the_timeline_counts_whom_explain_says_is_eligible_in_that_hour(crowd: Engine, key_ring: KeyRing) -> None:
    with db.reading(crowd) as connection:
        found = simulate(connection, "texts").as_json()
        ends = [explain(connection, key_ring, who, "texts") for who in external_ids(connection)]
    inside = [end for end in ends if end["gates"][7]["verdict"] == "send"]
    hours = Counter(
        end["eligible"]["at"].replace(minute=0, second=0, microsecond=0) for end in inside if end["eligible"]["at"]
    )

    assert inside[0]["gates"][7]["gate"] == "NOT_IN_SEGMENT"
    assert {hour["hour"]: hour["send"] for hour in found["timeline"]} == dict(hours)
    assert sum(hours.values()) > 0


def test_the_crowd_has_every_obstacle_that_a_gate_can_meet(database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    make_crowd(database, key_ring, tmp_path, seed=1)
    met: set[str] = set()
    with db.reading(database) as connection:
        for name in CAMPAIGNS:
            told = simulate(connection, name)
            met |= {*told.skip, *told.defer}

    of_triggers = {Reason.FLOW_EXIT, Reason.SOURCE_STALE}
    of_elsewhere = {Reason.OPERATOR, Reason.NOT_IN_SEGMENT, Reason.LATE}
    after_the_gates = {Reason.RENDER_FAILED, Reason.REJECTED, Reason.PROVIDER_DROPPED, Reason.RATE}
    assert met == set(Reason) - of_triggers - of_elsewhere - after_the_gates
