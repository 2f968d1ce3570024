"""What closes, cancels and goes on while others hold rows; clocks that are set back; receipts that come twice."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from ledger_rows import wait_until, waiting_for_a_lock
from racing import PEOPLE, SANDBOX, contact, ready, send_all, started, statuses
from sqlalchemy import Engine, text

from dispatcher import clock, identity, locks, messages, release, runs
from dispatcher.contacts import Particulars, save_contacts
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_round
from dispatcher.providers.protocol import Envelope, Moment, NotSent, Receipt
from dispatcher.providers.sandbox import Sandbox
from dispatcher.rates import taking
from dispatcher.schedules import fire_due
from dispatcher.sending import Hands, send_batch
from dispatcher.settle import settle


def test_who_closes_a_batch_waits_with_no_message_in_its_hands(hands: Hands) -> None:
    started(hands.database)
    [batch_id] = ready(hands.database)
    hands.stopping.set()  # nothing is sent; the batch is closed and its messages go back
    with hands.database.begin() as merging:
        locks.lock_contacts(merging, [contact(merging, "p5")])
        merging.execute(text("UPDATE message SET facts = NULL WHERE contact_id = :p5"), {"p5": contact(merging, "p5")})
        closing = threading.Thread(target=send_batch, args=(hands, batch_id))
        closing.start()
        wait_until(lambda: waiting_for_a_lock(hands.database))
        merging.execute(text("SELECT FROM message FOR UPDATE NOWAIT"))  # as an import that merges others, too
    closing.join()

    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message WHERE batch_id IS NULL")) == PEOPLE


def test_an_import_holds_old_tombstones_in_their_order(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        identity.merge(connection, key_ring, contact(connection, "p1"), p2 := contact(connection, "p2"))
        p3 = contact(connection, "p3")
    given = [
        Particulars("p1", email="p0@people.example"),  # p1, with its tombstone, turns out to be p0
        Particulars("p3", first_name="Anna"),
    ]

    def take_in() -> None:
        with shop.begin() as connection:
            save_contacts(connection, key_ring, given)

    with shop.begin() as authorising_:
        locks.lock_contacts(authorising_, [p2])  # rendered before the merge
        importing = threading.Thread(target=take_in)
        importing.start()
        wait_until(lambda: waiting_for_a_lock(shop))
        authorising_.execute(text("SELECT FROM contact WHERE id = :p3 FOR NO KEY UPDATE NOWAIT"), {"p3": p3})
    importing.join()

    with shop.connect() as connection:
        survivor = connection.scalar(text("SELECT merged_into FROM contact WHERE id = :p2"), {"p2": p2})
        assert survivor == contact(connection, "p0")


def test_a_batch_of_a_finished_run_is_done(hands: Hands) -> None:
    run_id = started(hands.database)
    with hands.database.begin() as connection:
        runs.cancel(connection, run_id, by="test")
    release.release(hands.database)
    release.release(hands.database)

    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT finished_at IS NOT NULL FROM run"))
        assert connection.scalar(text("SELECT state FROM batch")) == "done"


@pytest.mark.parametrize("deferred", ["OUTRANKED", "OPERATOR"])
def test_what_is_cancelled_is_no_longer_put_off(shop: Engine, deferred: str) -> None:
    run_id = started(shop)
    with shop.begin() as connection:
        connection.execute(text("UPDATE message SET deferred_reason = :deferred"), {"deferred": deferred})
        runs.cancel(connection, run_id, by="test")
    release.release(shop)

    with shop.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message WHERE deferred_reason IS NULL")) == PEOPLE


def test_go_on_waits_for_nobody_who_holds_a_message(shop: Engine) -> None:
    run_id = started(shop)
    with shop.begin() as connection:
        runs.pause(connection, run_id, by="test")
        connection.execute(text("UPDATE message SET deferred_reason = 'OPERATOR', batch_id = NULL"))
    with shop.begin() as merging, shop.begin() as connection:
        merging.execute(text("SELECT FROM message ORDER BY contact_id LIMIT 1 FOR UPDATE"))
        connection.execute(text("SET LOCAL statement_timeout = '3s'"))
        runs.resume(connection, run_id, by="test")
    assert statuses(shop) == {"OPERATOR": 1, "pending": PEOPLE - 1}


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
def test_whatever_ends_the_winner_makes_the_loser_due_at_once(hands: Hands, key_ring: KeyRing, ends: str) -> None:
    winner = started(hands.database, "important")
    loser = started(hands.database, "hello")
    assert statuses(hands.database, loser) == {"OUTRANKED": PEOPLE}
    with hands.database.begin() as connection:
        if ends == "cancelled":
            runs.cancel(connection, winner, by="test")
        else:
            connection.execute(text("UPDATE contact SET sealed = NULL WHERE external_id = 'p3'"))
    send_all(hands)
    send_all(hands)

    if ends == "cancelled":
        assert statuses(hands.database, loser) == {"sent": PEOPLE}
    else:
        assert statuses(hands.database, loser) == {"CAPPED": PEOPLE - 1, "RENDER_FAILED": 1}


def test_the_run_of_a_transactional_template_cannot_be_cancelled(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        wish = messages.Wish("order", "email", "p1", {})
        messages.submit(connection, key_ring, wish, client="shop", idempotency_key="order-1")
        run_id = connection.scalar(text("SELECT run_id FROM message"))
    with shop.begin() as connection, pytest.raises(Refused, match="pause"):
        runs.cancel(connection, run_id, by="test")


def test_a_campaign_that_cannot_fire_holds_up_no_other(shop: Engine) -> None:
    with shop.begin() as connection:
        definition = text("""UPDATE campaign SET fires_after = clock_timestamp() - interval '1 min',
                                 next_fire_at = clock_timestamp() - interval '1 min' - :earlier * interval '1 s',
                                 definition = definition || CAST(:schedule AS jsonb) WHERE name = :name""")
        every_minute = '{"schedule": {"cron": "* * * * *", "zone": "UTC"}}'
        connection.execute(definition, {"name": "hello", "earlier": 1, "schedule": '{"schedule": {"cron": 7}}'})
        connection.execute(definition, {"name": "again", "earlier": 0, "schedule": every_minute})

    assert len(fire_due(shop)) == 1


def test_one_run_that_cannot_be_planned_holds_up_no_other(
    shop: Engine, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shop.begin() as connection:
        bad, good = (runs.start(connection, name, started_by="test") for name in ("important", "hello"))
        connection.execute(text("UPDATE run SET definition = '{}' WHERE id = :id"), {"id": bad})
    assert plan_round(shop)

    with shop.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message WHERE run_id = :id"), {"id": good}) == PEOPLE


class WritesTwice(Sandbox):
    """A provider that is not there at first; while it takes the mails, the first receipts are written once more.

    That is what `settle` does when the answer of its commit was lost: the database had it, and nobody knows.
    """

    hands: Hands
    first: tuple[list[UUID], Moment] | None = None

    def hand_over(self, slice_: Sequence[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        not_there = [NotSent("no connection", unreachable=True) for _ in slice_]
        if self.first is None:
            self.first = [envelope.message_id for envelope in slice_], moment
            return not_there
        settle(self.hands.database, self.hands.worker_id, self.first[0], not_there, self.first[1])
        return super().hand_over(slice_, moment, deadline)


def test_receipts_that_are_written_twice_say_nothing_of_the_next_try(hands: Hands, tmp_path: Path) -> None:
    provider = WritesTwice(tmp_path / "sandbox", "email")
    provider.hands = hands = replace(hands, providers={"email": provider})
    run_id = started(hands.database)
    send_all(hands)
    assert statuses(hands.database, run_id) == {"pending": PEOPLE}
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE message SET due_at = first_due_at"))

    send_all(hands)

    assert statuses(hands.database, run_id) == {"sent": PEOPLE}
    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM attempt")) == PEOPLE


def test_a_clock_set_back_frees_no_slot(hands: Hands) -> None:
    started(hands.database)
    send_all(hands)
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE engine SET clock_offset = interval '-1 hour'"))
    again = started(hands.database, "again")
    send_all(hands)

    assert statuses(hands.database, again) == {"CAPPED": PEOPLE}


def test_a_clock_set_back_does_not_stop_a_lane(hands: Hands) -> None:
    with hands.database.begin() as connection:
        connection.execute(
            text("""INSERT INTO lane (name, rate_per_second, burst, theoretical_arrival_at)
                    VALUES ('email.marketing', 100, 10, clock_timestamp() + interval '5 hours')""")
        )
        now = clock.read_now(connection)
        some = [taking.Wanted(uuid4()) for _ in range(6)]
        for wanted, at in ((some[:1], now), (some[1:], now + timedelta(seconds=1))):
            taken = taking.take(
                connection, "email.marketing", wanted, at, offers=[SANDBOX], speed=taking.Speed(sender="a@shop.example")
            )

    assert len(taken.going) == 5


def test_a_slice_that_makes_nobody_due_wakes_nobody(hands: Hands) -> None:
    started(hands.database)
    with hands.database.connect().execution_options(isolation_level="AUTOCOMMIT") as listener:
        driver = listener.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.execute("LISTEN dispatcher")
        send_all(hands)
        assert statuses(hands.database) == {"sent": PEOPLE}
        assert list(driver.notifies(timeout=0.2)) == []
