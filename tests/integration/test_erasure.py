"""Erasure: from the request on nothing is authorised, and once nothing is in flight nothing can be read any more."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest
from ledger_rows import add_message, settle
from people import add_person, say
from sqlalchemy import Connection, Engine, text

from dispatcher import audit, clock, consent, identity, messages, replies, suppression, unsubscribe
from dispatcher.consent import ConsentChange
from dispatcher.contacts import Particulars, ensure_contacts, find_contact, personal_of, save_contact, save_contacts
from dispatcher.errors import NotFound, Refused
from dispatcher.events import Event, Item, record_events
from dispatcher.feedback.inbox import Mail
from dispatcher.feedback.recording import record
from dispatcher.feedback.report import Kind, Report
from dispatcher.keys import KeyRing
from dispatcher.rights import erase, erasure_state, finish_erasures, request_erasure
from dispatcher.rights.again import Again, erase_again
from dispatcher.rights.finishing import fingerprint
from dispatcher.tokens import WayOut

THEN = datetime(2026, 1, 1, tzinfo=UTC)
EMAIL, PHONE = "ana.pop@people.example", "+447700900123"


@pytest.fixture
def ana(database: Engine, key_ring: KeyRing) -> int:
    """Somebody of whom we know all there is to know: consent on two channels, an order, evidence with an IP."""
    with database.begin() as connection:
        contact_id = add_person(
            connection, key_ring, "ana", email=EMAIL, phone=PHONE, locale="ro",
            granted=(("email", "offers"), ("email", "news"), ("sms", "offers")),
        )  # fmt: skip
        connection.execute(
            text('UPDATE contact SET attributes = \'{"club": "gold"}\', paused_until = now() WHERE id = :id'),
            {"id": contact_id},
        )
        item = Item(("christmas",), Decimal(2), Decimal("15.30"), {"engraving": "For Ana Pop"})
        order = Event("536365", "ana", "order.placed", THEN, Decimal("15.30"), {"gift_for": "Ana Pop"}, (item,))
        record_events(connection, key_ring, [order])
        seen = ConsentChange(
            contact_id, "email", "news", "granted", "person", "form", THEN, address(connection, contact_id),
            sealed={"ip": "192.0.2.7"},
        )  # fmt: skip
        consent.record(connection, key_ring, [seen], now=clock.read_now(connection))
    return contact_id


def address(connection: Connection, contact_id: int, channel: str = "email") -> int:
    query = text(f"SELECT {channel}_address_id FROM contact WHERE id = :id")
    return int(connection.execute(query, {"id": contact_id}).scalar_one())


def value(database: Engine, query: str, **parameters: Any) -> Any:
    with database.connect() as connection:
        return connection.scalar(text(query), parameters)


def everything(database: Engine) -> str:
    """Return every row of every table, as one text."""
    with database.connect() as connection:
        tables = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        return "\n".join(row for table in tables for row in connection.scalars(text(f"SELECT t::text FROM {table} t")))


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


# --- who they are


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


# --- afterwards


def test_nobody_who_was_erased_comes_back(database: Engine, key_ring: KeyRing, ana: int) -> None:
    erase(database, key_ring, ana, by="test")

    with database.begin() as connection:
        again = save_contacts(
            connection, key_ring,
            [Particulars("ana", email=EMAIL), Particulars("ana"), Particulars("new id", email=EMAIL)],
        )  # fmt: skip
        with_phone = save_contact(connection, key_ring, Particulars("bea", email="b@people.example", phone=PHONE))

    assert [one.outcome for one in again] == ["erased"] * 3
    assert with_phone.sms_address_id is None
    assert value(database, "SELECT count(*) FROM contact WHERE merged_into IS NULL") == 2
    assert EMAIL not in everything(database)


def test_an_event_of_theirs_is_refused_and_leaves_nothing(database: Engine, key_ring: KeyRing, ana: int) -> None:
    erase(database, key_ring, ana, by="test")

    with database.begin() as connection:
        event = Event("536366", "ana", "order.placed", THEN, properties={"gift_for": "Ana Pop"})
        recorded = record_events(connection, key_ring, [event])

    assert [refusal.reason for refusal in recorded.refused] == ["contact ana was erased"]
    assert "Ana Pop" not in everything(database)


@pytest.mark.parametrize("words", ["STOP", "please stop, I am Ana Pop", "START", "HELP", "thank you, Ana Pop"])
def test_a_text_of_theirs_is_heeded_and_leaves_no_words(
    database: Engine, key_ring: KeyRing, ana: int, words: str
) -> None:
    erase(database, key_ring, ana, by="test")
    body = urlencode({"MessageSid": "SM1", "From": PHONE, "Body": words}).encode()

    replies.take(database, key_ring, Mail("twilio.inbound", body, "", "", datetime.now(UTC)))

    with database.connect() as connection:
        row = connection.execute(text("SELECT sealed, data_key, contact_id, review FROM reply")).one()
        reasons = {
            one.reason
            for address_id in connection.scalars(text("SELECT id FROM address WHERE channel = 'sms'"))
            for one in suppression.suppressions_of(connection, address_id)
        }
    assert tuple(row) == (None, None, None, None)
    assert reasons == {"erasure", "stop"} if "stop" in words.lower() else {"erasure"}


@pytest.mark.parametrize("known_by", ["message", "address"])
def test_a_report_on_them_moves_its_message_and_leaves_nothing_to_read(
    database: Engine, key_ring: KeyRing, ana: int, known_by: str
) -> None:
    with database.begin() as connection:
        message_id = add_message(connection, ana, address(connection, ana), status="sent")
    erase(database, key_ring, ana, by="test")
    report = Report(
        "sendgrid", "email", "1", {"ip": "192.0.2.7"}, Kind.BOUNCED, hard=True, suppress="hard_bounce",
        message_id=message_id if known_by == "message" else None, address=EMAIL,
    )  # fmt: skip

    record(database, key_ring, [report])

    assert value(database, "SELECT count(*) FROM feedback WHERE sealed IS NULL AND data_key IS NULL") == 1
    if known_by == "message":
        assert value(database, "SELECT status FROM message WHERE id = :id", id=message_id) == "bounced"


def test_a_message_asked_for_by_the_shop_is_refused(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.begin() as connection:
        request_erasure(connection, key_ring, ana, by="test")  # in progress is enough
        connection.execute(
            text("""INSERT INTO template (hash, channel, name, files)
                    VALUES ('h', 'email', 'order', '{"meta.yaml": "class: transactional"}')""")
        )
    wish = messages.Wish("order", "email", "ana", {"total": "15.30"})
    with database.begin() as connection, pytest.raises(NotFound):
        messages.submit(connection, key_ring, wish, client="shop", idempotency_key="k")


def test_their_old_link_still_says_goodbye(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.connect() as connection:
        way_out = WayOut(ana, "email", "offers", address(connection, ana))
    erase(database, key_ring, ana, by="test")

    assert unsubscribe.withdraw(database, key_ring, way_out, source="one-click").status == 200


def test_nobody_is_erased_who_is_not_there(connection: Connection, key_ring: KeyRing) -> None:
    with pytest.raises(NotFound):
        request_erasure(connection, key_ring, 17, by="test")


def test_who_said_nothing_is_erased_all_the_same(database: Engine, key_ring: KeyRing) -> None:
    with database.begin() as connection:
        bare = add_person(connection, key_ring, "bare", email=None, granted=())

    assert erase(database, key_ring, bare, by="test").state == "done"


# --- against others at the same moment


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


# --- after a restore


def proofs(database: Engine) -> list[dict[str, Any]]:
    with database.connect() as connection:
        entries = audit.entries(connection, action="erasure.done")
    return [json.loads(json.dumps(entry._asdict(), default=str)) for entry in entries]


def test_a_restored_backup_is_told_whom_to_erase_again(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with database.connect() as connection:
        [row] = connection.execute(text("SELECT data_key, sealed, email_address_id FROM contact"))
    erase(database, key_ring, ana, by="test")
    kept = proofs(database)
    with database.begin() as connection:  # as the backup has her
        connection.execute(text("DELETE FROM erasure"))
        connection.execute(text("DELETE FROM suppression"))
        connection.execute(
            text("UPDATE contact SET erased_at = NULL, data_key = :data_key, sealed = :sealed"),
            {"data_key": row.data_key, "sealed": row.sealed},
        )

    assert erase_again(database, key_ring, kept, by="test") == Again(1, erased=1, suppressed=2, in_progress=0)

    assert value(database, "SELECT count(*) FROM contact WHERE data_key IS NOT NULL") == 0
    assert erase_again(database, key_ring, kept, by="test") == Again(1, erased=0, suppressed=0, in_progress=0)


def test_who_has_the_number_of_somebody_erased_is_left_alone(database: Engine, key_ring: KeyRing, ana: int) -> None:
    """After a restore the ledger gives the same numbers to other people, but not their keys."""
    erase(database, key_ring, ana, by="test")
    [proof] = proofs(database)
    with database.begin() as connection:
        bea = add_person(connection, key_ring, "bea")

    erase_again(database, key_ring, [proof | {"subject": f"contact {bea}"}], by="test")

    assert value(database, "SELECT data_key IS NOT NULL FROM contact WHERE id = :id", id=bea)


def test_who_came_after_the_backup_is_unmailed_when_imported_again(
    database: Engine, key_ring: KeyRing, ana: int
) -> None:
    erase(database, key_ring, ana, by="test")
    kept = proofs(database)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM suppression"))
        connection.execute(text("UPDATE address SET hash = sha256(hash)"))  # the backup knows nothing of her

    erase_again(database, key_ring, kept, by="test")

    with database.begin() as connection:
        assert save_contact(connection, key_ring, Particulars("ana-2", email=EMAIL)).outcome == "erased"


def test_what_is_no_proof_is_refused_before_anything_is_done(database: Engine, key_ring: KeyRing, ana: int) -> None:
    with pytest.raises(Refused, match="entry 7 is not the proof of an erasure"):
        erase_again(database, key_ring, [{"id": 7, "action": "erasure.done", "subject": "x", "details": {}}], by="test")
