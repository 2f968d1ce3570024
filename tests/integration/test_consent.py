"""Consent in the ledger: evidence in an unbroken chain, and states that follow from it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from ledger_rows import add_contact
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from dispatcher import clock, consent
from dispatcher.consent import ConsentChange, Outcome
from dispatcher.consent.evidence import read_evidence
from dispatcher.keys import KeyRing
from dispatcher.locks import lock_contacts

THEN = datetime(2026, 1, 1, tzinfo=UTC)


def email_of(connection: Connection, contact_id: int) -> int:
    query = text("SELECT email_address_id FROM contact WHERE id = :id")
    return int(connection.execute(query, {"id": contact_id}).scalar_one())


def record(connection: Connection, key_ring: KeyRing, *changes: ConsentChange) -> list[Outcome]:
    lock_contacts(connection, {change.contact_id for change in changes})
    return consent.record(connection, key_ring, changes, now=clock.read_now(connection))


def state(connection: Connection, contact_id: int, topic: str = "offers") -> str | None:
    return next((held.state for held in consent.state_of(connection, contact_id) if held.topic == topic), None)


@pytest.fixture
def anna(connection: Connection, key_ring: KeyRing) -> int:
    return add_contact(connection, key_ring, "anna", email="anna@shop.example")


@pytest.fixture
def grant(connection: Connection, anna: int) -> ConsentChange:
    return ConsentChange(
        anna, "email", "offers", "granted", "import", "file:1", THEN, email_of(connection, anna),
        opt_in_level="confirmed_opt_in", wording={"id": "footer", "language": "en"}, sealed={"ip": "192.0.2.7"},
    )  # fmt: skip


def test_a_grant_is_evidenced_and_held(connection: Connection, key_ring: KeyRing, grant: ConsentChange) -> None:
    assert record(connection, key_ring, grant) == [Outcome.CHANGED]

    [held] = consent.state_of(connection, grant.contact_id)
    assert (held.state, held.confirmed, held.effective_at, held.for_present_address) == ("granted", True, THEN, True)
    row = connection.execute(text("SELECT * FROM consent_event")).one()
    assert row.wording == {"id": "footer", "language": "en"}
    assert b"192.0.2.7" not in bytes(row.sealed)
    data_key = connection.scalar(text("SELECT data_key FROM contact"))
    assert key_ring.open_data_key(data_key).open(row.sealed) == {"ip": "192.0.2.7"}


def test_the_same_claim_is_recorded_once(connection: Connection, key_ring: KeyRing, grant: ConsentChange) -> None:
    undated = ConsentChange(grant.contact_id, "email", "news", "requested", "import", "file:2", None, grant.address_id)

    assert record(connection, key_ring, grant, grant, undated) == [Outcome.CHANGED, Outcome.KNOWN, Outcome.CHANGED]
    assert record(connection, key_ring, grant, undated) == [Outcome.KNOWN, Outcome.KNOWN]
    assert connection.scalar(text("SELECT count(*) FROM consent_event")) == 2


def test_an_attempt_after_a_withdrawal_is_kept_but_changes_nothing(
    connection: Connection, key_ring: KeyRing, grant: ConsentChange
) -> None:
    now = clock.read_now(connection)
    consent.withdraw(
        connection, key_ring, grant.contact_id, "email", ["offers"], address_id=grant.address_id, source="link", now=now
    )

    assert record(connection, key_ring, grant) == [Outcome.KEPT]
    assert state(connection, grant.contact_id) == "withdrawn"
    assert connection.scalars(text("SELECT actor FROM consent_event ORDER BY id")).all() == ["person", "import"]


def test_a_person_may_come_back(connection: Connection, key_ring: KeyRing, grant: ConsentChange) -> None:
    for action, expected in (("withdrawn", "withdrawn"), ("granted", "granted"), ("withdrawn", "withdrawn")):
        record(
            connection, key_ring,
            ConsentChange(grant.contact_id, "email", "offers", action, "person", "form", None, grant.address_id),
        )  # fmt: skip
        assert state(connection, grant.contact_id) == expected


def test_a_changed_address_voids_consent(connection: Connection, key_ring: KeyRing, grant: ConsentChange) -> None:
    record(connection, key_ring, grant)
    other = add_contact(connection, key_ring, "other", email="new@shop.example")
    connection.execute(text("UPDATE contact SET email_address_id = NULL WHERE id = :id"), {"id": other})
    connection.execute(
        text("UPDATE contact SET email_address_id = (SELECT max(id) FROM address) WHERE id = :id"),
        {"id": grant.contact_id},
    )

    [held] = consent.state_of(connection, grant.contact_id)

    assert not held.for_present_address


def any_change(chance: random.Random, contact_id: int, address_id: int) -> ConsentChange:
    return ConsentChange(
        contact_id,
        "email",
        chance.choice(["offers", "news"]),
        chance.choice(["requested", "granted", "withdrawn"]),
        chance.choice(["person", "import", "shop", "operator"]),
        "test",
        THEN + timedelta(hours=chance.randrange(30)),
        address_id,
        basis=chance.choice(["consent", "consent", "soft_opt_in", "implied_purchase", "implied_inquiry"]),
    )


def test_states_always_follow_from_the_evidence(connection: Connection, key_ring: KeyRing) -> None:
    chance = random.Random(7)
    people = [add_contact(connection, key_ring, str(n), email=f"{n}@shop.example") for n in range(6)]
    address = {person: email_of(connection, person) for person in people}
    for _ in range(25):
        some = [chance.choice(people) for _ in range(chance.randrange(1, 9))]
        record(connection, key_ring, *(any_change(chance, person, address[person]) for person in some))

        evidence = read_evidence(connection, people)
        held = {(p, h.channel, h.topic): h for p in people for h in consent.state_of(connection, p)}
        expected = {key: consent.state_after(pieces, address[key[0]]) for key, pieces in evidence.items()}
        assert {key: (h.state, h.confirmed, h.basis, h.effective_at, h.expires_at) for key, h in held.items()} == {
            key: (s.state, s.confirmed, s.basis, s.effective_at, s.expires_at) for key, s in expected.items() if s
        }
        for key, h in held.items():  # told in other words: after a withdrawal nobody else grants
            if h.state == "granted" and any(piece.action == "withdrawn" for piece in evidence[key]):
                assert any(
                    (p.actor, p.action, p.occurred_at) == ("person", "granted", h.effective_at) for p in evidence[key]
                )
    assert consent.verify_chain(connection) == []


FORGERIES = {
    "UPDATE consent_event SET action = 'withdrawn' WHERE id = 3": "3 was changed",
    "UPDATE consent_event SET occurred_at = occurred_at - interval '1 microsecond' WHERE id = 8": "8 was changed",
    "UPDATE consent_event SET order_seq = order_seq + 1 WHERE id = 1": "1 was changed",
    "UPDATE consent_event SET wording = '{}' WHERE id = 5": "5 was changed",
    "DELETE FROM consent_event WHERE id IN (4, 5)": "4 to 5 is missing",
    "DELETE FROM consent_event WHERE id = 1": "1 to 1 is missing",
    "UPDATE consent_event SET previous_hash = hash WHERE id = 6": "6 does not follow",
    "UPDATE consent_event SET id = 30 WHERE id = 2": "2 to 2 is missing",
    "DELETE FROM consent_event WHERE id IN (7, 8)": "7 to 8 is missing at the end",
    "DELETE FROM consent_event": "1 to 8 is missing at the end",
    "UPDATE consent_event SET basis = 'soft_opt_in' WHERE id = 2": "2 was changed",
    "UPDATE consent_event SET confirmation = '{}' WHERE id = 2": "2 was changed",
    "DELETE FROM consent_head": "the note of the newest consent evidence is missing",
    "UPDATE consent_head SET event_id = 7": "8 to 8 was added by something else",
    "UPDATE consent_head SET hash = sha256('x')": "8 is another than was written",
}


def test_every_forgery_is_found(connection: Connection, key_ring: KeyRing, anna: int) -> None:
    record(
        connection, key_ring, *(ConsentChange(anna, "email", f"t{n}", "granted", "shop", "x", THEN) for n in range(8))
    )
    assert consent.verify_chain(connection) == []
    connection.execute(text("ALTER TABLE consent_event DISABLE TRIGGER ALL"))
    connection.execute(text("ALTER TABLE consent DISABLE TRIGGER ALL"))
    for forgery, finding in FORGERIES.items():
        with connection.begin_nested() as trial:
            connection.execute(text(forgery))
            assert any(finding in found for found in consent.verify_chain(connection)), forgery
            trial.rollback()
    assert consent.verify_chain(connection) == []


def test_writers_at_once_make_one_chain(database: Engine, key_ring: KeyRing) -> None:
    with database.begin() as connection:
        people = [add_contact(connection, key_ring, str(n), email=f"{n}@shop.example") for n in range(8)]

    def work(person: int) -> None:
        for number in range(6):
            with database.begin() as connection:
                record(connection, key_ring, ConsentChange(person, "email", f"t{number}", "granted", "shop", "x", THEN))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, people))

    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM consent_event")) == 48
        assert consent.verify_chain(connection) == []
        assert connection.scalars(text("SELECT order_seq FROM consent_event ORDER BY id")).all() == sorted(
            connection.scalars(text("SELECT order_seq FROM consent_event")).all()
        )


@pytest.mark.parametrize("statement", ["UPDATE consent_event SET source = 'x'", "DELETE FROM consent_event",
                                       "TRUNCATE consent_event CASCADE"])  # fmt: skip
def test_the_database_refuses_to_change_evidence(
    connection: Connection, key_ring: KeyRing, grant: ConsentChange, statement: str
) -> None:
    record(connection, key_ring, grant)

    with pytest.raises(DBAPIError, match="append-only"):
        connection.execute(text(statement))


def test_a_newer_purchase_extends_and_a_word_of_the_person_supersedes(
    connection: Connection, key_ring: KeyRing, grant: ConsentChange
) -> None:
    bought = replace(grant, basis="implied_purchase", opt_in_level=None, source="order 1")
    record(connection, key_ring, bought)
    [held] = consent.state_of(connection, grant.contact_id)
    assert (held.basis, held.expires_at) == ("implied_purchase", datetime(2028, 1, 1, tzinfo=UTC))

    record(connection, key_ring, replace(bought, occurred_at=THEN + timedelta(days=31), source="order 2"))
    [held] = consent.state_of(connection, grant.contact_id)
    assert (held.expires_at, held.source) == (datetime(2028, 2, 1, tzinfo=UTC), "order 2")

    record(connection, key_ring, replace(grant, actor="person"))
    [held] = consent.state_of(connection, grant.contact_id)
    assert (held.basis, held.expires_at) == ("consent", None)


def test_a_chain_that_grows_while_it_is_looked_at_is_whole(database: Engine, key_ring: KeyRing) -> None:
    with database.begin() as connection:
        anna = add_contact(connection, key_ring, "anna", email="anna@shop.example")

    def write() -> None:
        for number in range(60):
            with database.begin() as connection:
                record(connection, key_ring, ConsentChange(anna, "email", f"t{number}", "granted", "shop", "x", THEN))

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        looks = 0
        while not writing.done():
            with database.connect() as connection:
                assert consent.verify_chain(connection) == []
            looks += 1
        writing.result()
    assert looks > 5
