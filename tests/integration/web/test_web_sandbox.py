"""The sandbox's mailbox in a browser."""

from __future__ import annotations

import json
from typing import Any

from asking_web import is_problem
from web_server import Web


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
