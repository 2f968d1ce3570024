"""Contacts that are merged while runs plan and send."""

from __future__ import annotations

from pathlib import Path

from people import say
from racing import PEOPLE, contact, send_all, started, statuses
from sqlalchemy import Engine, text

from dispatcher import identity, messages, runs
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page
from dispatcher.sending import Hands


def test_a_cap_counts_what_either_of_two_merged_contacts_got_in_the_same_run(hands: Hands, key_ring: KeyRing) -> None:
    with hands.database.begin() as connection:
        say(connection, key_ring, contact(connection, "p0"), [("email", "offers", "withdrawn")])
    started(hands.database)
    send_all(hands)  # p1 got it, p0 did not
    with hands.database.begin() as connection:
        identity.merge(connection, key_ring, contact(connection, "p0"), contact(connection, "p1"))
        survivor = contact(connection, "p1")
        assert survivor == contact(connection, "p0")
        connection.execute(text("UPDATE consent SET state = 'granted' WHERE contact_id = :id"), {"id": survivor})
    again = started(hands.database, "again")
    send_all(hands)

    assert statuses(hands.database, again) == {"CAPPED": PEOPLE - 1}


def test_whoever_was_merged_after_one_got_it_gets_it_once(hands: Hands, key_ring: KeyRing) -> None:
    with hands.database.begin() as connection:
        run_id = runs.start(connection, "hello", started_by="test")
        p0, p1 = contact(connection, "p0"), contact(connection, "p1")
        connection.execute(text("UPDATE audience_page SET contact_ids = array_remove(contact_ids, :p0)"), {"p0": p0})
        connection.execute(
            text("INSERT INTO audience_page (run_id, page, contact_ids) VALUES (:run, 1, ARRAY[CAST(:p0 AS bigint)])"),
            {"run": run_id, "p0": p0},
        )
    assert plan_page(hands.database, run_id)
    send_all(hands)
    with hands.database.begin() as connection:
        identity.merge(connection, key_ring, p0, p1)
    assert plan_page(hands.database, run_id)
    send_all(hands)

    assert statuses(hands.database) == {"sent": PEOPLE - 1, "DUPLICATE_ADDRESS": 1}


def test_a_message_planned_while_its_contact_is_merged_goes_to_the_survivor(
    hands: Hands, key_ring: KeyRing, tmp_path: Path
) -> None:
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE contact SET country = 'DE' WHERE external_id = 'p0'"))  # not in the segment
    with hands.database.begin() as merging:
        identity.merge(merging, key_ring, contact(merging, "p0"), contact(merging, "p1"))
        started(hands.database)
    send_all(hands)
    send_all(hands)

    assert statuses(hands.database) == {"sent": PEOPLE - 1}
    assert '"to":"p0@people.example"' in (tmp_path / "sandbox" / "outbox.jsonl").read_text()


def test_a_message_that_comes_back_to_a_tombstone_is_surplus(hands: Hands, key_ring: KeyRing) -> None:
    started(hands.database)
    taken_back = text("""UPDATE message SET status = :status, authorised_at = NULL, batch_id = NULL
                         WHERE contact_id = (SELECT id FROM contact WHERE external_id = 'p1')""")
    with hands.database.begin() as connection:
        connection.execute(taken_back, {"status": "sending"})
    with hands.database.begin() as connection:
        identity.merge(connection, key_ring, contact(connection, "p0"), contact(connection, "p1"))
    with hands.database.begin() as connection:
        connection.execute(taken_back, {"status": "pending"})
    send_all(hands)

    assert statuses(hands.database) == {"sent": PEOPLE - 2, "DUPLICATE_ADDRESS": 2}


def test_who_asks_for_a_message_to_a_tombstone_holds_only_its_survivor(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        p0, p1 = contact(connection, "p0"), contact(connection, "p1")
        identity.merge(connection, key_ring, p0, p1)
        connection.execute(text("UPDATE contact_alias SET contact_id = :p1 WHERE external_id = 'p1'"), {"p1": p1})
    with shop.begin() as asking:
        wish = messages.Wish("order", "email", "p1", {})
        messages.submit(asking, key_ring, wish, client="shop", idempotency_key="order-1")
        with shop.begin() as other:
            free = text("SELECT id FROM contact WHERE id = ANY(:ids) FOR NO KEY UPDATE SKIP LOCKED")
            assert other.scalars(free, {"ids": [p0, p1]}).all() == [p1]
