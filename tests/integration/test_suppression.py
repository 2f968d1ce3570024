"""Suppressions: on the address, in scope, and a person's own opt-out is theirs."""

from __future__ import annotations

import pytest
from ledger_rows import add_address, add_contact, add_message
from sqlalchemy import Connection, text

from dispatcher import suppression
from dispatcher.errors import NotFound, Refused
from dispatcher.keys import KeyRing

EMAIL, PHONE = "anna@shop.example", "+447700900123"


@pytest.fixture
def anna(connection: Connection, key_ring: KeyRing) -> int:
    return add_contact(connection, key_ring, "anna", email=EMAIL, phone=PHONE)


def status(connection: Connection, message_id: object) -> tuple[str, str | None, int | None]:
    row = connection.execute(
        text("SELECT status, reason, batch_id FROM message WHERE id = :id"), {"id": message_id}
    ).one()
    return row.status, row.reason, row.batch_id


def test_pending_messages_in_scope_are_skipped_and_no_others(
    connection: Connection, key_ring: KeyRing, anna: int
) -> None:
    address, phone = (add_address(connection, key_ring, c, a) for c, a in (("email", EMAIL), ("sms", PHONE)))
    marketing = add_message(connection, anna, address, batch_id=7)
    receipt = add_message(connection, anna, address, class_="transactional", topic=None)
    leaving = add_message(connection, anna, address, status="sending")
    sms = add_message(connection, anna, phone, channel="sms")
    for reason, scope in suppression.SCOPES.items():
        with connection.begin_nested() as trial:
            assert suppression.add(connection, address, reason, source="test")

            assert status(connection, marketing) == ("skipped", "SUPPRESSED", None)
            assert status(connection, receipt)[0] == ("skipped" if scope == "all" else "pending")
            assert status(connection, leaving)[0] == "sending"
            assert status(connection, sms)[0] == "pending"
            trial.rollback()


def test_adding_twice_is_one_suppression(connection: Connection, key_ring: KeyRing, anna: int) -> None:
    address = add_address(connection, key_ring, "email", EMAIL)

    assert suppression.add(connection, address, "complaint", source="feedback")
    assert not suppression.add(connection, address, "complaint", source="feedback again")
    assert suppression.add(connection, address, "operator", source="operator", scope="marketing")
    assert suppression.add(connection, address, "operator", source="operator", scope="all")

    found = [(s.reason, s.scope, s.source) for s in suppression.suppressions_of(connection, address)]
    assert found == [("complaint", "marketing", "feedback"), ("operator", "all", "operator")]
    assert [s.reason for s in suppression.list_suppressions(connection, reason="complaint")] == ["complaint"]
    assert list(suppression.list_suppressions(connection, channel="sms")) == []


def test_an_operator_cannot_lift_what_the_person_asked_for(
    connection: Connection, key_ring: KeyRing, anna: int
) -> None:
    address = add_address(connection, key_ring, "email", EMAIL)
    for reason in suppression.OWN_OPT_OUTS:
        suppression.add(connection, address, reason, source="test")
        with pytest.raises(Refused, match="only they can take it back"):
            suppression.remove(connection, address, reason, by="operator")
        suppression.remove(connection, address, reason, by="anna", as_the_person=True)

        assert suppression.suppressions_of(connection, address) == []


def test_an_operator_lifts_a_bounce_and_it_is_audited(connection: Connection, key_ring: KeyRing, anna: int) -> None:
    address = add_address(connection, key_ring, "email", EMAIL)
    suppression.add(connection, address, "hard_bounce", source="feedback")

    suppression.remove(connection, address, "hard_bounce", by="operator")

    assert connection.scalars(text("SELECT action FROM audit")).all() == ["suppression.remove"]
    with pytest.raises(NotFound):
        suppression.remove(connection, address, "hard_bounce", by="operator")


def test_a_suppression_outlives_the_contact_that_had_the_address(
    connection: Connection, key_ring: KeyRing, anna: int
) -> None:
    address = add_address(connection, key_ring, "email", EMAIL)
    suppression.add(connection, address, "unsubscribe", source="link")
    connection.execute(text("UPDATE contact SET email_address_id = NULL"))
    again = add_contact(connection, key_ring, "anna-again", email=EMAIL)

    assert suppression.suppressions_of(connection, address)[0].reason == "unsubscribe"
    found = connection.scalar(text("SELECT email_address_id FROM contact WHERE id = :id"), {"id": again})
    assert found == address


def test_what_waited_behind_a_skipped_message_is_due(connection: Connection, key_ring: KeyRing, anna: int) -> None:
    address, phone = (add_address(connection, key_ring, c, a) for c, a in (("email", EMAIL), ("sms", PHONE)))
    add_message(connection, anna, address)
    loser = add_message(connection, anna, phone, channel="sms")
    connection.execute(
        text("UPDATE message SET deferred_reason = 'OUTRANKED', due_at = due_at + interval '5 hours' WHERE id = :id"),
        {"id": loser},
    )

    suppression.add(connection, address, "hard_bounce", source="feedback")

    due = text("SELECT deferred_reason IS NULL AND due_at <= clock_timestamp() FROM message WHERE id = :id")
    assert connection.scalar(due, {"id": loser})
