"""Messages the shop asks for one by one: once per key, sealed, in the right lane."""

from __future__ import annotations

import threading
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from ledger_rows import add_contact, add_template
from sqlalchemy import Connection, Engine, text

from dispatcher import messages, release
from dispatcher.errors import NotFound, Refused
from dispatcher.keys import KeyRing
from dispatcher.messages import KeyReused, Wish

CONFIRMATION = Wish("order-confirmation", "email", "c1", {"order": {"number": "A-17", "total": "12.50"}})


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing) -> Engine:
    with database.begin() as connection:
        add_contact(connection, key_ring, "c1", email="ana@shop.example", phone="+447700900123")
        add_template(connection, "order-confirmation", "email", "class: transactional\n")
        add_template(connection, "code", "sms", "class: security\n")
        add_template(connection, "christmas", "email", "class: marketing\ntopic: offers\n")
    return database


def submit(
    database: Engine, key_ring: KeyRing, wish: Wish = CONFIRMATION, key: str = "k1", client: str = "shop"
) -> UUID:
    with database.begin() as connection:
        return messages.submit(connection, key_ring, wish, client=client, idempotency_key=key)


def rows(database: Engine, table: str) -> int:
    with database.connect() as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


def test_a_message_is_born_due_in_a_batch_of_its_lane(shop: Engine, key_ring: KeyRing) -> None:
    message_id = submit(shop, key_ring)

    with shop.connect() as connection:
        row = connection.execute(
            text(
                """
                SELECT m.*, b.lane, b.state AS batch_state, r.kind, r.state AS run_state, r.lane AS run_lane,
                       r.name AS run_name, c.email_address_id
                FROM message m JOIN batch b ON b.id = m.batch_id AND b.run_id = m.run_id JOIN run r ON r.id = m.run_id
                JOIN contact c ON c.id = m.contact_id
                """
            )
        ).one()
    assert row.id == message_id
    assert (row.status, row.lane, row.batch_state) == ("pending", "email.transactional", "ready")
    assert (row.kind, row.run_state, row.run_lane, row.run_name) == (
        "standing",
        "running",
        "email.transactional",
        "order-confirmation",
    )
    assert row.address_id == row.email_address_id
    assert row.due_at == row.first_due_at
    assert row.expires_at - row.due_at == timedelta(hours=72)


def test_a_code_has_ten_minutes_and_the_transactional_lane(shop: Engine, key_ring: KeyRing) -> None:
    submit(shop, key_ring, Wish("code", "sms", "c1", {"code": "123456"}))

    with shop.connect() as connection:
        row = connection.execute(text("SELECT m.*, b.lane FROM message m JOIN batch b ON b.id = m.batch_id")).one()
    assert row.lane == "sms.transactional"
    assert row.expires_at - row.due_at == timedelta(minutes=10)


def test_its_data_is_only_there_sealed_under_the_contacts_key(shop: Engine, key_ring: KeyRing) -> None:
    submit(shop, key_ring)

    with shop.connect() as connection:
        row = connection.execute(
            text("SELECT m.sealed, m::text AS all, c.data_key FROM message m JOIN contact c ON c.id = m.contact_id")
        ).one()
    assert key_ring.open_data_key(row.data_key).open(row.sealed) == CONFIRMATION.data
    assert "A-17" not in row.all


def test_the_same_key_and_body_is_the_same_message(shop: Engine, key_ring: KeyRing) -> None:
    first = submit(shop, key_ring)
    reordered = Wish("order-confirmation", "email", "c1", {"order": {"total": "12.50", "number": "A-17"}})

    assert submit(shop, key_ring, reordered) == first
    assert (rows(shop, "message"), rows(shop, "batch"), rows(shop, "run")) == (1, 1, 1)


@pytest.mark.parametrize(
    "other",
    [
        Wish("order-confirmation", "email", "c1", {"order": {"number": "A-18", "total": "12.50"}}),
        Wish("code", "sms", "c1", CONFIRMATION.data),
        Wish("order-confirmation", "email", "c2", CONFIRMATION.data),
    ],
)
def test_the_same_key_with_another_body_is_refused(shop: Engine, key_ring: KeyRing, other: Wish) -> None:
    submit(shop, key_ring)

    with pytest.raises(KeyReused, match="another body"):
        submit(shop, key_ring, other)
    assert rows(shop, "message") == 1


def test_keys_of_two_clients_are_two_keys(shop: Engine, key_ring: KeyRing) -> None:
    assert submit(shop, key_ring, client="shop") != submit(shop, key_ring, client="erp")


def test_messages_of_one_content_share_one_standing_run(shop: Engine, key_ring: KeyRing) -> None:
    submit(shop, key_ring, key="k1")
    submit(shop, key_ring, key="k2")
    assert rows(shop, "run") == 1

    with shop.begin() as connection:
        add_template(connection, "order-confirmation", "email", "class: transactional\nurgent: true\n")
    submit(shop, key_ring, key="k3")
    assert rows(shop, "run") == 2


