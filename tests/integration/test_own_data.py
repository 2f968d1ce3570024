"""What we know of somebody opens to themselves alone: by a link that is sent to them, once, in one browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from ledger_rows import wait_until
from own_pages import Fields, OwnPages, encoded, make_pages
from sqlalchemy import Engine, text
from structlog.testing import LogCapture
from unsubscribing import everything
from web_server import Answer, Web, serving

from dispatcher import rights, suppression
from dispatcher.contacts import Particulars, personal_of, save_contact
from dispatcher.content.pages import Say
from dispatcher.keys import KeyRing
from dispatcher.rights.exporting import SECTIONS
from dispatcher.tokens import DataTokens, WayToData

FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html", "Accept-Language": "en"}


@pytest.fixture
def pages(database: object, key_ring: KeyRing, tmp_path: Path) -> OwnPages:
    return make_pages(database, key_ring, tmp_path / "home")  # type: ignore[arg-type]


@pytest.fixture
def web(pages: OwnPages, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    with serving(pages.database, key_ring, tmp_path / "home", wait=timedelta(milliseconds=200)) as web:
        yield web


def get(web: Web, path: str) -> Answer:
    return web.ask("GET", path, headers={"Accept": "text/html", "Accept-Language": "en"})


def post(web: Web, path: str, fields: list[tuple[str, str]], **headers: str) -> Answer:
    return web.ask("POST", path, encoded(fields), FORM | headers)


def ask(web: Web, pages: OwnPages) -> str:
    """Ask for a link and return the path that the message has."""
    assert "We have sent a link to a•••@m•••.example" in post(web, pages.page(), [("do", "data")]).text
    return pages.link_in_mail("m")


def opened(web: Web, path: str) -> Answer:
    return post(web, path, Fields(get(web, path).text).form("open"))


def test_the_link_goes_to_her_own_address_and_says_nothing_of_her(pages: OwnPages, web: Web) -> None:
    path = ask(web, pages)
    [mail] = pages.mails()

    assert (mail["to"], mail["channel"]) == ("anna@mail.example", "email")
    assert mail["subject"] == "Your data at The Gift Shop"
    assert not any(name == "List-Unsubscribe" for name, _ in mail["headers"])
    assert "anna@" not in path


def test_looking_opens_nothing_so_a_scanner_does_not_use_the_link_up(pages: OwnPages, web: Web) -> None:
    path = ask(web, pages)
    before = everything(pages.database)
    for _ in range(20):
        page = get(web, path)
        assert page.status == web.ask("HEAD", path).status == 200
        assert "Firstanna" not in page.text
        assert "anna@mail" not in page.text
    assert everything(pages.database) == before
    assert "Firstanna" in opened(web, path).text


def test_the_first_browser_has_it_and_no_other(pages: OwnPages, web: Web) -> None:
    path = ask(web, pages)
    first, second = (Fields(get(web, path).text).form("open") for _ in range(2))

    assert "Firstanna" in post(web, path, first).text
    assert post(web, path, second).status == 404
    assert get(web, path).status == 404
    assert "Firstanna" in post(web, path, first).text  # the same browser, again


def test_of_many_browsers_at_once_one_has_it(pages: OwnPages, web: Web) -> None:
    path = ask(web, pages)
    forms = [Fields(get(web, path).text).form("open") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda form: post(web, path, form).status, forms))

    assert sorted(statuses) == [200, *[404] * 7]


def test_the_link_ends_after_half_an_hour_also_where_it_is_open(pages: OwnPages, web: Web) -> None:
    path = ask(web, pages)
    form = Fields(get(web, path).text).form("open")
    assert post(web, path, form).status == 200
    pages.shop.wait(timedelta(minutes=31))

    assert post(web, path, form).status == 404
    assert get(web, path).status == 404


def test_bad_links_all_get_the_same_answer(pages: OwnPages, web: Web, key_ring: KeyRing) -> None:
    path = ask(web, pages)
    way = DataTokens(key_ring).read(path.removeprefix("/m/"))
    tokens = DataTokens(key_ring)
    wrong = [
        "/m/x", "/m/", f"{path}x", pages.page().replace("/p/", "/m/"),
        f"/m/{tokens.make(WayToData(way.contact_id, 'email', way.address_id, way.link_id + 1))}",
        f"/m/{tokens.make(WayToData(way.contact_id + 1, 'email', way.address_id, way.link_id))}",
        f"/m/{tokens.make(WayToData(way.contact_id, 'sms', pages.address('sms'), way.link_id))}",
    ]  # fmt: skip
    answers = {
        (a.status, a.body) for one in wrong for a in (get(web, one), post(web, one, [("do", "open"), ("key", "k")]))
    }

    assert len(answers) == 1
    assert {status for status, _ in answers} == {404}


@pytest.mark.parametrize("fields", [[("do", "open")], [("do", "open"), ("key", "")], [("key", "k")], [("do", "erase")]])
def test_posting_without_the_pages_secret_opens_nothing(
    pages: OwnPages, web: Web, fields: list[tuple[str, str]]
) -> None:
    path = ask(web, pages)
    before = everything(pages.database)

    assert post(web, path, fields).status == 404
    assert everything(pages.database) == before


def test_a_form_from_another_site_opens_nothing(pages: OwnPages, web: Web) -> None:
    path = ask(web, pages)
    form = Fields(get(web, path).text).form("open")

    assert post(web, path, form, **{"Sec-Fetch-Site": "cross-site"}).status == 404
    assert post(web, path, form, **{"Sec-Fetch-Site": "same-origin"}).status == 200


def test_a_mailbox_cannot_be_filled_with_links(pages: OwnPages, web: Web) -> None:
    ask(web, pages)
    for _ in range(5):
        assert "was sent to a•••@m•••.example a short while ago" in post(web, pages.page(), [("do", "data")]).text
    assert len(pages.mails()) == 1
    for _ in range(10):
        pages.shop.wait(timedelta(minutes=11))
        post(web, pages.page(), [("do", "data")])
        pages.shop.send()
    assert len(pages.mails()) == 5


def test_who_has_no_mailbox_gets_the_link_by_text(pages: OwnPages, web: Web) -> None:
    pages.do("UPDATE contact SET email_address_id = NULL WHERE id = :id", id=pages.anna)
    answer = post(web, pages.page("sms"), [("do", "data")])

    assert "+44••• 23" in answer.text
    [text_message] = pages.mails()
    assert (text_message["to"], text_message["channel"]) == ("+447700900123", "sms")


def test_who_cannot_be_reached_is_told_whom_to_write_to(pages: OwnPages, web: Web) -> None:
    with pages.database.begin() as connection:
        suppression.add(connection, pages.address(), "hard_bounce", source="test")

    assert "Please write to hello@small.example instead" in post(web, pages.page(), [("do", "data")]).text
    assert pages.mails() == []


def test_it_is_sent_although_all_advertising_is_stopped(pages: OwnPages, web: Web) -> None:
    post(web, pages.page(), [("do", "stop")])

    assert "/m/" in ask(web, pages)


def test_a_correction_is_kept_and_an_empty_field_is_forgotten(pages: OwnPages, web: Web, key_ring: KeyRing) -> None:
    path = ask(web, pages)
    form = dict(Fields(opened(web, path).text).form("correct"))
    form |= {"first_name": "  Ana\u0007 María ", "last_name": "", "postal_code": "EC1A 7JQ", "email": "x@y.example"}
    answer = post(web, path, list(form.items()))

    assert "Your corrections are saved" in answer.text
    assert "Ana María" in answer.text
    with pages.database.connect() as connection:
        personal = personal_of(connection, key_ring, pages.anna)
    assert (personal.first_name, personal.postal_code) == ("Ana María", "EC1A 7JQ")
    assert personal.email == "anna@mail.example"  # an address proves who they are; it is not corrected here
    assert ("contact.correct", f"contact {pages.anna}") in pages.audited()


def test_what_the_form_does_not_name_stays_and_what_is_too_long_is_not_taken(
    pages: OwnPages, web: Web, key_ring: KeyRing
) -> None:
    path = ask(web, pages)
    key = dict(Fields(opened(web, path).text).form("correct"))["key"]

    def names() -> tuple[str | None, str | None]:
        with pages.database.connect() as connection:
            personal = personal_of(connection, key_ring, pages.anna)
        return personal.first_name, personal.last_name

    before = names()
    answer = post(web, path, [("do", "correct"), ("key", key), ("first_name", "A" * 2_000), ("last_name", "Berg")])
    assert "a name or a postal code has at most 200 characters" in answer.text
    assert names() == before

    post(web, path, [("do", "correct"), ("key", key), ("last_name", "B" * 200)])
    assert names() == (before[0], "B" * 200)
    post(web, path, [("do", "correct"), ("key", key), ("last_name", " ")])
    assert names() == (before[0], None)
    assert pages.one("SELECT details FROM audit WHERE action = 'contact.correct' ORDER BY id DESC LIMIT 1") == {
        "fields": ["last_name"]
    }


def test_everything_can_be_taken_along_and_read(pages: OwnPages, web: Web) -> None:
    path = ask(web, pages)
    page = opened(web, path).text
    download = post(web, path, Fields(page).form("download"))

    assert download.header("Content-Type") == "application/json"
    assert download.header("Content-Disposition") == 'attachment; filename="my-data.json"'
    assert "anna@mail.example" in json.dumps(json.loads(download.body))
    readable = post(web, path, Fields(page).form("all")).text
    assert "anna@mail.example" in readable
    assert all(f">{Say('en')(f'part_{name}')}</h2>" in readable for name in SECTIONS)
    german = post(web, f"{path}?lang=de", Fields(page).form("all")).text
    assert ">Woher wir es wissen</h2>" in german
    assert ">Consent evidence</h2>" not in german
    assert [action for action, _ in pages.audited()].count("own_data.exported") == 3


def test_erasing_asks_twice_and_then_is_done(pages: OwnPages, web: Web) -> None:
    preferences, path = pages.page(), ask(web, pages)
    form = Fields(opened(web, path).text).form("erase")

    assert "tick the box first" in post(web, path, form).text
    assert pages.one("SELECT erased_at FROM contact") is None
    done = post(web, path, [*form, ("sure", "yes")])
    assert (done.status, "Your data have been erased" in done.text) == (200, True)
    assert pages.one("SELECT data_key FROM contact") is None
    for link in (path, preferences):
        assert "Your data have been erased" in get(web, link).text
    assert post(web, path, form).text.count("Firstanna") == 0


def test_the_second_of_two_clicks_on_erase_is_told_the_same(pages: OwnPages, web: Web, database: Engine) -> None:
    preferences, path = pages.page(), ask(web, pages)
    form = [*Fields(opened(web, path).text).form("erase"), ("sure", "yes")]
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(3) as pool:
        with database.begin() as connection:
            connection.execute(text("SELECT FROM contact FOR UPDATE"))
            clicks = [pool.submit(post, web, path, form) for _ in range(2)]
            clicks.append(pool.submit(post, web, preferences, [("do", "pause"), ("for", "1w")]))
            wait_until(lambda: pages.one(waiting) == 3)
        answers = [click.result() for click in clicks]

    for answer in answers[:2]:  # in either order, and the link is closed by the first
        assert answer.status in (200, 202)
        assert "Your data " in answer.text
    assert answers[2].status in (200, 202)  # paused before, or erased
    assert "does not work" not in answers[2].text
    assert pages.one("SELECT count(*) FROM erasure") == 1


def test_erasing_is_in_progress_while_a_message_is_on_the_wire(pages: OwnPages, web: Web, key_ring: KeyRing) -> None:
    pages.shop.plan("hello")
    pages.hand_over()
    preferences, path = pages.page(), ask(web, pages)
    form = [*Fields(opened(web, path).text).form("erase"), ("sure", "yes")]

    answer = post(web, path, form)
    assert (answer.status, "Your data are being erased" in answer.text) == (202, True)
    assert "Your data are being erased" in get(web, preferences).text
    assert pages.one("SELECT data_key IS NOT NULL FROM contact")
    pages.do("UPDATE message SET status = 'sent', settled_at = clock_timestamp() WHERE status = 'sending'")
    rights.finish_erasures(pages.database, key_ring)
    assert "Your data have been erased" in get(web, path).text


def test_who_has_her_former_address_by_now_does_not_hear_of_her_erasure(
    pages: OwnPages, web: Web, key_ring: KeyRing
) -> None:
    link = pages.page()
    contact_id = pages.one("SELECT id FROM contact")
    with pages.database.begin() as connection:
        save_contact(
            connection, key_ring, Particulars(pages.one("SELECT external_id FROM contact"), email="new@mail.example")
        )
        save_contact(connection, key_ring, Particulars("somebody-else", email="anna@mail.example"))
        rights.request_erasure(connection, key_ring, contact_id, by="test")

    for state in ("in progress", "done"):
        assert get(web, link).status == 404, state
        assert "eras" not in get(web, link).text
        rights.finish_erasures(pages.database, key_ring)


def test_nothing_of_the_link_is_logged(pages: OwnPages, web: Web) -> None:
    events = LogCapture()
    structlog.configure(processors=[events])  # whatever other tests did to the log of this process
    path = ask(web, pages)
    assert opened(web, path).status == 200
    logged = str(events.entries)

    assert "/m/{token:path}" in logged
    assert path not in logged
    assert "anna" not in logged
