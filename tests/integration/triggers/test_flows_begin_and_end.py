"""Events start messages, move them and end them."""

from __future__ import annotations

import pytest
from flowing import HOUR, MINUTE, outcomes
from flows import Flows, cart, event, order
from people import add_person, say
from sqlalchemy import text

from dispatcher import identity
from dispatcher.resources import resource
from dispatcher.triggers.arrivals import Outcome, Starting


def test_a_cart_left_alone_is_reminded_of_once_an_hour_later(flows: Flows) -> None:
    began = flows.now
    assert outcomes(flows, cart(began)) == [Outcome.STARTED]

    [row] = flows.messages()
    assert (row.status, row.due_at, row.expires_at) == ("pending", began + HOUR, began + 25 * HOUR)
    assert (row.batch_id, row.lane, row.name) == (None, "email.marketing", "abandoned-cart")
    flows.send()
    assert flows.mails() == []
    flows.wait(61 * MINUTE)
    flows.send()
    flows.send()

    assert [mail["subject"] for mail in flows.mails()] == ["Cart cart-1 of 10"]
    assert flows.became() == {"sent": 1}


def test_an_order_confirmation_is_born_in_a_batch_and_needs_no_consent(flows: Flows) -> None:
    with flows.database.begin() as connection:
        add_person(connection, flows.key_ring, "shy", granted=())
    assert outcomes(flows, order(flows.now, "shy", key="A-17")) == [Outcome.STARTED]

    [row] = flows.messages()
    assert row.batch_id is not None
    assert (row.lane, row.class_ if hasattr(row, "class_") else row._mapping["class"]) == (
        "email.transactional",
        "transactional",
    )
    flows.send()
    assert [(mail["contact"], mail["subject"]) for mail in flows.mails()] == [("shy", "Order A-17")]


def test_a_reminder_passes_every_gate_at_its_own_moment(flows: Flows) -> None:
    with flows.database.begin() as connection:
        leaver = add_person(connection, flows.key_ring, "leaver")
    flows.arrive(cart(flows.now, "ana", "a"), cart(flows.now, "leaver", "b"))
    with flows.database.begin() as connection:
        say(connection, flows.key_ring, leaver, [("email", "offers", "withdrawn")])
    flows.wait(61 * MINUTE)
    flows.send()

    assert flows.became() == {"sent": 1, "NO_CONSENT": 1}


@pytest.mark.parametrize("order_first", [False, True])
def test_an_order_ends_the_flow_whichever_arrives_first(flows: Flows, order_first: bool) -> None:
    began = flows.now - 30 * MINUTE
    events = [cart(began), order(began + MINUTE)]
    for one in reversed(events) if order_first else events:
        flows.arrive(one)
    flows.wait(HOUR)
    flows.send()

    assert flows.became() == {"FLOW_EXIT": 1, "sent": 1}  # the order itself is confirmed
    [exited] = [row for row in flows.messages() if row.because == "FLOW_EXIT"]
    assert (exited.facts["event"], exited.facts["same"]) == ("order.placed", "contact")


def test_an_order_before_the_cart_ends_nothing_however_late_it_arrives(flows: Flows) -> None:
    began = flows.now - 30 * MINUTE
    flows.arrive(cart(began))
    flows.arrive(order(began - MINUTE), starting=Starting.NOTHING)
    flows.wait(HOUR)
    flows.send()

    assert flows.became() == {"sent": 1}


@pytest.mark.parametrize("same", ["key", "phone", "merged contact", "nothing"])
def test_somebody_elses_order_ends_the_flow_only_if_something_is_the_same(flows: Flows, same: str) -> None:
    with flows.database.begin() as connection:
        phone = "+447700900001" if same == "phone" else "+447700900002"
        guest = add_person(connection, flows.key_ring, "guest", email=None, phone=phone, granted=())
        ana = connection.scalar(text("SELECT id FROM contact WHERE external_id = 'ana'"))
    flows.arrive(cart(flows.now))
    more = {"cart_id": "cart-1"} if same == "key" else {}
    flows.arrive(order(flows.now, "guest", **more), starting=Starting.NOTHING)
    if same == "merged contact":
        with flows.database.begin() as connection:
            identity.merge(connection, flows.key_ring, ana, guest)
    flows.wait(61 * MINUTE)
    flows.send()

    assert flows.became() == ({"sent": 1} if same == "nothing" else {"FLOW_EXIT": 1})


