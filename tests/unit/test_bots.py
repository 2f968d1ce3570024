"""Which click was hardly a person's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.clicks.bots import TOO_SOON, Look, bot_reason

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
PERSON = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.1 Mobile/15E148 Safari/604.1"
)


def reason(look: Look, after: timedelta | None = timedelta(minutes=5)) -> str | None:
    return bot_reason(look, clicked_at=NOON, arrived_at=None if after is None else NOON - after)


@pytest.mark.parametrize(
    "agent",
    [
        PERSON,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/131.0.0.0 Safari/537.36",
        "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
        "Mozilla/5.0 (Linux; Android 14; CUBOT KINGKONG) AppleWebKit/537.36 Chrome/131.0 Mobile Safari/537.36",
    ],
)
def test_a_browser_that_somebody_holds_is_a_person(agent: str) -> None:
    assert reason(Look("GET", agent)) is None


@pytest.mark.parametrize(
    "agent",
    [
        "", "  ", "curl/8.5.0", "python-requests/2.32", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "facebookexternalhit/1.1", "WhatsApp/2.23.20.0", "Mozilla/5.0 (compatible; Barracuda Sentinel)",
        "Mozilla/5.0 AppleWebKit/537.36 HeadlessChrome/131.0 Safari/537.36", "TelegramBot (like TwitterBot)",
        "Go-http-client/1.1", "Mozilla/5.0 (compatible; Proofpoint)", "x" * 400 + "bot/1.0",
    ],
)  # fmt: skip
def test_what_names_itself_a_program_is_one(agent: str) -> None:
    assert reason(Look("GET", agent)) == "agent"


def test_head_and_prefetching_are_no_clicks_whatever_browser_asks() -> None:
    assert reason(Look("HEAD", PERSON)) == "head"
    for purpose in ("prefetch", "prefetch;prerender", "Preview"):
        assert reason(Look("GET", PERSON, (purpose,))) == "prefetch"
    assert reason(Look("GET", PERSON, ("",))) is None


def test_nobody_clicks_before_they_can_have_read_it() -> None:
    assert reason(Look("GET", PERSON), None) == "soon"
    assert reason(Look("GET", PERSON), TOO_SOON - timedelta(microseconds=1)) == "soon"
    assert reason(Look("GET", PERSON), TOO_SOON) is None
