"""How the tests of the HTTP room ask it."""

from __future__ import annotations

import json
from typing import Any

from web_server import Answer, Web

BODY = {"template": "order-confirmation", "channel": "email", "contact": "c1", "data": {"number": "A-17"}}


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
