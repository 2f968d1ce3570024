"""What caps count, read from the ledger: whose it was, where it went, and what became of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from at_work import AtWork, campaign, noon_ahead
from people import add_address, add_person
from small_workspace import FILES
from sqlalchemy import Connection, Engine, text

from dispatcher import identity
from dispatcher.keys import KeyRing
from dispatcher.lifecycle import MAY_HAVE_LEFT, Status

NOON = noon_ahead()
RULES = FILES["dispatcher.toml"].replace("max = 1\n", "max = 2\n")
WORKSPACE = {"dispatcher.toml": RULES, **campaign("one"), **campaign("two"), **campaign("three")}


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> AtWork:
    """Three people, and two mails a day at most."""
    shop = AtWork(database, key_ring, tmp_path, WORKSPACE, starts=NOON)
    with database.begin() as connection:
        for name in ("anna", "ann", "ben"):
            add_person(connection, key_ring, name)
    return shop


def sent_to_all(shop: AtWork, name: str) -> dict[str, str]:
    run_id = shop.plan(shop.start(name))
    shop.send()
    return {who: row.became for who, row in shop.rows(run_id).items()}


def ids_of(connection: Connection) -> dict[str, int]:
    return {row.external_id: row.id for row in connection.execute(text("SELECT external_id, id FROM contact"))}


def merge(shop: AtWork, one: str, other: str) -> None:
    with shop.database.begin() as connection:
        ids = ids_of(connection)
        identity.merge(connection, shop.key_ring, ids[one], ids[other])


def test_two_who_turn_out_to_be_one_have_both_histories(shop: AtWork) -> None:
    sent_to_all(shop, "one")
    merge(shop, "anna", "ann")

    assert sent_to_all(shop, "two") == {"anna": "CAPPED", "ben": "sent"}


def test_a_merge_between_plan_and_authorise_is_counted(shop: AtWork) -> None:
    sent_to_all(shop, "one")
    run_id = shop.plan(shop.start("two"))
    merge(shop, "anna", "ann")
    shop.send()

    became = {who: row.became for who, row in shop.rows(run_id).items()}
    assert became == {"anna": "CAPPED", "ann": "DUPLICATE_ADDRESS", "ben": "sent"}


def test_a_new_address_brings_no_new_slots(shop: AtWork) -> None:
    sent_to_all(shop, "one")
    sent_to_all(shop, "two")
    with shop.database.begin() as connection:
        anna = ids_of(connection)["anna"]
        address = add_address(connection, shop.key_ring, "email", "new@people.example")
        for change in (
            "contact SET email_address_id = :address WHERE id",
            "consent SET address_id = :address WHERE contact_id",
        ):
            connection.execute(text(f"UPDATE {change} = :anna"), {"address": address, "anna": anna})

    assert sent_to_all(shop, "three")["anna"] == "CAPPED"


def test_an_address_keeps_its_history_whoever_has_it(shop: AtWork) -> None:
    sent_to_all(shop, "one")
    sent_to_all(shop, "two")
    shop.do("UPDATE contact SET email_address_id = NULL WHERE external_id = 'anna'")
    with shop.database.begin() as connection:
        add_person(connection, shop.key_ring, "successor", email="anna@people.example")

    assert sent_to_all(shop, "three")["successor"] == "CAPPED"


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.PENDING}))
def test_what_may_have_left_counts_and_nothing_else(shop: AtWork, status: Status) -> None:
    sent_to_all(shop, "one")
    with shop.database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # moves that are not legal
        connection.execute(text("UPDATE message SET status = :status"), {"status": status})
    sent_to_all(shop, "two")

    counted = status in MAY_HAVE_LEFT
    assert set(sent_to_all(shop, "three").values()) == {"CAPPED" if counted else "sent"}


def test_the_window_moves_on(shop: AtWork) -> None:
    sent_to_all(shop, "one")
    sent_to_all(shop, "two")
    shop.move_to(NOON + timedelta(hours=24) - timedelta(minutes=1))
    assert set(sent_to_all(shop, "three").values()) == {"CAPPED"}
    shop.move_to(NOON + timedelta(hours=24, minutes=5))
    assert set(sent_to_all(shop, "three").values()) == {"sent"}
