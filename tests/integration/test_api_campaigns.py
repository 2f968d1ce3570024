"""Campaigns and runs over HTTP: the rules of `apply`, once per Idempotency-Key, and lists that hold still."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from people import add_person
from small_workspace import FILES, write_workspace
from sqlalchemy import Engine, text
from web_server import Answer, Web, serving

from dispatcher import api_keys, messages, suppression
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page
from dispatcher.workspace import read_workspace

LINK = '<a href="https://elsewhere.example/">there</a>'
DEFINITION = {"channel": "email", "topic": "offers", "segment": "fans", "template": "christmas", "holdout": "5%"}


@pytest.fixture
def web(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    elsewhere = {
        name.replace("/christmas/", "/elsewhere/"): content.replace("{{ contact.first_name }}", LINK)
        for name, content in FILES.items()
        if "/email/christmas/" in name
    }
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", elsewhere)), by="test")
        for number in range(5):
            add_person(connection, key_ring, f"c{number}")
    with serving(database, key_ring, tmp_path / "home") as web:
        yield web


@pytest.fixture
def key(database: Engine) -> str:
    with database.begin() as connection:
        return api_keys.create(connection, "shop", api_keys.SCOPES)


def ask(web: Web, key: str, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    sent = {"Authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        sent["Content-Type"] = "application/json"
    return web.ask(method, path, None if body is None else json.dumps(body), sent)


def start(web: Web, key: str, idempotency_key: str = "k1", body: Any = None, campaign: str = "hello") -> Answer:
    return ask(web, key, "POST", f"/v1/campaigns/{campaign}/runs", body, Idempotency_Key=idempotency_key)


def plan(database: Engine, run_id: str) -> None:
    from uuid import UUID

    while plan_page(database, UUID(run_id)):
        pass


def everything(web: Web, key: str, path: str) -> tuple[list[dict[str, Any]], int]:
    """Follow `next` to the end; return all items and how many pages they were."""
    items, pages = [], 0
    while path is not None:
        answer = ask(web, key, "GET", path)
        assert answer.status == 200, answer.text
        items += answer.json["items"]
        pages += 1
        path = answer.json["next"]
        assert (answer.header("Link") is None) == (path is None)
    return items, pages


def test_a_campaign_is_written_read_and_changed_under_its_version(database: Engine, web: Web, key: str) -> None:
    made = ask(web, key, "PUT", "/v1/campaigns/spring", DEFINITION, If_None_Match="*")
    read = ask(web, key, "GET", "/v1/campaigns/spring")
    changed = ask(web, key, "PUT", "/v1/campaigns/spring", read.json["definition"] | {"priority": 60}, If_Match='"1"')
    late = ask(web, key, "PUT", "/v1/campaigns/spring", DEFINITION, If_Match='"1"')

    assert (made.status, made.json["action"], made.header("ETag")) == (201, "added", '"1"')
    assert (read.json["definition"]["holdout"], read.json["definition"]["expires_after"]) == ("5%", "1d")
    assert (changed.status, changed.json["version"], changed.json["origin"]) == (200, 2, "api")
    assert late.status == 412
    assert ask(web, key, "PUT", "/v1/campaigns/spring", changed.json["definition"]).json["action"] == "unchanged"
    with database.connect() as connection:
        audited = connection.execute(text("SELECT action FROM audit WHERE actor = 'key:shop' ORDER BY id"))
        assert [row.action for row in audited] == ["campaign.added", "campaign.changed"]


def test_what_apply_refuses_is_refused_and_named(web: Web, key: str) -> None:
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({"segment": "fanz"}, "body.segment", "did you mean fans?"),
        ({"template": "order"}, "body.template", "only marketing templates"),
        ({"template": "nothing"}, "body.template", "there is no templates/email/nothing"),
        ({"topic": "nothing"}, "body.topic", "has no [topics.nothing]"),
        ({"channel": "sms", "topic": "letters"}, "body.topic", "is not a topic for sms"),
        ({"priority": 101}, "body.priority", "less than or equal to 100"),
        ({"priority": "50"}, "body.priority", "valid integer"),
        ({"holdout": 0.5}, "body.holdout", "write it like 5%"),
        ({"schedule": {"cron": "0 10 1 * mon", "zone": "Europe/London"}}, "body.schedule", "ambiguous"),
        ({"schedule": {"cron": "0 10 * * mon", "zone": "Mars/Base"}}, "body.schedule.zone", "not a time zone"),
        ({"template": "elsewhere", "track_clicks": True}, "body.track_clicks", "spring counts clicks"),
        ({"surprise": 1}, "body.surprise", "not permitted"),
        ({"name": "autumn"}, "body.name", "which the path says"),
    ]
    for change, field, says in wrong:
        answer = ask(web, key, "PUT", "/v1/campaigns/spring", DEFINITION | change)

        assert answer.status == 422, change
        assert any(one["field"] == field and says in one["message"] for one in answer.json["errors"]), answer.json
    assert ask(web, key, "GET", "/v1/campaigns/spring").status == 404


def test_a_campaign_written_here_outlives_a_workspace_without_it(
    database: Engine, web: Web, key: str, tmp_path: Path
) -> None:
    ask(web, key, "PUT", "/v1/campaigns/spring", DEFINITION)
    ask(web, key, "PUT", "/v1/campaigns/hello", DEFINITION)
    folder = write_workspace(tmp_path / "again", {"campaigns/christmas.yaml": None})
    with database.begin() as connection:
        changes = {c.name: c for c in apply(connection, read_workspace(folder), by="test") if c.kind == "campaign"}

    assert changes["christmas"].action == "retired"
    assert changes["hello"].note == "what was written over the API is replaced"
    assert ask(web, key, "GET", "/v1/campaigns/spring").status == 200
    assert ask(web, key, "DELETE", "/v1/campaigns/spring").status == 204
    assert ask(web, key, "DELETE", "/v1/campaigns/spring").status == 404


def test_a_campaign_does_not_take_the_name_of_a_trigger(database: Engine, web: Web, key: str, tmp_path: Path) -> None:
    trigger = "name: spring\non: cart\nkey: '{{ event.id }}'\nchannel: email\ntemplate: christmas\n"
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "t", {"triggers/spring.yaml": trigger})), by="t")

    assert ask(web, key, "PUT", "/v1/campaigns/spring", DEFINITION).status == 409


def test_a_simulation_is_wished_for_in_the_query_or_in_the_body(web: Web, key: str) -> None:
    path, at = "/v1/campaigns/hello/simulate", "2026-12-01T10:00:00Z"
    asked = ask(web, key, "POST", path, {"as_of": at, "by_hand": True})

    assert (asked.status, asked.json["as_of"]) == (200, "2026-12-01T10:00:00.000000Z")
    assert ask(web, key, "POST", f"{path}?as_of={at}").json["as_of"] == asked.json["as_of"]
    assert ask(web, key, "POST", f"{path}?as_of={at}", {"as_of": at}).status == 422
    assert ask(web, key, "POST", path, {"as-of": at}).status == 422
    assert ask(web, key, "POST", path, {"as_of": "2026-12-01T10:00:00"}).status == 422
    for number in (0, 9586639, "0", "1970"):  # no number passes for an instant
        assert ask(web, key, "POST", path, {"as_of": number}).status == 422
        assert ask(web, key, "POST", f"{path}?as_of={number}").status == 422
        assert ask(web, key, "GET", f"/v1/explain?contact=c1&campaign=hello&as_of={number}").status == 422
    assert web.ask("POST", path, b"as_of=x", {"Authorization": f"Bearer {key}"}).status == 415


def test_the_same_start_again_is_the_same_run(database: Engine, web: Web, key: str) -> None:
    first, again = start(web, key), start(web, key)
    other = start(web, key, body={"again": True})
    soon = start(web, key, "k2")
    meant = start(web, key, "k3", {"again": True})

    assert (first.status, first.header("Location")) == (202, f"/v1/runs/{first.json['run']}")
    assert (again.status, again.json) == (202, first.json)
    assert (other.status, "another request" in other.json["detail"]) == (409, True)
    assert (soon.status, "less than 24 h ago" in soon.json["detail"]) == (409, True)
    assert meant.json["run"] != first.json["run"]
    assert ask(web, key, "POST", "/v1/campaigns/hello/runs").status == 409  # without a key: by the rule of a day
    assert start(web, key, "k4", campaign="nothing").status == 404
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM run")) == 2


def test_racing_starts_with_one_key_are_one_run(database: Engine, web: Web, key: str) -> None:
    at_once = threading.Barrier(4)

    def ask_for(campaign: str) -> Answer:
        at_once.wait()
        return start(web, key, "race", campaign=campaign)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask_for, ["hello", "hello", "hello", "christmas"]))
    assert sorted(answer.status for answer in answers) in ([202, 202, 202, 409], [202, 409, 409, 409])
    assert len({answer.json["run"] for answer in answers if answer.status == 202}) == 1
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM run")) == 1


def test_a_start_that_its_lane_cannot_finish_is_refused(
    database: Engine, key_ring: KeyRing, web: Web, key: str, tmp_path: Path
) -> None:
    slow = {"dispatcher.toml": FILES["dispatcher.toml"] + '\n[rates."email.marketing"]\nper_second = 0.001\n',
            "campaigns/hello.yaml": FILES["campaigns/hello.yaml"] + "expires_after: 10m\n"}  # fmt: skip
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "slow", slow)), by="test")

    refused = start(web, key)
    assert (refused.status, "even-unfinished" in refused.json["detail"]) == (422, True)
    assert start(web, key, body={"even_unfinished": True}).status == 202


def test_a_run_is_paused_resumed_and_cancelled(web: Web, key: str) -> None:
    run = start(web, key).json["run"]

    def move(how: str) -> tuple[int, str | None]:
        answer = ask(web, key, "POST", f"/v1/runs/{run}/{how}")
        return answer.status, answer.json.get("state")

    assert [move("pause"), move("pause")] == [(200, "paused"), (200, "paused")]
    assert [move("resume"), move("resume")] == [(200, "planning"), (200, "planning")]
    assert [move("cancel"), move("cancel")] == [(200, "cancelled"), (200, "cancelled")]
    assert move("resume") == (409, None)
    assert ask(web, key, "POST", f"/v1/runs/{uuid4()}/pause").status == 404


def test_lists_are_read_to_their_end_page_by_page(database: Engine, key_ring: KeyRing, web: Web, key: str) -> None:
    runs = [start(web, key, f"k{number}", {"again": True}).json["run"] for number in range(5)]
    plan(database, runs[0])
    with database.begin() as connection:
        for number in range(3):
            wish = messages.Wish("order", "email", f"c{number}", {})
            messages.submit(connection, key_ring, wish, client="shop", idempotency_key=f"o{number}")
        standing = connection.scalar(text("SELECT id FROM run WHERE kind = 'standing'"))
        for address_id in connection.scalars(text("SELECT id FROM address ORDER BY id")).all():
            suppression.add(connection, address_id, "hard_bounce", source="test")

    listed, pages = everything(web, key, "/v1/runs?limit=2&campaign=hello")
    assert ([run["run"] for run in listed], pages) == (runs[::-1], 3)
    of_audience, pages = everything(web, key, f"/v1/messages?run={runs[0]}&limit=2")
    assert (sorted(m["contact"] for m in of_audience), pages) == ([f"c{n}" for n in range(5)], 3)
    asked_for, _ = everything(web, key, f"/v1/messages?run={standing}&limit=2")
    assert [m["contact"] for m in asked_for] == ["c0", "c1", "c2"]
    suppressed, pages = everything(web, key, "/v1/suppressions?limit=2&channel=email")
    assert ([one["contacts"] for one in suppressed], pages) == ([[f"c{n}"] for n in range(5)], 3)
    assert "people.example" not in json.dumps(suppressed)
    assert [c["campaign"] for c in everything(web, key, "/v1/campaigns?limit=1")[0]] == ["christmas", "hello"]
    assert [s["segment"] for s in everything(web, key, "/v1/segments?limit=1")[0]] == ["everybody", "fans"]
    assert everything(web, key, f"/v1/messages?run={uuid4()}") == ([], 1)


def test_a_suppression_is_found_by_contact_and_by_hash(database: Engine, key_ring: KeyRing, web: Web, key: str) -> None:
    with database.begin() as connection:
        for address_id in connection.scalars(text("SELECT id FROM address ORDER BY id LIMIT 2")).all():
            suppression.add(connection, address_id, "complaint", source="test")

    [one], _ = everything(web, key, "/v1/suppressions?contact=c1")
    assert (one["contacts"], one["scope"]) == (["c1"], "marketing")
    assert everything(web, key, f"/v1/suppressions?address_hash={one['address_hash']}")[0] == [one]
    assert everything(web, key, "/v1/suppressions?contact=c4")[0] == []
    assert ask(web, key, "GET", "/v1/suppressions?contact=nobody").status == 404


def test_a_cursor_is_good_for_its_own_list_alone(web: Web, key: str) -> None:
    follows = ask(web, key, "GET", "/v1/segments?limit=1").json["next"]
    cursor = follows.partition("cursor=")[2]

    for path in (f"/v1/campaigns?cursor={cursor}", f"/v1/segments?cursor={cursor[:-3]}abc", "/v1/segments?cursor=x"):
        answer = ask(web, key, "GET", path)
        assert (answer.status, answer.json["errors"][0]["field"]) == (422, "query.cursor"), path
    assert ask(web, key, "GET", "/v1/segments?limit=501").status == 422
    assert ask(web, key, "GET", "/v1/segments?limit=0").status == 422


def test_a_segment_is_counted(web: Web, key: str) -> None:
    counted = ask(web, key, "GET", "/v1/segments/everybody/count?as_of=2026-12-01T10:00:00Z")

    assert counted.json == {"segment": "everybody", "as_of": "2026-12-01T10:00:00.000000Z", "count": 5}
    assert ask(web, key, "GET", "/v1/segments/nothing/count").status == 404
