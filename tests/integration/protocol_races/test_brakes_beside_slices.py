"""Who holds up whom: one bad contact, a merge in the middle, a pause and `stop-all` beside slices that never end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from racing import PEOPLE, SANDBOX, before_authorise, contact, send_all, started, statuses
from sqlalchemy import Engine, text

from dispatcher import authorise as authorising
from dispatcher import identity, messages, release, runs
from dispatcher.authorise import Candidate, Claim
from dispatcher.keys import KeyRing
from dispatcher.rates import accounts, taking
from dispatcher.sending import Hands, send_batch


def test_one_contact_whose_data_cannot_be_opened_holds_nobody_up(hands: Hands) -> None:
    started(hands.database)
    with hands.database.begin() as connection:  # a torn backup, a flipped bit
        connection.execute(text("UPDATE contact SET sealed = 'not what was sealed' WHERE external_id = 'p2'"))
    send_all(hands)

    assert statuses(hands.database) == {"sent": PEOPLE - 1, "RENDER_FAILED": 1}


def test_an_order_confirmation_survives_a_merge_between_rendering_and_authorising(
    hands: Hands, key_ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hands.database.begin() as connection:
        wish = messages.Wish("order", "email", "p1", {})
        messages.submit(connection, key_ring, wish, client="shop", idempotency_key="order-1")

    def merge() -> None:
        with hands.database.begin() as connection:
            identity.merge(connection, key_ring, contact(connection, "p0"), contact(connection, "p1"))

    before_authorise(monkeypatch, merge)
    send_all(hands)
    send_all(hands)

    assert statuses(hands.database) == {"sent": 1}


@pytest.fixture
def endless_slices(shop: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[UUID]:
    """A run for which at every moment one worker or another is in the middle of authorising a slice."""
    run_id = started(shop)
    with shop.connect() as connection:
        message = connection.execute(text("SELECT * FROM message ORDER BY contact_id LIMIT 1")).one()
    slice_ = [Candidate(message.id, message.contact_id, 0, message.expires_at, message.first_due_at)]
    claim = Claim(message.batch_id, 99, run_id, "email.marketing", uuid4())  # fenced off: nothing leaves
    enough = threading.Event()

    def take(*_: Any, **__: Any) -> taking.Taken:
        enough.wait(0.2)
        return taking.Taken(accounts.Account("sandbox"), going={message.id: 1})

    monkeypatch.setattr(authorising, "taking", SimpleNamespace(take=take))
    monkeypatch.setattr(authorising, "lock_contacts", lambda *_: None)  # each its own contacts, as in a large run
    monkeypatch.setattr(authorising, "lock_addresses", lambda *_: None)

    def work() -> None:
        while not enough.is_set():
            authorising.authorise(shop, claim, slice_, offers=[SANDBOX], urgent=False)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for each in workers:
        each.start()
        enough.wait(0.04)
    yield run_id
    enough.set()
    for each in workers:
        each.join()


def test_a_pause_does_not_wait_for_slices_that_never_stop_coming(shop: Engine, endless_slices: UUID) -> None:
    with shop.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = '3s'"))
        runs.pause(connection, endless_slices, by="test")


def test_stop_all_does_not_wait_for_slices_that_never_stop_coming(shop: Engine, endless_slices: UUID) -> None:
    with shop.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = '3s'"))
        runs.stop_all(connection, by="test")


def test_who_holds_the_row_of_the_engine_holds_up_no_order_confirmation(hands: Hands, key_ring: KeyRing) -> None:
    with hands.database.begin() as connection:
        wish = messages.Wish("order", "email", "p1", {})
        messages.submit(connection, key_ring, wish, client="shop", idempotency_key="order-1")
    [ticket] = release.release(hands.database)
    with hands.database.begin() as applying:  # a long one: new half-life, every score afresh
        applying.execute(text("SELECT shop FROM engine FOR UPDATE"))
        sender = threading.Thread(target=send_batch, args=(hands, ticket.batch_id), daemon=True)
        sender.start()
        sender.join(5)
        waiting = sender.is_alive()
    sender.join()

    assert not waiting
    assert statuses(hands.database) == {"sent": 1}
