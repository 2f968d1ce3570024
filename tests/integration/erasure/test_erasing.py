"""An erasure: at once, whole, once, and with its proof."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from erasing import EMAIL, PHONE, address, everything, value
from ledger_rows import add_message, settle
from people import add_person, say
from sqlalchemy import Engine, text

from dispatcher import consent, identity, suppression
from dispatcher.contacts import Particulars, find_contact, personal_of, save_contacts
from dispatcher.keys import KeyRing
from dispatcher.rights import erase, erasure_state, finish_erasures, request_erasure
from dispatcher.rights.finishing import fingerprint


def test_the_request_withdraws_suppresses_and_skips_at_once(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.begin() as connection:
        pending = [
            add_message(connection, ana, address(connection, ana)),
            add_message(connection, ana, address(connection, ana), class_="transactional", topic=None),
        ]
        erasure = request_erasure(connection, key_ring, ana, by="test")

    assert erasure.in_flight == ()
    with database.connect() as connection:
        assert {held.state for held in consent.state_of(connection, ana)} == {"withdrawn"}
        for message_id in pending:
            row = connection.execute(text("SELECT status, reason FROM message WHERE id = :id"), {"id": message_id})
            assert tuple(row.one()) == ("skipped", "SUPPRESSED")
        for channel in ("email", "sms"):
            [only] = suppression.suppressions_of(connection, address(connection, ana, channel))
            assert (only.reason, only.scope, only.source) == ("erasure", "marketing", f"erasure {erasure.id}")
        state = erasure_state(connection, ana)
    assert state is not None
    assert (state.state, state.requested_by, state.done_at) == ("in progress", "test", None)


def test_nothing_readable_is_left(database: Engine, key_ring: KeyRing, ana: int) -> None:
    keys = value(database, "SELECT data_key FROM contact WHERE id = :id", id=ana)

    state = erase(database, key_ring, ana, by="test")

    assert state.state == "done"
    left = everything(database)
    for trace in ("Ana", "gold", "engraving", "christmas", "15.3", "Europe/London", EMAIL, PHONE):
        assert trace not in left, trace
    assert keys.hex() not in left
    with database.connect() as connection:
        row = connection.execute(text("SELECT * FROM contact WHERE id = :id"), {"id": ana}).one()
        assert (row.data_key, row.sealed, row.locale, row.country, row.zone, row.attributes, row.paused_until) == (
            (None,) * 5 + ({}, None)
        )
        assert personal_of(connection, key_ring, ana).email is None
        assert consent.verify_chain(connection) == []
        assert find_contact(connection, key_ring, "ana") == ana


def test_it_is_in_progress_until_nothing_is_in_flight(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.begin() as connection:
        flying = add_message(connection, ana, address(connection, ana), status="sending")

    assert erase(database, key_ring, ana, by="test", wait=timedelta(0)).state == "in progress"
    assert finish_erasures(database, key_ring) == 0
    assert value(database, "SELECT data_key IS NOT NULL FROM contact WHERE id = :id", id=ana)

    with database.begin() as connection:
        settle(connection, flying)
    assert finish_erasures(database, key_ring) == 1
    assert finish_erasures(database, key_ring) == 0
    assert value(database, "SELECT data_key IS NULL FROM contact WHERE id = :id", id=ana)


def test_what_comes_back_unsent_is_skipped(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.begin() as connection:
        flying = add_message(connection, ana, address(connection, ana), status="sending")
        request_erasure(connection, key_ring, ana, by="test")
    with database.begin() as connection:
        back = "UPDATE message SET status = 'pending', authorised_at = NULL WHERE id = :id"
        connection.execute(text(back), {"id": flying})

    assert finish_erasures(database, key_ring) == 1

    assert value(database, "SELECT status FROM message WHERE id = :id", id=flying) == "skipped"


def test_the_proof_names_the_key_and_nobody(database: Engine, key_ring: KeyRing, ana: int) -> None:
    wrapped = value(database, "SELECT data_key FROM contact WHERE id = :id", id=ana)

    state = erase(database, key_ring, ana, by="cli:root")

    with database.connect() as connection:
        requested, done = connection.execute(
            text("SELECT actor, action, subject, details FROM audit WHERE action LIKE 'erasure.%' ORDER BY id")
        ).all()
    assert tuple(requested)[:3] == ("cli:root", "erasure.requested", f"contact {ana}")
    assert tuple(done)[:3] == ("engine", "erasure.done", f"contact {ana}")
    assert done.details["requested_by"] == "cli:root"
    assert done.details["destroyed"]["data_keys"] == [fingerprint(key_ring.open_data_key(bytes(wrapped)).raw)]
    assert done.details["destroyed"]["events"] == 1
    assert state.proof is not None
    assert state.proof["destroyed"] == done.details["destroyed"]


def test_one_that_cannot_be_finished_holds_up_nobody(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.begin() as connection:
        bea = add_person(connection, key_ring, "bea")
        for contact_id in (ana, bea):
            request_erasure(connection, key_ring, contact_id, by="test")
        connection.execute(text("UPDATE contact SET data_key = sha256('x') WHERE id = :id"), {"id": ana})

    assert finish_erasures(database, key_ring) == 1


def test_erasing_twice_is_once(database: Engine, key_ring: KeyRing, ana: int) -> None:
    first = erase(database, key_ring, ana, by="test")

    assert erase(database, key_ring, ana, by="other") == first
    assert value(database, "SELECT count(*) FROM audit WHERE action LIKE 'erasure.%'") == 2


def test_many_at_once_are_one(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda _: erase(database, key_ring, ana, by="test"), range(8)))

    assert {state.state for state in states} == {"done"}
    assert value(database, "SELECT count(*) FROM audit WHERE action LIKE 'erasure.%'") == 2
    assert value(database, "SELECT count(*) FROM erasure") == 1


def test_the_unsubscribes_it_is_are_answered_when_it_is_done(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.begin() as connection:
        request_erasure(connection, key_ring, ana, by="test")
    assert value(database, "SELECT count(*) FROM unsubscribe WHERE answered_at IS NULL") == 3

    finish_erasures(database, key_ring)

    assert value(database, "SELECT count(*) FROM unsubscribe WHERE answer = 200 AND answered_at IS NOT NULL") == 3


def test_an_import_of_the_same_person_comes_before_or_after(database: Engine, key_ring: KeyRing) -> None:
    """Whoever is first: in the end they are erased, nothing of theirs can be read, and no second contact has it."""
    with database.begin() as connection:
        people = [add_person(connection, key_ring, f"p{n}", email=f"person{n}@people.example") for n in range(6)]

    def save(number: int) -> None:
        with database.begin() as connection:
            given = [Particulars(f"p{number}", email=f"person{number}@people.example", first_name="Zora"),
                     Particulars(f"other{number}", email=f"person{number}@people.example")]  # fmt: skip
            save_contacts(connection, key_ring, given)

    with ThreadPoolExecutor(12) as pool:
        saving = [pool.submit(save, number) for number in range(6)]
        erasing = [pool.submit(erase, database, key_ring, contact_id, by="test") for contact_id in people]
        assert {future.result().state for future in erasing} == {"done"}
        for future in saving:
            future.result()

    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM contact WHERE data_key IS NOT NULL")) == 0
        assert connection.scalar(text("SELECT count(*) FROM contact WHERE email_address_id IS NOT NULL")) == 0


def test_a_merge_comes_before_or_is_refused(database: Engine, key_ring: KeyRing) -> None:
    with database.begin() as connection:
        pairs = [
            (add_person(connection, key_ring, f"a{n}"), add_person(connection, key_ring, f"b{n}")) for n in range(6)
        ]

    def merge(pair: tuple[int, int]) -> None:
        with database.begin() as connection:
            identity.merge(connection, key_ring, *pair)

    with ThreadPoolExecutor(12) as pool:
        merging = [pool.submit(merge, pair) for pair in pairs]
        erasing = [pool.submit(erase, database, key_ring, pair[1], by="test") for pair in pairs]
        assert {future.result().state for future in erasing} == {"done"}
        for future in merging:
            future.exception()

    with database.connect() as connection:
        half_erased = connection.scalar(
            text("""SELECT count(*) FROM contact c JOIN erasure e ON e.contact_id IN (c.id, c.merged_into)
                    WHERE c.data_key IS NOT NULL OR c.erased_at IS NULL""")
        )
        assert half_erased == 0
        for _, loser in pairs:
            state = erasure_state(connection, loser)
            assert state is not None
            assert state.state == "done"


def test_a_grant_made_meanwhile_does_not_survive(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.begin() as connection:
        say(connection, key_ring, ana, [("email", "late", "granted")])
        request_erasure(connection, key_ring, ana, by="test")

    with database.connect() as connection:
        assert {held.state for held in consent.state_of(connection, ana)} == {"withdrawn"}
