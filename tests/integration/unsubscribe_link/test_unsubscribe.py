"""The unsubscribe barrier over real HTTP: a POST holds at once, and 200 means that nothing is on the wire."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from ledger_rows import add_address, add_contact, add_message, settle, wait_until, waiting_for_a_lock
from sqlalchemy import Engine, text
from unsubscribing import (
    BODY,
    Person,
    answers,
    consent_state,
    events,
    grant,
    message,
    post,
    present_address,
)
from web_server import Answer, Web, serving

from dispatcher import clock
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_addresses, lock_contacts
from dispatcher.tokens import UnsubscribeTokens


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
