"""Looking at the preference centre changes and betrays nothing, and only its own buttons change anything."""

from __future__ import annotations

import pytest
from own_pages import OwnPages
from people import add_person
from sqlalchemy import text
from unsubscribing import everything
from visiting import FORM, get, post, press
from web_server import Web

from dispatcher.keys import KeyRing
from dispatcher.tokens import PreferenceTokens, WayHome


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
