"""How one gets to the preference centre, and what is noted of it."""

from __future__ import annotations

import json

from own_pages import Fields, OwnPages
from people import add_person
from sqlalchemy import text
from visiting import FORM, get, post, tick
from web_server import Web

from dispatcher.keys import KeyRing


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
