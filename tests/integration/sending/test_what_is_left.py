"""What is left when a ticket, a worker or a run is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError
from sent_off import PEOPLE, planned, send_all, statuses, worker
from sqlalchemy import text

from dispatcher import release, rescue, runs
from dispatcher.keys import KeyRing
from dispatcher.sending import Hands, send_batch


def test_a_paused_run_hands_out_no_tickets(hands: Hands) -> None:
    run_id = planned(hands.database)
    with hands.database.begin() as connection:
        runs.pause(connection, run_id, by="test")

    assert release.release(hands.database) == []
    assert send_all(hands) == 0


def test_a_lost_ticket_is_written_again_when_it_is_overdue(hands: Hands) -> None:
    planned(hands.database)

    assert len(release.release(hands.database)) == 1
    assert release.release(hands.database) == []
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE batch SET ticketed_at = ticketed_at - interval '11 s'"))
    assert len(release.release(hands.database)) == 1


def test_what_a_dead_worker_held_goes_on_and_what_may_have_left_is_in_doubt(
    hands: Hands, key_ring: KeyRing, tmp_path: Path
) -> None:
    import os

    planned(hands.database)
    dying = worker(hands.database, tmp_path)
    with hands.database.begin() as connection:
        connection.execute(
            text("UPDATE batch SET state = 'claimed', claim_token = 1, worker_id = :worker"),
            {"worker": dying.worker_id},
        )
        connection.execute(
            text("""UPDATE message SET status = 'sending', worker_id = :worker, authorised_at = clock_timestamp()
                    WHERE id IN (SELECT id FROM message ORDER BY contact_id LIMIT 10)"""),
            {"worker": dying.worker_id},
        )
    assert rescue.rescue(hands.database) == 0  # alive: its lock is held
    os.close(dying.descriptor)  # what the kernel does when a process dies

    assert rescue.rescue(hands.database) == 1
    assert statuses(hands.database) == {"unknown": 10, "pending": PEOPLE - 10}
    release.release(hands.database)
    send_all(hands)
    assert statuses(hands.database) == {"unknown": 10, "sent": PEOPLE - 10}


def test_a_run_is_finished_when_nothing_is_left_to_do(hands: Hands) -> None:
    planned(hands.database)
    send_all(hands)
    release.release(hands.database)

    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT state FROM run")) == "finished"


def test_a_run_that_cannot_be_sent_holds_up_no_other(hands: Hands) -> None:
    broken, places = planned(hands.database), 2 * release.TICKETS_PER_SLOT
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE run SET definition = '{}'"))
        connection.execute(  # as many batches as a large run has
            text("INSERT INTO batch (run_id, lane) SELECT :run, 'email.marketing' FROM generate_series(1, :more)"),
            {"run": broken, "more": 2 * places},
        )
        connection.execute(text("UPDATE message SET due_at = due_at + interval '2 days'"))  # it is nobody's rival
    tickets = release.release(hands.database)
    assert len(tickets) == places
    for ticket in tickets:
        with pytest.raises(ValidationError):
            send_batch(hands, ticket.batch_id)
    good = planned(hands.database, "again")
    for ticket in release.release(hands.database):
        send_batch(hands, ticket.batch_id)

    with hands.database.connect() as connection:
        became = connection.scalars(text("SELECT status FROM message WHERE run_id = :run"), {"run": good})
        assert Counter(became) == {"sent": PEOPLE}
        connection.execute(text("UPDATE batch SET lease_until = lease_until - interval '1 min'"))
        connection.commit()
    assert len(release.release(hands.database)) == places  # whoever mends the run need not know of its batches
