"""Reports that come before the receipt, or after the second try."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

from feedback_rows import left, report, row_of, state_of
from sqlalchemy import Engine, text

from dispatcher import clock
from dispatcher.doubt import settle_doubt
from dispatcher.feedback.recording import record
from dispatcher.feedback.report import Kind
from dispatcher.keys import KeyRing
from dispatcher.providers.protocol import Accepted, Moment, NotSent, boot_seconds
from dispatcher.settle import settle
from dispatcher.verify import INVARIANTS, look_at
from dispatcher.verify.report import examine


def test_late_proof_of_a_first_try_takes_back_the_second(database: Engine, key_ring: KeyRing) -> None:
    message_id = left(database, key_ring, status="unknown", class_="transactional", ref="req1")
    before = row_of(database, message_id)
    send_again(database, message_id)

    record(database, key_ring, [report(message_id, Kind.DELIVERED)])

    after = row_of(database, message_id)
    assert (after.status, after.provider_ref) == ("delivered", "req1")
    kept = ("authorised_at", "authorise_seq", "send_deadline", "handed_over_at", "provider", "attempts")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM attempt")) == 0


def test_late_proof_of_a_first_try_is_not_written_at_a_second_that_never_left(
    database: Engine, key_ring: KeyRing
) -> None:
    message_id = left(database, key_ring, status="unknown", class_="transactional", ref="req1")
    before = row_of(database, message_id)
    send_again(database, message_id)
    with database.begin() as connection:
        worker, moment = uuid4(), Moment(clock.read_now(connection), boot_seconds())
        connection.execute(
            text("""UPDATE message SET status = 'sending', authorised_at = :at, authorise_seq = nextval('order_seq'),
                           send_deadline = :at, worker_id = :worker, provider = 'sendgrid', attempts = attempts + 1"""),
            {"at": moment.at, "worker": worker},
        )
    settle(database, worker, [message_id], [NotSent("no connection", unreachable=True)], moment)

    record(database, key_ring, [report(message_id, Kind.DELIVERED)])

    after = row_of(database, message_id)
    assert (after.status, after.provider_ref, after.attempts) == ("delivered", "req1", 2)
    kept = ("authorised_at", "authorise_seq", "send_deadline", "handed_over_at", "provider")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    with database.connect() as connection:
        assert connection.execute(text("SELECT number, outcome FROM attempt")).all() == [(2, "not_sent")]
        [proof] = [invariant for invariant in INVARIANTS if invariant.name == "INV-13"]
        assert examine(proof, look_at(connection, key_ring, None, lambda _: None)).findings == ()


def send_again(database: Engine, message_id: UUID) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE message SET settled_at = settled_at - interval '11 min'"))
    assert settle_doubt(database, []) == (0, 1)
    assert state_of(database, message_id) == ("pending", None)


def test_a_receipt_that_feedback_overtook_still_says_when_the_first_byte_left(
    database: Engine, key_ring: KeyRing
) -> None:
    message_id, worker = left(database, key_ring, status="sending"), uuid4()
    with database.begin() as connection:
        connection.execute(text("UPDATE message SET worker_id = :worker"), {"worker": worker})
    record(database, key_ring, [report(message_id, Kind.DELIVERED)])
    assert row_of(database, message_id).handed_over_at is None

    moment = Moment(row_of(database, message_id).authorised_at, boot_seconds())
    settle(database, worker, [message_id], [Accepted("their id", moment.boot + 1)], moment)

    row = row_of(database, message_id)
    assert (row.status, row.provider_ref) == ("delivered", "their id")
    assert row.handed_over_at == moment.at + timedelta(seconds=1)
