"""Decisions explained and simulated over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

from asking_web import is_problem, read
from small_workspace import write_workspace
from sqlalchemy import Engine, text
from web_server import Answer, Web

from dispatcher import api_keys, runs
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page
from dispatcher.tokens import UnsubscribeTokens
from dispatcher.workspace import read_workspace


def test_an_unsubscribed_person_is_explained_over_http(
    database: Engine, key_ring: KeyRing, web: Web, key: str, tmp_path: Path
) -> None:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "shop")), by="test")
        row = connection.execute(text("SELECT id, email_address_id FROM contact")).one()
        connection.execute(text("UPDATE contact SET country = 'GB'"))
    token = UnsubscribeTokens(key_ring).make(row.id, "email", "offers", row.email_address_id)
    assert web.ask("POST", f"/u/{token}", "List-Unsubscribe=One-Click").status == 200

    told = read(web, key, "/v1/explain?contact=c1&campaign=hello").json
    assert (told["verdict"], told["reason"]) == ("skip", "NO_CONSENT")
    assert "withdrawn" in json.dumps(told["gates"])
    assert is_problem(read(web, key, "/v1/explain?contact=nobody&campaign=hello"), 404)
    assert is_problem(read(web, key, "/v1/explain?contact=c1&campaign=other"), 404)
    assert is_problem(read(web, key, "/v1/explain?contact=c1"), 422)
    assert is_problem(read(web, key, "/v1/explain?contact=a%00b&campaign=hello"), 422)
    assert is_problem(read(web, key, "/v1/explain?contact=c1&campaign=hello&as_of=2026-01-01T00:00:00"), 422)


def test_a_past_run_is_explained_over_http(database: Engine, web: Web, key: str, tmp_path: Path) -> None:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "shop")), by="test")
        connection.execute(text("UPDATE contact SET country = 'GB'"))
        run_id = runs.start(connection, "hello", started_by="test")
    while plan_page(database, run_id):
        pass

    told = read(web, key, f"/v1/explain?contact=c1&campaign=hello&run={run_id}").json
    assert (told["verdict"], told["reason"], told["ledger"]["run"]) == ("skip", "NO_CONSENT", str(run_id))
    assert told["today"]["gates"][0]["gate"] == "OPERATOR"
    assert told["sentence"].startswith("c1 did not get hello in the run of ")
    assert is_problem(read(web, key, f"/v1/explain?contact=c1&campaign=hello&run={uuid4()}"), 404)
    assert is_problem(read(web, key, "/v1/explain?contact=c1&campaign=hello&run=latest"), 422)


def test_a_campaign_is_simulated_over_http_by_whoever_may(database: Engine, web: Web, tmp_path: Path) -> None:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "shop")), by="test")
        connection.execute(text("UPDATE contact SET country = 'GB'"))
        planner = api_keys.create(connection, "planner", ["campaigns:read"])
        supporter = api_keys.create(connection, "supporter", ["explain:read"])

    def ask(path: str, bearer: str = planner) -> Answer:
        return web.ask("POST", path, headers={"Authorization": f"Bearer {bearer}"})

    told = ask("/v1/campaigns/hello/simulate").json
    assert (told["audience"], told["skip"]) == (1, {"NO_CONSENT": 1})
    assert told["warnings"] == ["nobody would get it: the funnel says why"]
    assert ask("/v1/campaigns/hello/simulate?as_of=2026-12-01T10:00:00Z").json["as_of"] == "2026-12-01T10:00:00.000000Z"
    assert is_problem(ask("/v1/campaigns/hello/simulate?as_of=2026-12-01T10:00:00"), 422)
    assert is_problem(ask("/v1/campaigns/nothing/simulate"), 404)
    assert is_problem(ask("/v1/campaigns/hello/simulate", supporter), 403)
    assert is_problem(web.ask("POST", "/v1/campaigns/hello/simulate"), 401)
    assert is_problem(read(web, planner, "/v1/campaigns/hello/simulate"), 405)
