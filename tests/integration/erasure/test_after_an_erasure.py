"""After an erasure nothing brings them back: imports, events, texts, reports, links, a restored backup."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from erasing import EMAIL, PHONE, THEN, address, everything, value
from ledger_rows import add_message
from people import add_person
from sqlalchemy import Connection, Engine, text

from dispatcher import audit, messages, replies, suppression, unsubscribe
from dispatcher.contacts import Particulars, save_contact, save_contacts
from dispatcher.errors import NotFound, Refused
from dispatcher.events import Event, record_events
from dispatcher.feedback.inbox import Mail
from dispatcher.feedback.recording import record
from dispatcher.feedback.report import Kind, Report
from dispatcher.keys import KeyRing
from dispatcher.rights import erase, request_erasure
from dispatcher.rights.again import Again, erase_again
from dispatcher.tokens import WayOut


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
