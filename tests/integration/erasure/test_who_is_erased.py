"""Who somebody is that is to be erased: tombstones, former addresses, shared phones, ids that are addresses."""

from __future__ import annotations

from erasing import EMAIL, PHONE, THEN, address, everything, value
from ledger_rows import add_message
from people import add_person
from sqlalchemy import Engine, text

from dispatcher import identity, suppression
from dispatcher.contacts import Particulars, ensure_contacts, find_contact, personal_of, save_contacts
from dispatcher.events import Event, record_events
from dispatcher.keys import KeyRing
from dispatcher.rights import erase


def test_a_tombstone_is_erased_with_its_survivor(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.begin() as connection:
        other = add_person(connection, key_ring, "ana-2", email="old@people.example")
        old = address(connection, other)
        identity.merge(connection, key_ring, ana, other)

    state = erase(database, key_ring, other, by="test")

    assert state.proof is not None
    assert len(state.proof["destroyed"]["data_keys"]) == 2
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM contact WHERE data_key IS NOT NULL")) == 0
        assert [one.reason for one in suppression.suppressions_of(connection, old)] == ["erasure"]


def test_a_former_address_that_is_somebody_elses_now_stays_theirs(
    database: Engine, key_ring: KeyRing, ana: int
) -> None:
    with database.begin() as connection:
        former = address(connection, ana)
        save_contacts(
            connection, key_ring, [Particulars("ana", email="new@people.example"), Particulars("bea", email=EMAIL)]
        )

    erase(database, key_ring, ana, by="test")

    with database.connect() as connection:
        assert suppression.suppressions_of(connection, former) == []
        assert personal_of(connection, key_ring, find_contact(connection, key_ring, "bea")).email == EMAIL


def test_who_shares_a_phone_is_not_written_to_there_any_more(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.begin() as connection:
        bea = add_person(connection, key_ring, "bea", phone=PHONE, granted=(("sms", "offers"),))
        waiting = add_message(connection, bea, address(connection, bea, "sms"), channel="sms")

    erase(database, key_ring, ana, by="test")

    assert value(database, "SELECT status FROM message WHERE id = :id", id=waiting) == "skipped"
    with database.connect() as connection:
        assert personal_of(connection, key_ring, bea).phone == PHONE


def test_an_external_id_that_is_an_address_becomes_a_hash_that_is_still_recognised(
    database: Engine, key_ring: KeyRing
) -> None:
    name = "jo@people.example"
    with database.begin() as connection:
        jo = add_person(connection, key_ring, name, email=name)

    erase(database, key_ring, jo, by="test")

    assert name not in everything(database)
    with database.begin() as connection:
        assert find_contact(connection, key_ring, name) == jo
        assert ensure_contacts(connection, key_ring, [name]) == {name: jo}
        recorded = record_events(connection, key_ring, [Event("1", name, "order.placed", THEN)])
        assert [refusal.reason for refusal in recorded.refused] == [f"contact {name} was erased"]
        assert recorded.contacts_created == 0
    assert name not in everything(database)
