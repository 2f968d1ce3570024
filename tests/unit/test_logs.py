from __future__ import annotations

import io
import json
import logging
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import logs


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the process logs, as JSON lines; the logging of before is put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    logs.configure("info", json=True)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def parsed(lines: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_an_event_is_one_line_with_its_facts_and_an_instant_in_utc(lines: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(run="r-1")
    structlog.get_logger("dispatcher.runs").info("message.skipped", reason="QUIET_HOURS", count=3)
    structlog.contextvars.clear_contextvars()

    (line,) = parsed(lines)
    assert line["event"] == "message.skipped"
    assert (line["reason"], line["count"], line["run"], line["level"]) == ("QUIET_HOURS", 3, "r-1", "info")
    assert str(line["timestamp"]).endswith("Z")


def test_a_librarys_log_goes_the_same_way(lines: io.StringIO) -> None:
    logging.getLogger("dramatiq.worker").warning("lost %s", "anna@shop.example")

    (line,) = parsed(lines)
    assert (line["event"], line["logger"]) == ("lost [email]", "dramatiq.worker")


def test_an_address_in_a_traceback_is_masked(lines: io.StringIO) -> None:
    try:
        raise ValueError("duplicate key (anna.o'neil@shop.example)")
    except ValueError:
        structlog.get_logger("x").exception("it.broke")

    assert "shop.example" not in lines.getvalue()
    assert "ValueError" in lines.getvalue()


@pytest.mark.parametrize(
    "text",
    ["to anna@shop.example", "GET /v1/explain?contact=anna%40shop.example HTTP/1.1", "<Žofie@příklad.example>",
     "+447911123456", "+44 7911 123456", "tel +1 (415) 555-2671.", "07911123456", "0044 7911 123456",
     "%2B447911123456"],
)  # fmt: skip
def test_what_looks_like_an_address_is_masked(text: str) -> None:
    shown = logs.masked({"deep": [text]})["deep"][0]

    assert "[email]" in shown or "[phone]" in shown
    assert "anna" not in shown
    assert "123456" not in shown
    assert "2671" not in shown


@given(number=st.integers(min_value=0), at=st.datetimes(timezones=st.just(UTC)), id_=st.uuids())
def test_ids_numbers_and_instants_are_left_alone(number: int, at: datetime, id_: uuid.UUID) -> None:
    assert logs.masked({"n": number, "at": at.isoformat(), "id": id_}) == {
        "n": number,
        "at": at.isoformat(),
        "id": str(id_),
    }


def test_a_password_in_an_address_of_a_server_is_masked() -> None:
    assert "geheim" not in logs.masked("redis://u:geheim@broker.example:6379/0")
