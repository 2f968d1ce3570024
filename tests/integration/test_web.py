"""The shop's API, health and the sandbox's page over real HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from ledger_rows import add_contact, add_message, add_run, add_template, wait_until
from small_workspace import write_workspace
from sqlalchemy import Engine, create_engine, text
from web_server import Answer, Web, serving

from dispatcher import api_keys, messages, runs
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page
from dispatcher.tokens import UnsubscribeTokens
from dispatcher.workspace import read_workspace

BODY = {"template": "order-confirmation", "channel": "email", "contact": "c1", "data": {"number": "A-17"}}


@pytest.fixture
def web(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    with database.begin() as connection:
        add_contact(connection, key_ring, "c1", email="ana@shop.example")
        add_template(connection, "order-confirmation", "email", "class: transactional\n")
        add_template(connection, "christmas", "email", "class: marketing\ntopic: offers\n")
    with serving(database, key_ring, tmp_path / "home") as web:
        yield web


@pytest.fixture
def key(database: Engine) -> str:
    with database.begin() as connection:
        return api_keys.create(connection, "shop", api_keys.SCOPES)


def ask_for(web: Web, key: str, body: Any = BODY, idempotency_key: str = "k1", **headers: str) -> Answer:
    sent = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Idempotency-Key": idempotency_key}
    return web.ask("POST", "/v1/messages", body if isinstance(body, bytes) else json.dumps(body), sent | headers)


def read(web: Web, key: str, path: str) -> Answer:
    return web.ask("GET", path, headers={"Authorization": f"Bearer {key}"})


def is_problem(answer: Answer, status: int, says: str = "") -> bool:
    assert answer.header("Content-Type") == "application/problem+json"
    assert (answer.status, answer.json["status"]) == (status, status)
    assert says in answer.json.get("detail", "")
    assert "Traceback" not in answer.text
    return True


def test_a_message_is_asked_for_and_followed(web: Web, key: str) -> None:
    answer = ask_for(web, key)
    assert answer.status == 202
    assert answer.header("Location") == f"/v1/messages/{answer.json['id']}"

    told = read(web, key, answer.header("Location") or "").json
    assert (told["status"], told["reason"], told["contact"]) == ("pending", None, "c1")
    assert told["due_at"].endswith("Z")
    assert told["settled_at"] is None

    run = read(web, key, f"/v1/runs/{told['run']}").json
    assert (run["campaign"], run["state"], run["status"]) == ("order-confirmation", "running", {"pending": 1})


def test_the_same_request_again_is_the_same_message(database: Engine, web: Web, key: str) -> None:
    first = ask_for(web, key)
    again = ask_for(web, key)
    other = ask_for(web, key, BODY | {"data": {"number": "A-18"}})

    assert (again.status, again.json) == (202, first.json)
    assert is_problem(other, 409, "another body")


def test_racing_requests_with_one_key_make_one_message(database: Engine, web: Web, key: str) -> None:
    start = threading.Barrier(2)

    def ask(_: int) -> Answer:
        start.wait()
        return ask_for(web, key)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))
    assert (first.status, second.status) == (202, 202)
    assert first.json == second.json
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message")) == 1


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"contact": "nobody"}, 404, "no contact nobody"),
    ({"template": "christmas"}, 422, "is marketing"),
    ({"template": "missing"}, 422, "no email template missing"),
    ({"template": "../etc"}, 422, "body.template"),
    ({"channel": "fax"}, 422, "body.channel"),
    ({"contact": ""}, 422, "body.contact"),
    ({"contact": "a\0b"}, 422, "body.contact"),
    ({"contact": 7}, 422, "body.contact"),
    ({"data": []}, 422, "body.data"),
    ({"data": {"n": 2**70}}, 422, "cannot be stored"),
    ({"surprise": 1}, 422, "body.surprise"),
]


def test_a_wrong_body_is_named_and_not_repeated(database: Engine, web: Web, key: str) -> None:
    for change, status, says in WRONG:
        answer = ask_for(web, key, BODY | change)

        assert is_problem(answer, status, says), change
        assert "A-17" not in answer.text
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message")) == 0


def test_a_broken_body_is_a_problem_and_no_crash(web: Web, key: str) -> None:
    for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"contact": ' + b"9" * 5000 + b"}"):
        answer = ask_for(web, key, body)

        assert answer.status in (400, 422), body[:20]
        assert is_problem(answer, answer.status)


def test_a_missing_idempotency_key_is_a_problem(web: Web, key: str) -> None:
    assert is_problem(ask_for(web, key, idempotency_key=""), 422, "header.idempotency-key")


def test_without_a_good_key_nothing_is_said(web: Web, key: str) -> None:
    places = (("POST", "/v1/messages"), ("GET", f"/v1/messages/{uuid4()}"), ("GET", f"/v1/runs/{uuid4()}"))
    for sent in (None, "", "Bearer", "Bearer ", "Bearer nonsense", "Basic eDp5", "Bearer dsp_" + "A" * 43):
        for method, path in places:
            headers = {"Authorization": sent} if sent is not None else {}
            answer = web.ask(method, path, b"{}" if method == "POST" else None, headers)

            assert is_problem(answer, 401), sent
            assert answer.header("WWW-Authenticate") == "Bearer"


def test_a_key_does_only_what_its_scopes_say(database: Engine, web: Web) -> None:
    with database.begin() as connection:
        reader = api_keys.create(connection, "reader", ["messages:read"])

    assert is_problem(ask_for(web, reader), 403, "messages:write")
    assert is_problem(read(web, reader, f"/v1/runs/{uuid4()}"), 403, "runs:read")
    assert is_problem(read(web, reader, f"/v1/messages/{uuid4()}"), 404)


def test_a_revoked_key_is_out_at_once(database: Engine, web: Web, key: str) -> None:
    assert ask_for(web, key).status == 202
    with database.begin() as connection:
        api_keys.revoke(connection, "shop")

    assert is_problem(ask_for(web, key), 401)


def test_every_error_is_a_problem(web: Web, key: str) -> None:
    for method, path, status in (
        ("GET", "/v1/messages/not-an-id", 422),
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("PUT", "/v1/messages", 405),
        ("DELETE", "/healthz", 405),
    ):
        answer = web.ask(method, path, headers={"Authorization": f"Bearer {key}"})

        assert is_problem(answer, status), path
        assert (answer.header("Allow") is not None) == (status == 405)


def test_a_method_that_a_resource_has_not_is_told_all_that_it_has(web: Web, key: str) -> None:
    for path, allowed in (
        ("/v1/messages", "GET, HEAD, POST"),
        (f"/v1/messages/{uuid4()}", "GET, HEAD, DELETE"),
        ("/v1/campaigns/hello", "GET, HEAD, PUT, DELETE"),
        ("/v1/contacts/c1/consents", "POST"),
    ):
        answer = web.ask("PATCH", path, headers={"Authorization": f"Bearer {key}"})

        assert is_problem(answer, 405), path
        assert answer.header("Allow") == allowed


def test_head_answers_like_get_without_the_body(web: Web, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    got, headed = (web.ask(method, "/v1/runs", headers=headers) for method in ("GET", "HEAD"))

    assert (headed.status, headed.body, headed.header("Content-Length")) == (200, b"", str(len(got.body)))
    assert web.ask("HEAD", "/v1/runs").status == 401


def test_a_body_that_is_not_json_is_refused_before_it_is_read(web: Web, key: str) -> None:
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=latin-1"):
        assert is_problem(ask_for(web, key, **{"Content-Type": media_type}), 415), media_type
    assert ask_for(web, key, **{"Content-Type": "application/json; charset=utf-8"}).status == 202


def test_nothing_of_a_request_is_looked_at_before_its_key(web: Web) -> None:
    for method, path, body in (
        ("POST", "/v1/messages", b"{"), ("GET", "/v1/nothing", None), ("PATCH", "/v1/runs", None),
        ("GET", "/v1/runs?limit=x", None),
    ):  # fmt: skip
        assert is_problem(web.ask(method, path, body, {"Content-Type": "text/plain"}), 401), path


def test_what_a_program_does_is_in_the_audit(database: Engine, web: Web, key: str) -> None:
    message = ask_for(web, key).json["id"]
    ask_for(web, key)  # the same again
    web.ask("DELETE", f"/v1/messages/{message}", headers={"Authorization": f"Bearer {key}"})
    with database.connect() as connection:
        rows = connection.execute(text("SELECT actor, action, subject FROM audit WHERE actor = 'key:shop' ORDER BY id"))
        assert [tuple(row) for row in rows] == [
            ("key:shop", "message.asked", message), ("key:shop", "message.cancelled", message),
        ]  # fmt: skip


def test_a_body_over_256_kilobytes_is_refused(web: Web, key: str) -> None:
    assert is_problem(ask_for(web, key, b"x" * (256 * 1024 + 1)), 413)


def test_a_chunked_body_is_counted_too(web: Web, key: str) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as raw:
        raw.sendall(
            b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nIdempotency-Key: k\r\nAuthorization: Bearer "
            + key.encode()
            + b"\r\n\r\n"
        )
        try:
            for _ in range(6):
                raw.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        except (ConnectionResetError, BrokenPipeError):
            pass
        assert raw.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_fault_of_ours_is_a_500_without_its_words(
    web: Web,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("ana@shop.example broke it")

    monkeypatch.setattr(messages, "read", broken)
    answer = read(web, key, f"/v1/messages/{uuid4()}")

    assert is_problem(answer, 500)
    assert "ana@shop.example" not in answer.text
    logged = "".join(capfd.readouterr()) + caplog.text  # whichever way this process's log goes
    assert "ana@shop.example" not in logged
    assert "RuntimeError" in logged
    assert answer.json["request_id"] in logged


def test_a_database_that_is_away_is_a_503(web: Web, key: str, database: Engine) -> None:
    name = database.url.database
    other = database.url.set(database="postgres")
    elsewhere = create_engine(other, isolation_level="AUTOCOMMIT")
    with elsewhere.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
        )
    try:
        answer = ask_for(web, key)
        assert is_problem(answer, 503)
        assert answer.header("Retry-After") == "5"
        assert read(web, key, "/healthz").status == 200
        ready = web.ask("GET", "/readyz")
        assert (ready.status, ready.json["checks"]["database"]["ok"]) == (503, False)
    finally:
        with elsewhere.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"))
        elsewhere.dispose()


def test_each_answer_has_an_id_the_callers_if_it_is_sane(web: Web) -> None:
    assert (
        web.ask("GET", "/healthz", headers={"X-Request-Id": "shop-12345678"}).header("X-Request-Id") == "shop-12345678"
    )
    assert web.ask("GET", "/healthz", headers={"X-Request-Id": "a b<script>"}).header("X-Request-Id") != "a b<script>"
    assert len(web.ask("GET", "/healthz").header("X-Request-Id") or "") == 32


def test_the_description_names_every_route_and_loads_nothing(web: Web) -> None:
    description = web.ask("GET", "/openapi.json").json

    assert {
        "/v1/messages", "/v1/messages/{message_id}", "/v1/runs/{run_id}", "/v1/explain",
        "/v1/campaigns/{name}/simulate",
    } <= set(description["paths"])  # fmt: skip
    assert web.ask("GET", "/docs").status == 404


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


def test_alive_needs_nothing(web: Web) -> None:
    answer = web.ask("GET", "/healthz")

    assert (answer.status, answer.json) == (200, {"alive": True})


def add_clock(database: Engine, seconds_ago: float) -> None:
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO worker (id, kind, host, pid, lock_path, queues, slots, heartbeat_at) VALUES "
                "(:id, 'scheduler', 'h', 1, 'l', '{}', 0, clock_timestamp() - make_interval(secs => :seconds))"
            ),
            {"id": uuid4(), "seconds": seconds_ago},
        )


def test_ready_says_what_is_missing(database: Engine, web: Web) -> None:
    answer = web.ask("GET", "/readyz")
    assert answer.status == 503
    checks = answer.json["checks"]
    assert (checks["database"]["ok"], checks["broker"]["ok"], checks["clock"]["ok"]) == (True, False, False)
    assert checks["broker"]["reason"] == "does not answer"
    assert "no clock is running" in checks["clock"]["reason"]

    add_clock(database, 11)
    clock = web.ask("GET", "/readyz").json["checks"]["clock"]
    assert clock["ok"] is False
    assert "no clock has beaten for 11" in clock["reason"]
    add_clock(database, 1)
    assert web.ask("GET", "/readyz").json["checks"]["clock"]["ok"] is True

    with database.begin() as connection:
        connection.execute(text("UPDATE engine SET stopped_at = clock_timestamp()"))
    assert web.ask("GET", "/readyz").json["checks"]["engine"] == {"ok": True, "stopped": True}


def test_ready_tells_how_long_the_oldest_message_waits(database: Engine, web: Web) -> None:
    assert web.ask("GET", "/readyz").json["checks"]["backlog"]["oldest_due_seconds_ago"] is None
    with database.begin() as connection:
        contact_id = connection.execute(text("SELECT id FROM contact")).scalar_one()
        message_id = add_message(connection, contact_id, None, run_id=add_run(connection))
        connection.execute(
            text("UPDATE message SET due_at = due_at - interval '90 s' WHERE id = :id"), {"id": message_id}
        )

    assert 90 <= web.ask("GET", "/readyz").json["checks"]["backlog"]["oldest_due_seconds_ago"] < 120


def test_not_ready_when_nobody_takes_up_what_is_due_unless_all_is_stopped(database: Engine, web: Web) -> None:
    def wait_for(seconds: int) -> None:
        with database.begin() as connection:
            connection.execute(
                text("UPDATE message SET due_at = clock_timestamp() - make_interval(secs => :seconds)"),
                {"seconds": seconds},
            )

    def backlog() -> dict[str, Any]:
        checks: dict[str, dict[str, Any]] = web.ask("GET", "/readyz").json["checks"]
        return checks["backlog"]

    with database.begin() as connection:
        contact_id = connection.execute(text("SELECT id FROM contact")).scalar_one()
        add_message(connection, contact_id, None, run_id=add_run(connection))
    wait_for(280)
    assert backlog()["ok"] is True
    wait_for(310)
    assert backlog()["ok"] is False
    assert "is a control worker running?" in backlog()["reason"]

    with database.begin() as connection:
        connection.execute(text("UPDATE engine SET stopped_at = clock_timestamp()"))
    assert backlog()["ok"] is True
    with database.begin() as connection:
        connection.execute(text("UPDATE engine SET stopped_at = NULL"))
        connection.execute(text("UPDATE run SET state = 'paused'"))
    assert backlog() == {"ok": True, "oldest_due_seconds_ago": None}


def test_ready_is_200_when_everything_is_there(
    database: Engine, key_ring: KeyRing, broker_url: str, tmp_path: Path
) -> None:
    if broker_url == "redis://unused":
        pytest.skip("no broker on this machine")
    add_clock(database, 0)
    with serving(database, key_ring, tmp_path / "home", broker_url=broker_url) as web:
        answer = web.ask("GET", "/readyz")

    assert (answer.status, answer.json["ready"]) == (200, True)


def outbox_line(number: int, **changes: Any) -> bytes:
    line = {
        "message_id": f"m-{number}", "run": "r", "contact": "c1", "channel": "email", "to": "ana@shop.example",
        "subject": f"Subject <b>{number}</b>", "headers": [["List-Id", "<offers>"], ["X-A", "1"]],
        "text": "Hello", "html": '<p onclick="x()">"Hello"</p><script>alert(1)</script>', "at": "2026-01-01T12:00:00Z",
    }  # fmt: skip
    return json.dumps(line | changes).encode() + b"\n"


def write_outbox(web: Web, content: bytes) -> None:
    (web.home / "sandbox").mkdir(parents=True, exist_ok=True)
    (web.home / "sandbox" / "outbox.jsonl").write_bytes(content)


def test_the_sandbox_is_empty_at_first(web: Web) -> None:
    assert "Nothing yet" in web.ask("GET", "/sandbox").text


def test_the_sandbox_shows_the_last_hundred_newest_first(web: Web) -> None:
    write_outbox(web, b"".join(outbox_line(number) for number in range(250)))

    page = web.ask("GET", "/sandbox").text
    shown = [number for number in range(250) if f'href="/sandbox/m-{number}"' in page]
    assert shown == list(range(150, 250))
    assert page.index("m-249") < page.index("m-150")
    assert "<b>" not in page
    assert "&lt;b&gt;249" in page


def test_a_torn_or_foreign_line_spoils_nothing(web: Web) -> None:
    torn = outbox_line(2)[:50]
    write_outbox(web, outbox_line(1) + b"\n" + torn + b"\n" + b"[1]\n" + outbox_line(3) + torn)

    page = web.ask("GET", "/sandbox").text
    assert [n for n in range(5) if f"/sandbox/m-{n}" in page] == [1, 3]


def test_only_the_end_of_a_large_outbox_is_read(web: Web) -> None:
    big = outbox_line(0, html="x" * 200_000)
    write_outbox(web, big * 400 + outbox_line(1, text="ü" * 300_000) + outbox_line(2))  # 80 MB

    page = web.ask("GET", "/sandbox")
    assert page.status == 200
    assert page.text.index("/sandbox/m-2") < page.text.index("/sandbox/m-1") < page.text.index("/sandbox/m-0")


def test_a_message_is_shown_without_any_rights(web: Web) -> None:
    write_outbox(web, outbox_line(1))
    answer = web.ask("GET", "/sandbox/m-1")

    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in answer.text
    assert "<script>" not in answer.text  # only quoted, inside srcdoc
    assert "&lt;script&gt;" in answer.text
    assert "List-Id: &lt;offers&gt;" in answer.text
    policy = answer.header("Content-Security-Policy") or ""
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_a_message_that_is_not_there_is_404(web: Web) -> None:
    write_outbox(web, outbox_line(1))

    assert is_problem(web.ask("GET", "/sandbox/m-2"), 404)


def test_the_mailbox_is_not_for_others(web: Web) -> None:
    write_outbox(web, outbox_line(1))

    assert web.ask("GET", "/sandbox", headers={"X-Forwarded-For": "203.0.113.9"}).status == 404
    assert web.ask("GET", "/sandbox", headers={"Host": "evil.example"}).status == 404
    assert web.ask("GET", "/sandbox", headers={"Host": "localhost:8000"}).status == 200


def test_the_room_runs_as_a_process_and_stops_when_told(
    database: Engine, database_url: str, key_ring: KeyRing, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {
        "DISPATCHER_HOME": str(tmp_path / "home"), "DISPATCHER_PORT": str(port),
        "DISPATCHER_DATABASE_URL": database_url, "DISPATCHER_BROKER_URL": "redis://127.0.0.1:1/0",
    }  # fmt: skip
    command = [sys.executable, "-m", "dispatcher.web"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            web = Web(port, tmp_path)
            wait_until(lambda: is_up(web) or process.poll() is not None, seconds=30)
            assert web.ask("GET", "/healthz").status == 200
            second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
            assert second.returncode == 1
            assert f"cannot listen on 127.0.0.1 port {port}" in second.stderr
            assert "Traceback" not in second.stderr
        finally:
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "/healthz" in said


def is_up(web: Web) -> bool:
    try:
        return web.ask("GET", "/healthz").status == 200
    except OSError:
        return False
