"""POST /v1/messages over real HTTP."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asking_web import BODY, ask_for, is_problem, read
from sqlalchemy import Engine, text
from web_server import Answer, Web


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
