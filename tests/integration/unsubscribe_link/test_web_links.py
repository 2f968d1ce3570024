"""The unsubscribe link over real HTTP: what is shown, what is refused, and that looking changes nothing."""

from __future__ import annotations

import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
from ledger_rows import wait_until
from sqlalchemy import Connection, Engine, text
from structlog.testing import LogCapture
from unsubscribing import Person, consent_state, everything, post
from web_server import Web

from dispatcher.keys import KeyRing
from dispatcher.tokens import UnsubscribeTokens


def test_a_thousand_looks_change_nothing(database: Engine, web: Web, person: Person) -> None:
    before = everything(database)

    def look(number: int) -> int:
        return web.ask("HEAD" if number % 4 == 0 else "GET", f"/u/{person.token}").status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(look, range(1000))) == {200}
    assert everything(database) == before


def test_looking_cannot_write_even_if_it_wanted_to(database: Engine, web: Web, person: Person) -> None:
    """The database is told that the transaction of a GET is read-only."""
    from dispatcher.web import link_pages

    before = link_pages.words_for

    def write(connection: Connection, *arguments: object) -> object:
        connection.execute(text("UPDATE contact SET locale = 'xx'"))
        return before(connection, *arguments)

    link_pages.words_for = write
    try:
        assert web.ask("GET", f"/u/{person.token}").status == 500
    finally:
        link_pages.words_for = before


def test_the_page_shows_one_button_and_hides_the_address(web: Web, person: Person) -> None:
    page = web.ask("GET", f"/u/{person.token}", headers={"Accept-Language": "en"})

    assert page.status == 200
    assert page.header("Content-Type") == "text/html; charset=utf-8"
    assert "j•••@g•••.example" in page.text
    assert "jane" not in page.text
    assert "Offers" in page.text
    assert "Example Shop" in page.text
    assert page.text.count("<button") == page.text.count("<form") == 1
    assert f'method="post" action="/u/{person.token}"' in page.text
    assert "<script" not in page.text


def test_head_says_what_get_says_without_the_page(web: Web, person: Person) -> None:
    get, head = (web.ask(method, f"/u/{person.token}") for method in ("GET", "HEAD"))

    assert (head.status, head.body) == (200, b"")
    assert head.header("Content-Length") == get.header("Content-Length")


def test_the_page_speaks_the_readers_language(web: Web, person: Person) -> None:
    for accepted, language in (
        ("de-AT,de;q=0.9,en;q=0.8", "de"), ("xx, ro;q=0.5", "ro"), ("", "en"), ("en;q=0.1, de;q=0.7", "de"),
        (";;q=é,*", "en"),
    ):  # fmt: skip
        page = web.ask("GET", f"/u/{person.token}", headers={"Accept-Language": accepted})

        assert f'<html lang="{language}">' in page.text


def test_without_a_wish_the_page_speaks_the_contacts_language(database: Engine, web: Web, person: Person) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE contact SET locale = 'de-CH'"))

    assert '<html lang="de">' in web.ask("GET", f"/u/{person.token}").text


def test_what_else_goes_on_in_the_language_of_the_page(database: Engine, web: Web, person: Person) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE contact SET locale = 'de-CH'"))
    page = web.ask("GET", f"/u/{person.token}", headers={"Accept-Language": "ro"}).text
    [more] = re.findall(r'href="(/p/[^"]+)"', page)

    assert '<html lang="ro">' in web.ask("GET", more).text


def test_a_browser_gets_a_page_and_a_machine_a_line(web: Web, person: Person) -> None:
    page = post(web, person.token, Accept="text/html,*/*", **{"Accept-Language": "en"})
    line = post(web, person.token)

    assert "You are unsubscribed" in page.text
    assert page.header("Content-Type") == "text/html; charset=utf-8"
    assert line.text.startswith("You are unsubscribed.")
    assert line.header("Content-Type") == "text/plain; charset=utf-8"


