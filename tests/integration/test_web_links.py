"""The unsubscribe link over real HTTP: GET never changes anything, POST holds at once."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ledger_rows import add_address, add_contact, add_message, settle, wait_until
from sqlalchemy import Connection, Engine, text
from web_server import Answer, Web, serving

from dispatcher import clock, consent
from dispatcher.consent import ConsentChange
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts
from dispatcher.tokens import UnsubscribeTokens

ONE_CLICK = {"Content-Type": "application/x-www-form-urlencoded"}
BODY = b"List-Unsubscribe=One-Click"
SHOP = {
    "shop": {"name": "Example Shop", "from_email": "hello@shop.example", "postal_address": "1 High Street, London"},
    "topics": {"offers": {"title": {"en": "Offers", "de": "Angebote", "ro": "Oferte"}, "channels": ["email", "sms"]}},
}


@dataclass(frozen=True)
class Person:
    contact_id: int
    address_id: int
    token: str
    pending: object


@pytest.fixture
def tokens(key_ring: KeyRing) -> UnsubscribeTokens:
    return UnsubscribeTokens(key_ring)


@pytest.fixture
def person(database: Engine, key_ring: KeyRing, tokens: UnsubscribeTokens) -> Person:
    """Somebody with granted consent, and a message that waits for its turn."""
    with database.begin() as connection:
        connection.execute(text("UPDATE engine SET shop = CAST(:shop AS jsonb)"), {"shop": json.dumps(SHOP)})
        contact_id = add_contact(connection, key_ring, "c1", email="jane@good.example")
        address_id = present_address(connection, contact_id)
        grant(connection, key_ring, contact_id, address_id)
        pending = add_message(connection, contact_id, address_id)
    return Person(contact_id, address_id, tokens.make(contact_id, "email", "offers", address_id), pending)


@pytest.fixture
def web(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    with serving(database, key_ring, tmp_path / "home") as web:
        yield web


def grant(connection: Connection, key_ring: KeyRing, contact_id: int, address_id: int, channel: str = "email") -> None:
    now = clock.read_now(connection)
    change = ConsentChange(contact_id, channel, "offers", "granted", "person", "a test", now, address_id)
    consent.record(connection, key_ring, [change], now=now)


def present_address(connection: Connection, contact_id: int, channel: str = "email") -> int:
    return connection.execute(
        text(f"SELECT {channel}_address_id FROM contact WHERE id = :id"), {"id": contact_id}
    ).scalar_one()


def consent_state(database: Engine, contact_id: int, channel: str = "email") -> str | None:
    with database.connect() as connection:
        states = consent.state_of(connection, contact_id)
    return next((held.state for held in states if (held.channel, held.topic) == (channel, "offers")), None)


def message(database: Engine, message_id: object) -> tuple[str, str | None]:
    with database.connect() as connection:
        row = connection.execute(text("SELECT status, reason FROM message WHERE id = :id"), {"id": message_id}).one()
        return row.status, row.reason


def everything(database: Engine) -> str:
    """A fingerprint of every row of every table."""
    digest = hashlib.sha256()
    with database.connect() as connection:
        tables = connection.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
        ).all()
        for table in tables:
            rows = connection.scalars(text(f"SELECT t::text || t.xmin::text || t.ctid::text FROM {table} t")).all()
            digest.update(repr((table, sorted(rows))).encode())
    return digest.hexdigest()


def answers(database: Engine) -> list[tuple[int | None, datetime | None]]:
    with database.connect() as connection:
        return [tuple(r) for r in connection.execute(text("SELECT answer, answered_at FROM unsubscribe ORDER BY id"))]


def events(database: Engine, action: str = "withdrawn") -> int:
    with database.connect() as connection:
        return connection.execute(
            text("SELECT count(*) FROM consent_event WHERE action = :action"), {"action": action}
        ).scalar_one()


def post(web: Web, token: str, **headers: str) -> Answer:
    return web.ask("POST", f"/u/{token}", BODY, ONE_CLICK | headers)


def test_a_thousand_looks_change_nothing(database: Engine, web: Web, person: Person) -> None:
    before = everything(database)

    def look(number: int) -> int:
        return web.ask("HEAD" if number % 4 == 0 else "GET", f"/u/{person.token}").status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(look, range(1000))) == {200}
    assert everything(database) == before


def test_looking_cannot_write_even_if_it_wanted_to(database: Engine, web: Web, person: Person) -> None:
    """The database is told that the transaction of a GET is read-only."""
    from dispatcher.web import links

    before = links._words

    def write(connection: Connection, *arguments: object) -> object:
        connection.execute(text("UPDATE contact SET locale = 'xx'"))
        return before(connection, *arguments)

    links._words = write
    try:
        assert web.ask("GET", f"/u/{person.token}").status == 500
    finally:
        links._words = before


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


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (BODY, "application/x-www-form-urlencoded"),
        (
            b'--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
        (b"List-Unsubscribe=One-Click&extra=1&token=other", "application/x-www-form-urlencoded"),
        (b"", ""),
        (b"\xff\xfe broken", "multipart/form-data"),
        (b"{}", "application/json"),
    ],
)
def test_posting_withdraws_whatever_the_body(
    database: Engine, web: Web, person: Person, body: bytes, content_type: str
) -> None:
    answer = web.ask("POST", f"/u/{person.token}", body, {"Content-Type": content_type} if content_type else {})

    assert answer.status == 200
    assert consent_state(database, person.contact_id) == "withdrawn"
    assert message(database, person.pending) == ("skipped", "NO_CONSENT")


def test_the_answer_is_stored_before_it_is_given(database: Engine, web: Web, person: Person) -> None:
    post(web, person.token)

    [(answer, answered_at)] = answers(database)
    with database.connect() as connection:
        committed_at = connection.scalar(text("SELECT committed_at FROM unsubscribe"))
        assert answer == 200
        assert committed_at <= answered_at <= clock.read_now(connection)


def test_a_browser_gets_a_page_and_a_machine_a_line(web: Web, person: Person) -> None:
    page = post(web, person.token, Accept="text/html,*/*", **{"Accept-Language": "en"})
    line = post(web, person.token)

    assert "You are unsubscribed" in page.text
    assert page.header("Content-Type") == "text/html; charset=utf-8"
    assert line.text.startswith("You are unsubscribed.")
    assert line.header("Content-Type") == "text/plain; charset=utf-8"


def test_posting_twice_is_fine_and_no_second_event(database: Engine, web: Web, person: Person) -> None:
    assert [post(web, person.token).status for _ in range(3)] == [200, 200, 200]
    assert events(database) == 1
    assert [answer for answer, _ in answers(database)] == [200, 200, 200]


def test_racing_posts_make_one_event(database: Engine, web: Web, person: Person) -> None:
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: post(web, person.token).status, range(24)))

    assert statuses == [200] * 24
    assert events(database) == 1
    assert consent_state(database, person.contact_id) == "withdrawn"


def test_after_a_new_opt_in_the_old_link_works_again(
    database: Engine, key_ring: KeyRing, web: Web, person: Person
) -> None:
    post(web, person.token)
    with database.begin() as connection:
        lock_contacts(connection, [person.contact_id])
        grant(connection, key_ring, person.contact_id, person.address_id)
    assert consent_state(database, person.contact_id) == "granted"

    assert post(web, person.token).status == 200
    assert consent_state(database, person.contact_id) == "withdrawn"
    assert events(database) == 2


def test_only_this_topic_on_this_channel_is_stopped(
    database: Engine, key_ring: KeyRing, web: Web, person: Person
) -> None:
    with database.begin() as connection:
        others = [
            add_message(connection, person.contact_id, person.address_id, topic="news"),
            add_message(connection, person.contact_id, None, channel="sms"),
            add_message(connection, person.contact_id, person.address_id, class_="transactional"),
            add_message(
                connection, other := add_contact(connection, key_ring, "c2", email="ana@good.example"),
                present_address(connection, other),
            ),
        ]  # fmt: skip
    post(web, person.token)

    assert [message(database, other)[0] for other in others] == ["pending"] * 4


def test_what_stood_behind_the_withdrawn_message_is_due_again(database: Engine, web: Web, person: Person) -> None:
    with database.begin() as connection:
        loser = add_message(connection, person.contact_id, person.address_id, topic="news")
        connection.execute(
            text("UPDATE message SET deferred_reason = 'OUTRANKED', due_at = due_at + interval '1 day' WHERE id = :id"),
            {"id": loser},
        )
    post(web, person.token)

    with database.connect() as connection:
        row = connection.execute(
            text("SELECT deferred_reason, due_at <= clock_timestamp() AS due FROM message WHERE id = :id"),
            {"id": loser},
        ).one()
    assert (row.deferred_reason, row.due) == (None, True)


def test_a_batch_keeps_nothing_of_what_was_withdrawn(database: Engine, web: Web, person: Person) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE message SET batch_id = 7 WHERE id = :id"), {"id": person.pending})
    post(web, person.token)

    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message WHERE batch_id IS NOT NULL")) == 0


@pytest.mark.parametrize("settled_as", ["sent", "unknown", "failed", "pending"])
def test_it_waits_for_what_is_on_the_wire_then_says_200(
    database: Engine, web: Web, person: Person, settled_as: str
) -> None:
    with database.begin() as connection:
        sending = add_message(connection, person.contact_id, person.address_id, status="sending")
    got: list[Answer] = []
    clicking = threading.Thread(target=lambda: got.append(post(web, person.token)))
    clicking.start()
    wait_until(lambda: consent_state(database, person.contact_id) == "withdrawn")
    time.sleep(0.2)  # what must not happen cannot be waited for: an answer while the message is on the wire
    assert got == []
    assert answers(database) == [(None, None)]

    with database.begin() as connection:
        settle(connection, sending, settled_as)
    clicking.join()

    assert got[0].status == 200
    assert [answer for answer, _ in answers(database)] == [200]


def test_after_the_limit_it_says_202(database: Engine, key_ring: KeyRing, tmp_path: Path, person: Person) -> None:
    with database.begin() as connection:
        sending = add_message(connection, person.contact_id, person.address_id, status="sending")
    with serving(database, key_ring, tmp_path / "home", wait=timedelta(milliseconds=150)) as web:
        page = post(web, person.token, Accept="text/html", **{"Accept-Language": "en"})
        assert page.status == 202
        assert "Your request is recorded" in page.text
        assert consent_state(database, person.contact_id) == "withdrawn"

        with database.begin() as connection:
            settle(connection, sending)
        assert post(web, person.token).status == 200
    assert [answer for answer, _ in answers(database)] == [202, 200]


def test_many_who_wait_do_not_hold_up_the_next_one(
    database: Engine, key_ring: KeyRing, web: Web, person: Person
) -> None:
    """Waiting holds neither a thread nor a connection."""
    tokens = UnsubscribeTokens(key_ring)
    with database.begin() as connection:
        sending = add_message(connection, person.contact_id, person.address_id, status="sending")
        other = add_contact(connection, key_ring, "c2", email="ana@good.example")
        token = tokens.make(other, "email", "offers", present_address(connection, other))
    with ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(post, web, person.token) for _ in range(60)]
        wait_until(lambda: len(answers(database)) == 60)
        began = time.monotonic()
        assert post(web, token).status == 200
        assert time.monotonic() - began < 2
        assert not any(future.done() for future in waiting)
        with database.begin() as connection:
            settle(connection, sending)
        assert {future.result().status for future in waiting} == {200}


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


def test_a_link_of_a_former_address_stops_that_address_too(
    database: Engine, key_ring: KeyRing, web: Web, person: Person
) -> None:
    with database.begin() as connection:
        new = add_address(connection, key_ring, "email", "jane@new.example")
        connection.execute(
            text("UPDATE contact SET email_address_id = :new WHERE id = :id"), {"new": new, "id": person.contact_id}
        )
        grant(connection, key_ring, person.contact_id, new)

    page = web.ask("GET", f"/u/{person.token}").text
    assert "j•••@" not in page  # the old address is not shown, and the new one is none of the old mailbox's business
    assert [post(web, person.token).status for _ in range(2)] == [200, 200]

    assert consent_state(database, person.contact_id) == "withdrawn"
    with database.connect() as connection:
        rows = connection.execute(text("SELECT address_id, reason, scope FROM suppression")).all()
    assert [tuple(row) for row in rows] == [(person.address_id, "unsubscribe", "marketing")]


def test_a_link_of_a_former_address_waits_for_anything_on_its_way_there(
    database: Engine, key_ring: KeyRing, tmp_path: Path, person: Person
) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE contact SET email_address_id = NULL"))
        other = add_contact(connection, key_ring, "c2", email="jane@good.example")  # has it now
        add_message(connection, other, person.address_id, status="sending", topic="news")
    with serving(database, key_ring, tmp_path / "home", wait=timedelta(milliseconds=100)) as web:
        assert post(web, person.token).status == 202


def test_a_present_address_is_not_suppressed(database: Engine, web: Web, person: Person) -> None:
    post(web, person.token)

    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM suppression")) == 0


def test_a_link_of_a_merged_contact_speaks_for_the_one_that_stayed(
    database: Engine, key_ring: KeyRing, tmp_path: Path, person: Person
) -> None:
    with database.begin() as connection:
        kept = add_contact(connection, key_ring, "kept", email="jane@good.example")
        last = add_contact(connection, key_ring, "last", email="jane@good.example")
        connection.execute(
            text("UPDATE contact SET merged_into = :k WHERE id = :i"), {"k": kept, "i": person.contact_id}
        )
        connection.execute(text("UPDATE contact SET merged_into = :k WHERE id = :i"), {"k": last, "i": kept})
        grant(connection, key_ring, last, person.address_id)
        pending = add_message(connection, last, person.address_id)
        sending = add_message(connection, person.contact_id, None, status="sending")  # from before the merge
    with serving(database, key_ring, tmp_path / "home", wait=timedelta(milliseconds=100)) as web:
        assert post(web, person.token).status == 202
        with database.begin() as connection:
            settle(connection, sending)
        assert post(web, person.token).status == 200

    assert consent_state(database, last) == "withdrawn"
    assert message(database, pending) == ("skipped", "NO_CONSENT")
    assert message(database, person.pending) == ("skipped", "NO_CONSENT")
    assert events(database) == 1


def test_at_a_shared_phone_everybody_is_left_in_peace(
    database: Engine, key_ring: KeyRing, web: Web, tokens: UnsubscribeTokens
) -> None:
    with database.begin() as connection:
        first, second, third = (
            add_contact(connection, key_ring, name, phone=phone)
            for name, phone in (("a", "+447700900123"), ("b", "+447700900123"), ("c", "+447700900999"))
        )
        address_id = present_address(connection, first, "sms")
        for contact_id in (first, second):
            grant(connection, key_ring, contact_id, address_id, "sms")
        grant(connection, key_ring, third, present_address(connection, third, "sms"), "sms")
        pending = add_message(connection, second, address_id, channel="sms")

    assert "+44••• 23" in web.ask("GET", f"/u/{tokens.make(first, 'sms', 'offers', address_id)}").text
    assert post(web, tokens.make(first, "sms", "offers", address_id)).status == 200

    assert [consent_state(database, c, "sms") for c in (first, second, third)] == ["withdrawn", "withdrawn", "granted"]
    assert message(database, pending) == ("skipped", "NO_CONSENT")


def test_an_erased_contact_can_still_click(database: Engine, web: Web, person: Person) -> None:
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE contact SET data_key = NULL, sealed = NULL, email_address_id = NULL, "
                "erased_at = clock_timestamp()"
            )
        )

    assert web.ask("GET", f"/u/{person.token}").status == 200
    assert post(web, person.token).status == 200


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


def test_a_click_and_an_authorisation_come_in_one_order_only(database: Engine, web: Web, person: Person) -> None:
    """Either the message was authorised before, and the click waits for it; or it sees the withdrawal."""
    decided: list[str] = []
    holding, let_go = threading.Event(), threading.Event()

    def authorise() -> None:
        with database.begin() as connection:
            lock_contacts(connection, [person.contact_id])
            lock_addresses(connection, [person.address_id])
            holding.set()
            let_go.wait(10)
            state = connection.scalar(
                text("SELECT state FROM consent WHERE contact_id = :id"), {"id": person.contact_id}
            )
            if state == "granted":
                connection.execute(
                    text("UPDATE message SET status = 'sending', authorised_at = clock_timestamp() WHERE id = :id"),
                    {"id": person.pending},
                )
            decided.append(state)
        if decided == ["granted"]:
            wait_until(lambda: consent_state(database, person.contact_id) == "withdrawn")
            with database.begin() as connection:
                settle(connection, person.pending)

    worker = threading.Thread(target=authorise)
    worker.start()
    holding.wait(10)
    got: list[Answer] = []
    clicking = threading.Thread(target=lambda: got.append(post(web, person.token)))
    clicking.start()
    wait_until(lambda: waiting_for_a_lock(database))
    let_go.set()
    worker.join()
    clicking.join()

    assert decided == ["granted"]
    assert got[0].status == 200
    assert message(database, person.pending) == ("sent", None)
    with database.connect() as connection:
        row = connection.execute(
            text("SELECT m.authorised_at, m.settled_at, u.committed_at, u.answered_at FROM message m, unsubscribe u")
        ).one()
    assert row.authorised_at < row.committed_at < row.settled_at < row.answered_at


def waiting_for_a_lock(database: Engine) -> bool:
    with database.connect() as connection:
        return bool(
            connection.scalar(
                text(
                    "SELECT EXISTS (SELECT FROM pg_stat_activity "
                    "WHERE datname = current_database() AND wait_event_type = 'Lock')"
                )
            )
        )


def test_a_contact_that_is_merged_while_the_click_waits_is_followed(
    database: Engine, key_ring: KeyRing, web: Web, person: Person
) -> None:
    with database.begin() as connection:
        kept = add_contact(connection, key_ring, "kept", email="kept@good.example")
        grant(connection, key_ring, kept, present_address(connection, kept))
    got: list[Answer] = []
    clicking = threading.Thread(target=lambda: got.append(post(web, person.token)))
    with database.begin() as connection:
        lock_contacts(connection, [person.contact_id, kept])
        clicking.start()
        wait_until(lambda: waiting_for_a_lock(database))
        connection.execute(
            text("UPDATE contact SET merged_into = :kept WHERE id = :id"), {"kept": kept, "id": person.contact_id}
        )
    clicking.join()

    assert got[0].status == 200
    assert consent_state(database, kept) == "withdrawn"


def test_no_token_is_ever_logged(database: Engine, web: Web, person: Person, capfd: pytest.CaptureFixture[str]) -> None:
    web.ask("GET", f"/u/{person.token}?utm=secret-query")
    post(web, person.token)
    web.ask("GET", f"/u/{person.token}x")
    logged = "".join(capfd.readouterr())

    assert "/u/{token" in logged
    assert person.token not in logged
    assert "secret-query" not in logged
    assert "jane" not in logged
