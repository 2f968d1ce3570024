"""What does not leave, and what becomes of it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from people import say
from sent_off import PEOPLE, batches, outbox, planned, send_all, statuses
from small_workspace import FILES, write_workspace
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from dispatcher import release, runs
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.providers.protocol import Moment, NotSent, Receipt
from dispatcher.providers.sandbox import Sandbox
from dispatcher.sending import Hands, send_batch
from dispatcher.workspace import read_workspace


@pytest.mark.parametrize("store", ["suppression", "consent"])
def test_nothing_leaves_while_what_forbids_it_cannot_be_read(hands: Hands, tmp_path: Path, store: str) -> None:
    """ASVS 5.0 16.5.3: it fails closed."""
    planned(hands.database)
    with hands.database.begin() as connection:
        connection.execute(text(f"ALTER TABLE {store} RENAME TO away"))
    with pytest.raises(ProgrammingError):
        send_all(hands)

    assert outbox(tmp_path) == []
    assert statuses(hands.database) == {"pending": PEOPLE}


def test_whoever_withdraws_after_the_plan_gets_nothing(hands: Hands, key_ring: KeyRing, tmp_path: Path) -> None:
    planned(hands.database)
    with hands.database.begin() as connection:
        contact_id = connection.scalar(text("SELECT id FROM contact WHERE external_id = 'p07'"))
        say(connection, key_ring, contact_id, [("email", "offers", "withdrawn")])
    send_all(hands)

    assert "p07" not in {mail["contact"] for mail in outbox(tmp_path)}
    assert statuses(hands.database) == {"sent": PEOPLE - 1, "skipped": 1}


def test_a_cap_holds_between_two_campaigns_that_are_sent_at_once(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database, "hello")
    planned(hands.database, "again")
    with hands.database.connect() as connection:
        waiting = batches(connection)
    threads = [threading.Thread(target=send_batch, args=(hands, batch_id)) for batch_id in waiting]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    send_all(hands)

    assert len(outbox(tmp_path)) == PEOPLE  # the shop's cap: one a day
    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT max(n) FROM (SELECT count(*) AS n FROM message WHERE status = 'sent' "
                                      "GROUP BY contact_id) AS x")) == 1  # fmt: skip


def test_past_its_deadline_a_message_is_not_sent_and_goes_back(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)

    class Late(Sandbox):
        def hand_over(self, slice_: Any, moment: Moment, deadline: float) -> list[Receipt]:
            receipts = super().hand_over(slice_, moment, deadline=moment.boot)
            assert all(isinstance(receipt, NotSent) for receipt in receipts)
            return receipts

    late = replace(hands, providers={"email": Late(tmp_path / "sandbox", "email")})
    with hands.database.connect() as connection:
        [batch_id] = batches(connection)
    send_batch(late, batch_id)

    assert statuses(hands.database) == {"pending": PEOPLE}
    assert outbox(tmp_path) == []


@pytest.mark.parametrize("recheck", [True, False])
def test_whoever_left_the_segment_meanwhile_is_skipped_if_the_campaign_asks(
    hands: Hands, tmp_path: Path, recheck: bool
) -> None:
    asking = {"campaigns/hello.yaml": FILES["campaigns/hello.yaml"] + f"recheck_segment: {str(recheck).lower()}\n"}
    with hands.database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "asking", asking)), by="test")
    planned(hands.database)
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE contact SET country = 'DE' WHERE external_id = 'p03'"))
    send_all(hands)

    with hands.database.connect() as connection:
        became = connection.execute(
            text("""SELECT m.status, m.reason FROM message m JOIN contact c ON c.id = m.contact_id
                    WHERE c.external_id = 'p03'""")
        ).one()
    assert tuple(became) == (("skipped", "NOT_IN_SEGMENT") if recheck else ("sent", None))


def test_a_stopped_engine_authorises_nothing_and_goes_on_where_it_was(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)
    with hands.database.begin() as connection:
        runs.stop_all(connection, by="test")
    assert send_all(hands) == 0
    assert release.release(hands.database) == []
    with hands.database.begin() as connection:
        runs.go_on(connection, by="test")
    release.release(hands.database)

    assert send_all(hands) == PEOPLE


def test_a_message_that_cannot_be_rendered_fails_alone(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE contact SET sealed = NULL WHERE external_id = 'p05'"))
    send_all(hands)

    assert statuses(hands.database) == {"sent": PEOPLE - 1, "failed": 1}
    assert len(outbox(tmp_path)) == PEOPLE - 1


def test_nothing_is_authorised_to_leave_after_its_expiry(hands: Hands) -> None:
    planned(hands.database)
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE message SET expires_at = clock_timestamp() + interval '10 s'"))
    send_all(hands)

    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message WHERE send_deadline <= expires_at")) == PEOPLE