def test_a_storm_of_scanners_does_not_hold_up_a_click(web: Web, person: Person) -> None:
    stop = threading.Event()

    def scan() -> None:
        while not stop.is_set():
            web.ask("GET", f"/u/{person.token}")

    scanners = [threading.Thread(target=scan) for _ in range(20)]
    for scanner in scanners:
        scanner.start()
    try:
        began = time.monotonic()
        assert post(web, person.token).status == 200
        assert time.monotonic() - began < 2
    finally:
        stop.set()
        for scanner in scanners:
            scanner.join()


def test_bad_tokens_all_get_the_same_answer(
    database: Engine, key_ring: KeyRing, web: Web, person: Person, tokens: UnsubscribeTokens
) -> None:
    before = everything(database)
    chance = random.Random(7)
    flipped = person.token[:-2] + ("A" if person.token[-2] != "A" else "B") + person.token[-1]
    unknown = tokens.make(10**9, "email", "offers", person.address_id)
    foreign = UnsubscribeTokens(KeyRing([b"x" * 32], b"h" * 32)).make(person.contact_id, "email", "offers", 1)
    noise = [
        "".join(chance.choices("abcXYZ019-_.~%2F", k=chance.randrange(1, 200))).replace("%", "") for _ in range(20)
    ]
    wrong = [
        "",
        "x",
        flipped,
        unknown,
        foreign,
        person.token + "/",
        "a/b/c",
        "%00",
        "%C3%A9",
        "%FF",
        "A" * 20_000,
        *noise,
    ]
    seen = {
        (
            method,
            answer.status,
            answer.body,
            tuple(sorted((k, v) for k, v in answer.headers if k not in ("date", "x-request-id"))),
        )
        for method in ("GET", "POST")
        for token in wrong
        for answer in [web.ask(method, f"/u/{token}", headers={"Accept": "text/html"})]
    }

    assert len(seen) == 2
    assert {status for _, status, _, _ in seen} == {404}
    assert len({body for _, _, body, _ in seen}) == 1
    assert everything(database) == before


def test_a_bad_token_gives_a_machine_one_line(web: Web, person: Person) -> None:
    answer = post(web, "nonsense")

    assert (answer.status, answer.text) == (404, "This link does not work.\n")


def test_other_methods_are_not_allowed(database: Engine, web: Web, person: Person) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = web.ask(method, f"/u/{person.token}")

        assert answer.status == 405
        assert set((answer.header("Allow") or "").replace(" ", "").split(",")) == {"GET", "HEAD", "POST"}
    assert consent_state(database, person.contact_id) == "granted"


def test_a_huge_body_is_refused_before_it_is_read(web: Web, person: Person) -> None:
    assert web.ask("POST", f"/u/{person.token}", b"x" * 300_000).status == 413


def test_every_answer_carries_the_safe_headers_and_no_cookie(web: Web, person: Person) -> None:
    page, bad = web.ask("GET", f"/u/{person.token}"), web.ask("GET", "/u/x")
    for answer in (page, bad, post(web, person.token), web.ask("GET", "/nothing"), web.ask("GET", "/healthz")):
        policy = answer.header("Content-Security-Policy") or ""
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert answer.header("Referrer-Policy") == "no-referrer"
        assert answer.header("X-Content-Type-Options") == "nosniff"
        assert answer.header("Cache-Control") == "no-store"
        assert answer.header("X-Robots-Tag") == "noindex, nofollow"
        assert answer.header("Set-Cookie") is None
        assert answer.header("Server") is None
        assert answer.header("Location") is None
    for answer in (page, bad):
        policy = answer.header("Content-Security-Policy") or ""
        assert "form-action 'self'" in policy
        assert "style-src 'sha256-" in policy


def test_no_token_is_ever_logged(database: Engine, web: Web, person: Person, capfd: pytest.CaptureFixture[str]) -> None:
    events = LogCapture()
    structlog.configure(processors=[events])  # whatever other tests did to the log of this process
    web.ask("GET", f"/u/{person.token}?utm=secret-query")
    post(web, person.token)
    web.ask("GET", f"/u/{person.token}x")
    wait_until(lambda: [event.get("route") for event in events.entries] == ["/u/{token:path}"] * 3)
    logged = str(events.entries) + "".join(capfd.readouterr())

    assert person.token not in logged
    assert "secret-query" not in logged
    assert "jane" not in logged
