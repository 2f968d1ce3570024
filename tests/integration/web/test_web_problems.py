"""What the HTTP room answers when it cannot or will not: problems, limits, faults of ours; and who may do what."""

from __future__ import annotations

import socket
from uuid import uuid4

import pytest
from asking_web import ask_for, is_problem, read
from sqlalchemy import Engine, create_engine, text
from web_server import Web

from dispatcher import api_keys, messages


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
