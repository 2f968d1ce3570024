"""Alive, ready, and the room as a process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from ledger_rows import add_message, add_run, wait_until
from sqlalchemy import Engine, text
from web_server import Web, serving

from dispatcher.keys import KeyRing


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
