"""Pause, quiet hours and language chosen in the preference centre."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from own_pages import Fields, OwnPages
from visiting import get, post, press
from web_server import Web

from dispatcher.hours import WEEKDAYS
from dispatcher.verify import verify


def test_a_pause_keeps_advertising_away_until_it_is_over(pages: OwnPages, web: Web) -> None:
    fields = [("do", "pause"), ("for", "2w")]

    assert "Paused until" in post(web, pages.page(), fields).text
    pages.shop.campaign("hello")
    assert pages.one("SELECT reason FROM message") == "PAUSED"
    pages.shop.wait(timedelta(days=15))
    pages.shop.campaign("hello")
    assert len(pages.mails()) == 1
    assert pages.audited() == [("preferences.pause", f"contact {pages.anna}")]


def test_a_pause_that_comes_while_a_message_waits_stops_it(pages: OwnPages, web: Web) -> None:
    pages.shop.plan("hello")
    post(web, pages.page(), [("do", "pause"), ("for", "1w")])
    pages.shop.send()

    assert pages.one("SELECT status || ' ' || reason FROM message") == "skipped PAUSED"
    assert pages.mails() == []


def test_a_pause_can_end_on_a_day_and_be_ended(pages: OwnPages, web: Web) -> None:
    day = (pages.one("SELECT clock_timestamp() + clock_offset FROM engine") + timedelta(days=40)).date()
    answer = post(web, pages.page(), [("do", "pause"), ("for", "day"), ("day", day.isoformat())])

    assert f"Paused until {day.day} " in answer.text
    assert pages.one("SELECT paused_until AT TIME ZONE 'Europe/London' FROM contact") == datetime.combine(
        day, datetime.min.time()
    )
    assert "The pause has ended" in press(web, pages.page(), "resume").text
    assert pages.one("SELECT paused_until FROM contact") is None


@pytest.mark.parametrize("day", ["2020-01-01", "2999-01-01", "", "tomorrow"])
def test_a_pause_ends_within_a_year(pages: OwnPages, web: Web, day: str) -> None:
    answer = post(web, pages.page(), [("do", "pause"), ("for", "day"), ("day", day)])

    assert "within the next twelve months" in answer.text
    assert pages.one("SELECT paused_until FROM contact") is None


def test_own_quiet_hours_put_advertising_off_until_they_are_over(pages: OwnPages, web: Web) -> None:
    fields = [("do", "quiet"), ("from", "11:00"), ("to", "15:00"), *(("day", day) for day in WEEKDAYS)]
    answer = post(web, pages.page(), fields)

    assert "11:00–15:00" in answer.text
    pages.shop.campaign("hello")
    assert pages.one("SELECT deferred_reason FROM message") == "QUIET_HOURS"
    facts = pages.one("SELECT facts FROM message")
    assert facts["in_effect"] == ["person"]
    assert pages.one("SELECT EXTRACT(hour FROM due_at AT TIME ZONE 'Europe/London') FROM message") == 15
    pages.shop.wait(timedelta(hours=4))
    assert len(pages.mails()) == 1


def test_own_quiet_hours_of_whole_days_are_kept_and_can_be_taken_back(pages: OwnPages, web: Web) -> None:
    post(web, pages.page(), [("do", "quiet"), ("from", ""), ("to", ""), ("whole", "sat"), ("whole", "sun")])
    fields = Fields(get(web, pages.page()).text).form("quiet")

    assert [field for field in fields if field[0] == "whole"] == [("whole", "sat"), ("whole", "sun")]
    assert pages.one("SELECT quiet_hours FROM contact") == [{"hours": "00:00-24:00", "days": ["sat", "sun"]}]
    post(web, pages.page(), [("do", "quiet"), ("from", ""), ("to", "")])
    assert pages.one("SELECT quiet_hours FROM contact") is None


def test_quiet_hours_that_never_end_are_not_kept(pages: OwnPages, web: Web) -> None:
    answer = post(web, pages.page(), [("do", "quiet"), *(("whole", day) for day in WEEKDAYS)])

    assert "would leave no time at all" in answer.text
    assert 'name="whole" value="sun" checked' in answer.text
    assert pages.one("SELECT quiet_hours FROM contact") is None


def test_hours_without_a_day_are_told_so(pages: OwnPages, web: Web) -> None:
    answer = post(web, pages.page(), [("do", "quiet"), ("from", "22:00"), ("to", "08:00")])

    assert "tick the days on which these hours begin" in answer.text
    assert 'name="from" value="22:00"' in answer.text
    assert pages.one("SELECT quiet_hours FROM contact") is None


@pytest.mark.parametrize(("start", "end"), [("22:00", ""), ("", "08:00"), ("24:00", "08:00"), ("09:00", "09:00")])
def test_hours_that_are_none_are_shown_again_with_what_was_typed(
    pages: OwnPages, web: Web, start: str, end: str
) -> None:
    answer = post(web, pages.page(), [("do", "quiet"), ("from", start), ("to", end), ("day", "mon")])

    assert "give both times" in answer.text
    assert f'name="from" value="{start}"' in answer.text


def test_a_new_language_is_kept_and_spoken_at_once(pages: OwnPages, web: Web) -> None:
    version = pages.one("SELECT version FROM contact")
    answer = post(web, f"{pages.page()}?lang=en", [("do", "language"), ("locale", "ro")])

    assert '<html lang="ro">' in answer.text
    assert "Limba ta este salvată." in answer.text
    assert pages.one("SELECT locale FROM contact") == "ro"
    assert pages.one("SELECT version FROM contact") > version  # what was rendered in the former one is not sent


def test_what_was_authorised_in_a_pause_or_in_quiet_hours_is_found(pages: OwnPages, web: Web) -> None:
    """Verify knows of the wishes, and of when they were made."""
    pages.shop.campaign("hello")
    assert len(pages.mails()) == 1
    post(web, pages.page(), [("do", "pause"), ("for", "2w")])
    post(web, pages.page(), [("do", "quiet"), ("from", "11:00"), ("to", "15:00"), ("day", "mon"), ("day", "tue"),
         ("day", "wed"), ("day", "thu"), ("day", "fri"), ("day", "sat"), ("day", "sun")])  # fmt: skip

    def broken() -> list[str]:
        with pages.database.connect() as connection:
            report = verify(connection, pages.shop.key_ring)
        return [one.name for one in report.results if one.status == "broken" and one.name in ("INV-6", "INV-9")]

    assert broken() == []  # it had left before
    pages.do("UPDATE message SET authorise_seq = nextval('order_seq')")
    assert broken() == ["INV-6", "INV-9"]
