"""The preference centre over real HTTP: what it shows, what it changes, and what it never does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from own_pages import Fields, OwnPages, encoded, make_pages
from people import add_person
from sqlalchemy import Engine, text
from unsubscribing import everything
from web_server import Answer, Web, serving

from dispatcher import suppression
from dispatcher.hours import WEEKDAYS
from dispatcher.keys import KeyRing
from dispatcher.tokens import PreferenceTokens, WayHome
from dispatcher.verify import verify

FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html", "Accept-Language": "en"}


@pytest.fixture
def pages(database: Engine, key_ring: KeyRing, tmp_path: Path) -> OwnPages:
    return make_pages(database, key_ring, tmp_path / "home")


@pytest.fixture
def web(pages: OwnPages, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    with serving(pages.database, key_ring, tmp_path / "home", wait=timedelta(milliseconds=200)) as web:
        yield web


def get(web: Web, path: str, **headers: str) -> Answer:
    return web.ask("GET", path, headers={"Accept": "text/html", "Accept-Language": "en"} | headers)


def post(web: Web, path: str, fields: list[tuple[str, str]], **headers: str) -> Answer:
    return web.ask("POST", path, encoded(fields), FORM | headers)


def press(web: Web, path: str, do: str, **headers: str) -> Answer:
    """Open the page and press a button without touching anything else."""
    return post(web, path, Fields(get(web, path).text).form(do), **headers)


def tick(web: Web, path: str, *wanted: str) -> Answer:
    """Open the page, tick exactly these topics, and save."""
    fields = [field for field in Fields(get(web, path).text).form("topics") if field[0] != "topic"]
    return post(web, path, [*fields, *(("topic", one) for one in wanted)])


# --- looking


def test_looking_changes_nothing(pages: OwnPages, web: Web) -> None:
    before = everything(pages.database)
    for number in range(100):
        assert web.ask("HEAD" if number % 3 else "GET", f"{pages.page()}?lang=de").status == 200

    assert everything(pages.database) == before


def test_the_page_hides_the_addresses_and_names(pages: OwnPages, web: Web) -> None:
    page = get(web, pages.page()).text

    assert "a•••@m•••.example" in page
    assert "+44••• 23" in page
    assert "anna@mail" not in page
    assert "Firstanna" not in page
    assert "7700900123" not in page
    assert "<script" not in page


def test_every_answer_is_strict_about_what_a_browser_may_do(pages: OwnPages, web: Web) -> None:
    for answer in (get(web, pages.page()), press(web, pages.page(), "topics"), get(web, "/p/x"), get(web, "/m/x")):
        policy = answer.header("Content-Security-Policy") or ""
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "script" not in policy
        assert answer.header("Set-Cookie") is None
        assert answer.header("Location") is None
        assert answer.header("Cache-Control") == "no-store"
        assert answer.header("Referrer-Policy") == "no-referrer"


def test_bad_links_all_get_the_same_answer(pages: OwnPages, web: Web, key_ring: KeyRing) -> None:
    tokens = PreferenceTokens(key_ring)
    wrong = [
        "/p/", "/p/x", f"{pages.page()}x", pages.page()[:-1] + ("A" if pages.page()[-1] != "A" else "Q"),
        pages.way_out().replace("/u/", "/p/"),  # a token of another purpose
        f"/p/{tokens.make(WayHome(10**9, 'email', 1))}",  # nobody
        f"/p/{tokens.make(WayHome(pages.anna, 'email', pages.address('sms')))}",  # not her address
    ]  # fmt: skip
    before = everything(pages.database)
    answers = {(a.status, a.body) for path in wrong for a in (get(web, path), post(web, path, [("do", "stop")]))}

    assert len(answers) == 1
    assert {status for status, _ in answers} == {404}
    assert everything(pages.database) == before


def test_who_has_her_former_address_sees_nothing_of_her(pages: OwnPages, web: Web, key_ring: KeyRing) -> None:
    former = pages.page()
    with pages.database.begin() as connection:
        other = add_person(connection, key_ring, "other", email="new@mail.example")
        connection.execute(
            text("""UPDATE contact SET email_address_id = (SELECT email_address_id FROM contact WHERE id = :other)
                    WHERE id = :anna"""),
            {"other": other, "anna": pages.anna},
        )

    assert get(web, former).status == 404
    assert get(web, pages.page()).status == 200


@pytest.mark.parametrize(
    ("lang", "locale", "accept", "shown"),
    [
        ("", None, "fr-CA, en;q=0.5", "fr"), ("", "de-AT", "fr", "de"), ("?lang=ro", "de", "fr", "ro"),
        ("?lang=xx", "de", "fr", "de"), ("", "it", "es", "es"), ("", None, "", "en"), ("", "pt-PT", "", "pt-BR"),
    ],
)  # fmt: skip
def test_the_language_is_asked_for_or_the_persons_or_the_browsers(
    pages: OwnPages, web: Web, lang: str, locale: str | None, accept: str, shown: str
) -> None:
    pages.do("UPDATE contact SET locale = :locale WHERE id = :id", locale=locale, id=pages.anna)

    assert f'<html lang="{shown}">' in get(web, pages.page() + lang, **{"Accept-Language": accept}).text


# --- what must not change anything


@pytest.mark.parametrize("fields", [[], [("List-Unsubscribe", "One-Click")], [("do", "everything")], [("do", "")]])
def test_posting_what_no_button_would_post_changes_nothing(
    pages: OwnPages, web: Web, fields: list[tuple[str, str]]
) -> None:
    before = everything(pages.database)

    assert post(web, pages.page(), fields).status == 200
    assert everything(pages.database) == before


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_form_from_another_site_is_refused(pages: OwnPages, web: Web, site: str) -> None:
    before = everything(pages.database)
    answer = press(web, pages.page(), "stop", **{"Sec-Fetch-Site": site})

    assert answer.status == 403
    assert "came from another website" in answer.text
    assert everything(pages.database) == before


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe\x00do=stop", b"do=topics&shown=%00:%00&topic=a:b&topic=:&topic=x", b"do=pause&for=day&day=2026-13-45",
     b"do=quiet&from=25:00&to=99", b"do=quiet&from=22:00", b"do=language&locale=xx", b"do=pause&for=10y",
     b"do=quiet&day=xxx&whole=%F0%9F%98%80", b"do=topics&shown=" + b"a:b+" * 5000],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json"])
def test_no_body_breaks_it(pages: OwnPages, web: Web, body: bytes, kind: str) -> None:
    answer = web.ask("POST", pages.page(), body, FORM | {"Content-Type": kind})

    assert answer.status == 200
    assert pages.state() == "granted"


def test_topics_that_nobody_offers_are_not_written_down(pages: OwnPages, web: Web) -> None:
    before = pages.one("SELECT count(*) FROM consent_event")
    answer = post(
        web, pages.page(), [("do", "topics"), ("shown", "email:nonsense fax:offers"), ("topic", "email:more")]
    )

    assert "cannot be chosen here" in answer.text
    assert pages.one("SELECT count(*) FROM consent_event") == before


# --- topics


def test_leaving_a_topic_is_an_unsubscribe_with_its_evidence(pages: OwnPages, web: Web) -> None:
    answer = tick(web, pages.page())

    assert answer.status == 200
    assert "We have stopped sending you “Offers” by e\N{NON-BREAKING HYPHEN}mail." in answer.text
    assert pages.state() == "withdrawn"
    assert pages.one("SELECT answer FROM unsubscribe") == 200
    assert pages.one("SELECT source FROM consent_event ORDER BY id DESC LIMIT 1") == "preference centre"
    assert pages.audited() == [("preferences.leave", f"contact {pages.anna}")]


def test_leaving_while_a_message_is_on_the_wire_is_said_to_be_worked_on(pages: OwnPages, web: Web) -> None:
    pages.shop.plan("hello")
    pages.hand_over()
    answer = tick(web, pages.page())

    assert answer.status == 202
    assert "may have been on its way already" in answer.text
    assert pages.one("SELECT answer FROM unsubscribe") == 202


def test_joining_again_is_a_new_consent_that_keeps_what_was_read(pages: OwnPages, web: Web) -> None:
    tick(web, pages.page())
    answer = tick(web, f"{pages.page()}?lang=de", "email:offers")

    assert "Sie erhalten „Angebote“ per E\u2011Mail ab jetzt." in answer.text
    assert pages.state() == "granted"
    wording = pages.one("SELECT wording FROM consent_event ORDER BY id DESC LIMIT 1")
    assert (wording["id"], wording["language"]) == ("preference-centre", "de")
    assert "☑ Angebote" in wording["text"]
    assert "Mit einem Häkchen willigen Sie ein, dass The Gift Shop" in wording["text"]
    assert len(wording["hash"]) == 64
    assert pages.one("SELECT sealed IS NOT NULL AND actor = 'person' FROM consent_event ORDER BY id DESC LIMIT 1")
    assert b"127.0.0.1" not in bytes(pages.one("SELECT sealed FROM consent_event ORDER BY id DESC LIMIT 1"))


def test_a_page_that_lay_open_does_not_undo_an_unsubscribe(pages: OwnPages, web: Web) -> None:
    """It still shows the tick; saving it untouched is no wish for what was left meanwhile."""
    fields = Fields(get(web, pages.page()).text).form("topics")
    web.ask("POST", pages.way_out(), "List-Unsubscribe=One-Click", FORM)
    answer = post(web, pages.page(), fields)

    assert "Nothing was changed" in answer.text
    assert pages.state() == "withdrawn"


def test_a_double_opt_in_topic_asks_by_message_first(pages: OwnPages, web: Web) -> None:
    answer = tick(web, pages.page(), "email:offers", "email:news")

    assert "please confirm “News, once a month” there" in answer.text
    assert pages.state("news") == "pending"
    assert "waiting for your confirmation" in get(web, pages.page()).text
    assert web.ask("POST", pages.link_in_mail("d"), "", FORM).status == 200
    assert pages.state("news") == "granted"
    assert pages.one("SELECT wording->>'text' FROM consent_event WHERE action = 'requested'").startswith("What you")


def test_unticking_what_waits_takes_the_request_back(pages: OwnPages, web: Web) -> None:
    tick(web, pages.page(), "email:offers", "email:news")
    link = pages.link_in_mail("d")
    tick(web, pages.page(), "email:offers")

    assert pages.state("news") == "withdrawn"
    assert web.ask("POST", link, "", FORM).status == 404


def test_a_mails_link_does_not_open_the_phone(pages: OwnPages, web: Web) -> None:
    """It proves the mailbox only: the phone is asked."""
    tick(web, pages.page("email"), "email:offers", "sms:offers")

    assert pages.state("offers", "sms") == "pending"
    assert [mail["channel"] for mail in pages.mails()] == ["sms"]
    assert web.ask("POST", pages.link_in_mail("d"), "", FORM).status == 200
    assert pages.state("offers", "sms") == "granted"


def test_a_texts_link_opens_the_phone_at_once(pages: OwnPages, web: Web) -> None:
    tick(web, pages.page("sms"), "email:offers", "sms:offers")

    assert pages.state("offers", "sms") == "granted"


def test_everything_can_be_stopped_with_one_button(pages: OwnPages, web: Web) -> None:
    answer = press(web, pages.page(), "stop")

    assert (answer.status, "All advertising is stopped" in answer.text) == (200, True)
    assert {pages.state(topic) for topic in ("offers", "letters", "news")} == {"withdrawn"}
    assert pages.state("offers", "sms") == "withdrawn"


def test_an_address_that_its_reader_closed_is_asked_by_message(pages: OwnPages, web: Web) -> None:
    with pages.database.begin() as connection:
        suppression.add(connection, pages.address(), "complaint", source="test")
    answer = tick(web, pages.page(), "email:letters")

    assert "please confirm “Letters from the shop” there" in answer.text
    assert pages.state("letters") == "pending"


@pytest.mark.parametrize(
    ("reason", "channel", "told"),
    [("stop", "sms", "You answered STOP"), ("hard_bounce", "email", "do not reach you here"),
     ("operator", "email", "do not reach you here")],
)  # fmt: skip
def test_what_is_closed_for_good_cannot_be_ticked(
    pages: OwnPages, web: Web, reason: Any, channel: str, told: str
) -> None:
    with pages.database.begin() as connection:
        suppression.add(connection, pages.address(channel), reason, source="test")
    page = get(web, pages.page("email")).text
    answer = post(web, pages.page("email"), [("do", "topics"), ("shown", ""), ("topic", f"{channel}:offers")])

    assert told in page
    assert f'value="{channel}:offers"' not in page
    assert "cannot be chosen here" in answer.text
    assert pages.one("SELECT count(*) FROM suppression") == 1


# --- pause, quiet hours, language


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


# --- how one gets there


def test_the_unsubscribe_page_leads_to_it(pages: OwnPages, web: Web) -> None:
    for page in (get(web, pages.way_out()), web.ask("POST", pages.way_out(), "", FORM)):
        assert f'href="{pages.page()}?lang=en"' in page.text


def test_the_unsubscribed_page_stops_everything_with_its_second_button(pages: OwnPages, web: Web) -> None:
    page = web.ask("POST", pages.way_out(), "", FORM).text
    [fields] = Fields(page).forms

    assert post(web, pages.page(), fields).status == 200
    assert pages.state("letters") == "withdrawn"


def test_who_was_merged_keeps_the_link(pages: OwnPages, web: Web, key_ring: KeyRing) -> None:
    with pages.database.begin() as connection:
        twin = add_person(connection, key_ring, "twin", email=None, phone="+447700900999")
    from dispatcher import identity

    link = pages.page()
    with pages.database.begin() as connection:
        identity.merge(connection, key_ring, pages.anna, twin)

    assert get(web, link).status == 200


def test_nothing_personal_is_in_the_audit(pages: OwnPages, web: Web) -> None:
    tick(web, pages.page(), "email:letters", "sms:offers")
    for fields in (
        [("do", "pause"), ("for", "1w")], [("do", "resume")], [("do", "language"), ("locale", "de")],
        [("do", "quiet"), ("whole", "sun")], [("do", "data")], [("do", "stop")],
    ):  # fmt: skip
        assert post(web, pages.page(), fields).status == 200
    with pages.database.connect() as connection:
        audit = json.dumps([list(map(str, row)) for row in connection.execute(text("SELECT * FROM audit"))])

    assert {action for action, _ in pages.audited()} >= {
        "preferences.leave", "preferences.join", "preferences.pause", "preferences.resume", "preferences.language",
        "preferences.quiet_hours", "own_data.link_sent",
    }  # fmt: skip
    for personal in ("anna@", "mail.example", "+44", "Firstanna", "127.0.0.1"):
        assert personal not in audit
