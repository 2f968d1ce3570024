"""Circuits and failover while a shop sends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from at_work import AtWork
from letting_go import PEOPLE, Says, Warns, account, by_provider, send_by
from lost_commits import lossy_network
from sqlalchemy import text

from dispatcher.providers.protocol import NotSent, Rejected, Unknown
from dispatcher.rates import accounts
from dispatcher.rates.circuit import FIRST_WAIT
from dispatcher.sending import send_batch


def test_the_second_provider_comes_in_when_the_first_refuses_us_and_goes_when_it_is_back(
    shop: AtWork, tmp_path: Path
) -> None:
    first = Says(tmp_path, "sendgrid", Rejected("401", 1.0, scope="account"), None)
    second = Says(tmp_path, "smtp", None)
    shop.plan(shop.start("hello"))
    send_by(shop, first, second)
    assert by_provider(shop) == {("pending", None): PEOPLE}
    send_by(shop, first, second)
    assert by_provider(shop) == {("sent", "smtp"): PEOPLE}

    shop.do("DELETE FROM attempt")
    shop.do("DELETE FROM message")
    shop.do("UPDATE account SET open_until = now() - interval '1 s' + (SELECT clock_offset FROM engine)")
    shop.plan(shop.start("hello"))
    send_by(shop, first, second)
    assert by_provider(shop) == {("sent", "sendgrid"): PEOPLE}
    assert first.sizes == [PEOPLE, 1, PEOPLE - 1]
    assert account(shop, "sendgrid")["circuit"] == "closed"


def test_a_message_in_doubt_stays_with_the_provider_that_may_have_it(shop: AtWork, tmp_path: Path) -> None:
    first, second = Says(tmp_path, "sendgrid", Unknown("reset", 1.0)), Says(tmp_path, "smtp", None)
    shop.plan(shop.start("hello"))
    for _ in range(3):
        send_by(shop, first, second)
    assert by_provider(shop) == {("unknown", "sendgrid"): PEOPLE}
    # as if they were transactional, and had waited long enough to be sent once more
    shop.do(
        """INSERT INTO attempt (message_id, number, authorised_at, settled_at, provider, outcome)
           SELECT id, attempts, authorised_at, settled_at, provider, 'unknown' FROM message"""
    )
    shop.do(
        """UPDATE message SET status = 'pending', batch_id = NULL, authorised_at = NULL, authorise_seq = NULL,
                  send_deadline = NULL, handed_over_at = NULL, settled_at = NULL, worker_id = NULL, provider = NULL"""
    )
    shop.do(
        "UPDATE account SET circuit = 'open', open_until = now() + interval '4 min' + (SELECT clock_offset FROM engine)"
    )
    send_by(shop, first, second)

    assert by_provider(shop) == {("pending", None): PEOPLE}
    assert second.sizes == []


def test_a_few_hand_overs_that_get_nowhere_open_the_circuit_and_a_probe_closes_it(shop: AtWork, tmp_path: Path) -> None:
    nobody_there = NotSent("no connection", unreachable=True)
    down = Says(tmp_path, "smtp", nobody_there, nobody_there, nobody_there, nobody_there, None)
    run_id = shop.plan(shop.start("hello"))
    for _ in range(5):
        send_by(shop, down)
    assert down.sizes == [PEOPLE] * 3
    assert shop.became(run_id) == {"RATE": PEOPLE}

    opened = account(shop, "smtp")
    assert opened["circuit"] == "open"
    shop.move_to(opened["open_until"])
    send_by(shop, down)
    assert down.sizes == [PEOPLE] * 3 + [1]
    again = account(shop, "smtp")
    assert again["open_until"] - opened["open_until"] >= 2 * FIRST_WAIT
    shop.move_to(again["open_until"])
    send_by(shop, down)
    assert by_provider(shop) == {("sent", "smtp"): PEOPLE}
    assert account(shop, "smtp")["circuit"] == "closed"


def test_while_a_probe_is_under_way_nothing_that_waits_for_it_is_looked_at(shop: AtWork, tmp_path: Path) -> None:
    with shop.database.begin() as connection:
        accounts.set_accounts(connection, {"email": ["smtp"], "sms": ["sandbox"]})
    run_id = shop.plan(shop.start("hello"))
    shop.do("INSERT INTO account (name, circuit, open_until) VALUES ('smtp', 'open', now())")
    released: list[list[int]] = []

    def look() -> None:
        shop.do("UPDATE message SET due_at = first_due_at WHERE status = 'pending' AND batch_id IS NULL")
        released.append(shop.release())

    first, second = dealt_out_to_two(shop)
    provider = Warns(tmp_path, "smtp", lambda: (send_batch(shop.hands, second), look()), None)
    shop.hands = replace(shop.hands, providers={"email": provider})
    send_batch(shop.hands, first)

    assert provider.sizes == [1, PEOPLE // 2 - 1]
    assert shop.became(run_id) == {"sent": PEOPLE // 2, "RATE": PEOPLE // 2}
    assert released[0] == []
    look()
    assert len(released[-1]) == 1  # it was well: nothing waits any more


def dealt_out_to_two(shop: AtWork) -> tuple[int, int]:
    """Release what is due; return its batch, and another that has half of it."""
    [batch_id] = shop.release()
    with shop.database.begin() as connection:
        other = connection.scalar(text("INSERT INTO batch (run_id, lane) SELECT run_id, lane FROM batch RETURNING id"))
        connection.execute(
            text("UPDATE message SET batch_id = :other WHERE id IN (SELECT id FROM message LIMIT :half)"),
            {"other": other, "half": PEOPLE // 2},
        )
    return batch_id, int(other)


def test_a_lost_commit_counts_no_failure_twice(shop: AtWork, tmp_path: Path) -> None:
    shop.plan(shop.start("hello"))
    with lossy_network(shop.database) as (network, database):
        shop.hands = replace(shop.hands, database=database)
        nobody_there = NotSent("no connection", unreachable=True)
        send_by(shop, Warns(tmp_path, "smtp", lambda: setattr(network, "lose", b"SET circuit"), nobody_there))

    assert network.lost == 1
    assert account(shop, "smtp")["failures"] == 1