@pytest.mark.parametrize("cancel_first", [False, True])
def test_a_cancel_ends_the_flow_of_its_key_alone(flows: Flows, cancel_first: bool) -> None:
    began = flows.now
    cancel = event("checkout.cancelled", began + MINUTE, cart_id="cart-1")
    for one in [cancel, cart(began)] if cancel_first else [cart(began), cancel]:
        flows.arrive(one)
    flows.arrive(cart(began, cart_id="cart-2"))
    flows.wait(2 * HOUR)
    flows.send()

    assert flows.became() == {"FLOW_EXIT": 1, "sent": 1}
    assert [mail["subject"] for mail in flows.mails()] == ["Cart cart-2 of 10"]


def test_the_examples_confirmation_of_an_order_that_was_cancelled_is_not_sent(flows: Flows) -> None:
    example = resource("examples", "workspace", "triggers") / "order-confirmation.yaml"
    written = example.read_text(encoding="utf-8").replace("template: order-confirmation", "template: thanks")
    flows.apply({"triggers/order-confirmation.yaml": written})
    flows.arrive(order(flows.now, order_id="1"), order(flows.now, order_id="2"))
    flows.arrive(event("order.cancelled", flows.now, order_id="1"))
    flows.send()

    assert flows.became() == {"FLOW_EXIT": 1, "sent": 1}


def test_a_newer_event_of_the_key_moves_the_message_and_an_older_one_does_not(flows: Flows) -> None:
    began = flows.now
    flows.arrive(cart(began, value=10))
    newer = began + 20 * MINUTE
    assert outcomes(flows, cart(newer, value=25)) == [Outcome.MOVED]
    assert outcomes(flows, cart(began + MINUTE, value=7)) == [Outcome.OLDER]

    [row] = flows.messages()
    assert row.due_at <= newer + HOUR  # what is later than our clock counts from its arrival
    flows.wait(2 * HOUR)
    flows.send()
    assert [mail["subject"] for mail in flows.mails()] == ["Cart cart-1 of 25"]


def test_due_is_after_the_newest_event_happened(flows: Flows) -> None:
    now = flows.now
    flows.arrive(cart(now - 50 * MINUTE), cart(now - 10 * MINUTE), cart(now - 30 * MINUTE))

    [row] = flows.messages()
    assert row.due_at == row.first_due_at == now + 50 * MINUTE
    assert row.expires_at == row.due_at + 24 * HOUR


def test_what_has_left_is_not_sent_again_by_a_newer_event(flows: Flows) -> None:
    flows.arrive(cart(flows.now - 2 * HOUR))
    flows.send()
    assert outcomes(flows, cart(flows.now)) == [Outcome.OVER]
    flows.wait(2 * HOUR)
    flows.send()

    assert len(flows.mails()) == 1


def test_a_newer_event_of_another_contact_takes_the_message_along(flows: Flows) -> None:
    flows.arrive(cart(flows.now - 10 * MINUTE, "ana"))
    flows.arrive(cart(flows.now, "ben", value=3))
    [row] = flows.messages()
    assert row.external_id == "ben"
    flows.wait(2 * HOUR)
    flows.send()

    assert [(mail["contact"], mail["subject"]) for mail in flows.mails()] == [("ben", "Cart cart-1 of 3")]


def test_the_same_event_twice_starts_one_message(flows: Flows) -> None:
    one = cart(flows.now)
    assert outcomes(flows, one, one) == [Outcome.STARTED]
    assert outcomes(flows, one) == []
    assert len(flows.messages()) == 1


def test_an_event_without_its_key_is_recorded_and_starts_nothing(flows: Flows) -> None:
    recorded = flows.arrive(event("checkout.started", flows.now))

    assert (recorded.new, [step.outcome for step in recorded.steps]) == (1, [Outcome.NO_KEY])
    assert flows.messages() == []