def test_racing_requests_with_one_key_make_one_message(shop: Engine, key_ring: KeyRing) -> None:
    start, made, errors = threading.Barrier(12), [], []

    def ask() -> None:
        start.wait()
        try:
            made.append(submit(shop, key_ring))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert len(set(made)) == 1
    assert (rows(shop, "message"), rows(shop, "batch"), rows(shop, "run")) == (1, 1, 1)


def test_racing_requests_with_one_key_and_two_bodies_make_one_message_and_one_refusal(
    shop: Engine, key_ring: KeyRing
) -> None:
    start, answers = threading.Barrier(2), []

    def ask(number: str) -> None:
        start.wait()
        try:
            answers.append(submit(shop, key_ring, Wish("order-confirmation", "email", "c1", {"number": number})))
        except KeyReused as error:
            answers.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(isinstance(answer, UUID) for answer in answers) == [False, True]
    assert (rows(shop, "message"), rows(shop, "batch")) == (1, 1)


@pytest.mark.parametrize(
    ("wish", "error", "says"),
    [
        (Wish("christmas", "email", "c1", {}), Refused, "is marketing"),
        (Wish("order-confirmation", "sms", "c1", {}), Refused, "no sms template"),
        (Wish("nothing", "email", "c1", {}), Refused, "no email template nothing"),
        (Wish("order-confirmation", "email", "nobody", {}), NotFound, "no contact nobody"),
        (Wish("order-confirmation", "email", "c1", {"number": 2**70}), Refused, "cannot be stored"),
        (Wish("order-confirmation", "email", "c1", {"order": {"total": float("nan")}}), Refused, "NaN"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    shop: Engine, key_ring: KeyRing, wish: Wish, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        submit(shop, key_ring, wish)
    assert (rows(shop, "message"), rows(shop, "batch")) == (0, 0)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb"])
def test_a_key_is_short_and_printable(shop: Engine, key_ring: KeyRing, key: str) -> None:
    with pytest.raises(Refused, match="printable"):
        submit(shop, key_ring, key=key)


def test_a_merged_contact_is_reached_under_its_old_id(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        kept = add_contact(connection, key_ring, "kept", email="kept@shop.example")
        connection.execute(text("UPDATE contact SET merged_into = :kept WHERE external_id = 'c1'"), {"kept": kept})
    submit(shop, key_ring)

    with shop.connect() as connection:
        row = connection.execute(
            text("SELECT m.contact_id, m.sealed, c.data_key FROM message m JOIN contact c ON c.id = m.contact_id")
        ).one()
    assert row.contact_id == kept
    assert key_ring.open_data_key(row.data_key).open(row.sealed) == CONFIRMATION.data


def test_an_erased_contact_is_nobody(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        connection.execute(text("UPDATE contact SET data_key = NULL, sealed = NULL, erased_at = clock_timestamp()"))

    with pytest.raises(NotFound, match="no contact c1"):
        submit(shop, key_ring)


def test_the_clock_is_told_at_commit(shop: Engine, key_ring: KeyRing) -> None:
    with shop.connect() as listener:
        listener.exec_driver_sql("LISTEN dispatcher")
        listener.commit()
        submit(shop, key_ring)

        [note] = listener.connection.notifies(timeout=5, stop_after=1)
    with shop.connect() as connection:
        batch = connection.execute(text("SELECT id, lane FROM batch")).one()
    assert release.ticket_of(note.payload) == release.Ticket(batch.id, batch.lane)
    assert release.ticket_of("due") is None


def test_reading_tells_status_reason_and_instants(connection: Connection, shop: Engine, key_ring: KeyRing) -> None:
    message_id = submit(shop, key_ring)

    told = messages.read(connection, message_id)
    assert (told["id"], told["status"], told["contact"], told["template"]) == (
        message_id,
        "pending",
        "c1",
        "order-confirmation",
    )
    assert told["reason"] is None
    with pytest.raises(NotFound):
        messages.read(connection, uuid4())


def test_reading_says_what_a_message_could_not_be_filled_with_and_no_other_fact(
    shop: Engine, key_ring: KeyRing
) -> None:
    message_id = submit(shop, key_ring)
    fail = text("UPDATE message SET status = 'failed', reason = :reason, facts = :facts WHERE id = :id")
    with shop.begin() as connection:
        facts = '{"because": "body.txt:1: data.order is not known"}'
        connection.execute(fail, {"id": message_id, "reason": "RENDER_FAILED", "facts": facts})
        assert messages.read(connection, message_id)["because"] == "body.txt:1: data.order is not known"
        connection.execute(fail, {"id": message_id, "reason": "REJECTED", "facts": facts})
        assert messages.read(connection, message_id)["because"] is None
