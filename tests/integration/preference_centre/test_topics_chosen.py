"""Topics joined and left in the preference centre."""

from __future__ import annotations

from typing import Any

import pytest
from own_pages import Fields, OwnPages
from visiting import FORM, get, post, press, tick
from web_server import Web

from dispatcher import suppression


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
