"""What holds a flow, what it was born with, and how it is explained, listed and verified."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from flowing import HOUR, MINUTE, outcomes
from flows import CART, Flows, cart, event, order
from ledger_rows import wait_until
from people import add_person, say
from small_workspace import FILES
from sqlalchemy import Connection, text

from dispatcher import reports, runs
from dispatcher.cli import door
from dispatcher.cli import run as run_command
from dispatcher.contacts import Particulars, save_contact
from dispatcher.errors import NotFound, Refused
from dispatcher.events import record_events
from dispatcher.explain import explain
from dispatcher.imports.events import import_events
from dispatcher.triggers import listing
from dispatcher.triggers.arrivals import Outcome, Starting
from dispatcher.verify import verify


def test_history_mails_nobody(flows: Flows) -> None:
    now = flows.now
    old = [cart(now - timedelta(hours=26), cart_id="a"), order(now - timedelta(days=400)), order(now - 73 * HOUR)]
    assert outcomes(flows, *old) == [Outcome.LATE] * 3
    assert outcomes(flows, cart(now - 3 * HOUR, cart_id="b"), starting=Starting.RECENT) == [Outcome.LATE]
    assert outcomes(flows, cart(now - 90 * MINUTE, cart_id="c"), starting=Starting.RECENT) == [Outcome.STARTED]
    assert outcomes(flows, cart(now, cart_id="d"), starting=Starting.NOTHING) == []

    assert len(flows.messages()) == 1


def test_a_message_keeps_the_flow_and_the_content_it_was_born_with(flows: Flows) -> None:
    flows.arrive(cart(flows.now, cart_id="old"))
    changes = {
        "triggers/abandoned-cart.yaml": CART.replace("after: 1h", "after: 3h").replace("order.placed", "order.paid"),
        "templates/email/cart/subject.txt": "Still yours\n",
    }
    assert flows.apply(changes)["abandoned-cart"] == "changed"
    flows.arrive(cart(flows.now, cart_id="new"))
    began = flows.now
    assert outcomes(flows, cart(began, cart_id="old", value=11)) == [Outcome.MOVED]

    old, new = flows.messages()
    assert old.occurrence_key != new.occurrence_key
    assert old.due_at == began + HOUR
    flows.wait(4 * HOUR)
    flows.send()
    assert [mail["subject"] for mail in flows.mails()] == ["Cart old of 11", "Still yours"]


def test_a_retired_trigger_starts_nothing_and_finishes_what_it_began(flows: Flows) -> None:
    flows.arrive(cart(flows.now, cart_id="a"), cart(flows.now, cart_id="b"))
    assert flows.apply({"triggers/abandoned-cart.yaml": None})["abandoned-cart"] == "retired"
    flows.arrive(cart(flows.now, cart_id="c"))
    flows.arrive(event("checkout.cancelled", flows.now, cart_id="a"))
    flows.wait(61 * MINUTE)
    flows.send()

    assert flows.became() == {"sent": 1, "FLOW_EXIT": 1}
    assert flows.apply()["abandoned-cart"] == "added"
    assert outcomes(flows, cart(flows.now, cart_id="d")) == [Outcome.STARTED]


def test_while_the_feed_is_silent_a_reminder_is_held_and_then_not_sent(flows: Flows) -> None:
    flows.arrive(cart(flows.now))
    flows.wait(7 * HOUR)  # 6 h, as twice `after` is less
    flows.send()
    [row] = flows.messages()
    assert (row.status, row.deferred_reason, row.facts["source"]) == ("pending", "SOURCE_STALE", "shop")
    flows.wait(timedelta(hours=17, minutes=57))
    flows.send()

    assert flows.became() == {"SOURCE_STALE": 1}
    assert flows.messages()[0].status == "skipped"


def test_a_held_reminder_goes_when_the_feed_is_back(flows: Flows) -> None:
    flows.arrive(cart(flows.now))
    flows.wait(7 * HOUR)
    flows.send()
    flows.arrive(event("page.viewed", flows.now, "ben"))
    flows.wait(5 * MINUTE)
    flows.send()

    assert flows.became() == {"sent": 1}


def test_what_the_event_said_is_only_in_the_message_sealed(flows: Flows) -> None:
    flows.arrive(cart(flows.now, cart_id="secret-77"))
    with flows.database.connect() as connection:
        row = connection.execute(
            text("SELECT m::text AS all, m.sealed, c.data_key FROM message m JOIN contact c ON c.id = m.contact_id")
        ).one()

    assert "secret-77" not in row.all
    assert flows.key_ring.open_data_key(row.data_key).open(row.sealed)["cart_id"] == "secret-77"


def test_a_paused_trigger_holds_what_comes_and_a_resumed_one_lets_it_go(flows: Flows) -> None:
    flows.arrive(order(flows.now))
    [row] = flows.messages()
    with flows.database.begin() as connection:
        runs.pause(connection, row.run_id, by="test")
    flows.arrive(order(flows.now))
    flows.send()
    assert flows.mails() == []
    with flows.database.begin() as connection:
        runs.resume(connection, row.run_id, by="test")
    flows.send()

    assert flows.became() == {"sent": 2}


def test_two_at_one_address_are_not_in_one_slice(flows: Flows) -> None:
    """Their caps could not see each other."""
    capped = {"dispatcher.toml": FILES["dispatcher.toml"]}
    flows.apply(capped)
    with flows.database.begin() as connection:
        for name in ("x", "y"):
            add_person(connection, flows.key_ring, name, email="both@people.example")
    flows.arrive(cart(flows.now, "x", "x"), cart(flows.now, "y", "y"))
    flows.wait(61 * MINUTE)
    flows.send()
    flows.send()

    assert flows.became() == {"sent": 1, "CAPPED": 1}


def test_an_erased_contacts_event_is_refused(flows: Flows) -> None:
    with flows.database.begin() as connection:
        connection.execute(text("UPDATE contact SET erased_at = clock_timestamp() WHERE external_id = 'ana'"))
        recorded = record_events(connection, flows.key_ring, [cart(flows.now)])

    assert (recorded.new, len(recorded.refused), recorded.steps) == (0, 1, ())


def test_explain_shows_the_flow_and_the_row_of_the_ledger(flows: Flows) -> None:
    flows.arrive(cart(flows.now - 2 * HOUR))
    flows.arrive(order(flows.now), starting=Starting.NOTHING)
    flows.send()
    with flows.database.connect() as connection:
        told = explain(connection, flows.key_ring, "ana", "abandoned-cart")
        with pytest.raises(Refused, match="no event of ben has started trigger abandoned-cart"):
            explain(connection, flows.key_ring, "ben", "abandoned-cart")

    assert (told["verdict"], told["reason"]) == ("skip", "FLOW_EXIT")
    assert told["sentence"].startswith("ana would not get abandoned-cart, judged at ")
    assert told["ledger_sentence"].startswith("ana did not get abandoned-cart in the run of ")
    gates = {gate["gate"]: gate["facts"] for gate in told["gates"]}
    assert (gates["FLOW_EXIT"]["event"], gates["FLOW_EXIT"]["same"]) == ("order.placed", "contact")
    assert gates["SOURCE_STALE"]["may_be_silent_seconds"] == 6 * 3600
    assert (told["ledger"]["status"], told["ledger"]["reason"]) == ("skipped", "FLOW_EXIT")


def test_a_trigger_is_listed_with_its_counts_and_its_pause_outlives_its_versions(flows: Flows) -> None:
    flows.arrive(order(flows.now))
    flows.send()
    with flows.database.begin() as connection:
        listing.pause(connection, "order-confirmation", by="test")
        with pytest.raises(Refused, match="paused already"):
            listing.pause(connection, "order-confirmation", by="test")
        with pytest.raises(NotFound, match="there are abandoned-cart, order-confirmation"):
            listing.pause(connection, "nothing", by="test")
    flows.apply({"templates/email/thanks/subject.txt": "Thank you\n"})
    flows.arrive(order(flows.now))
    flows.send()
    with flows.database.begin() as connection:
        _, listed = listing.list_triggers(connection)
        report = reports.run_report(connection, UUID(listed["runs"][0]))
        assert listing.resume(connection, "order-confirmation", by="test") == 2
    flows.send()

    assert (listed["state"], listed["status"], len(listed["runs"])) == ("paused", {"sent": 1, "pending": 1}, 2)
    assert (report["audience"], report["state"]) == (1, "paused")
    assert [mail["subject"] for mail in flows.mails()][1:] == ["Thank you"]


def waits_for_a_lock(flows: Flows) -> bool:
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with flows.database.connect() as connection:
        return connection.execute(text(waiting)).first() is not None


@pytest.mark.parametrize("paused", [True, False])
def test_what_a_triggers_first_event_begins_knows_of_a_pause_and_a_resume_at_the_same_time(
    flows: Flows, paused: bool
) -> None:
    def move() -> None:
        with flows.database.begin() as connection:
            (listing.pause if paused else listing.resume)(connection, "order-confirmation", by="test")

    if not paused:
        with flows.database.begin() as connection:
            listing.pause(connection, "order-confirmation", by="test")
    moving = threading.Thread(target=move)
    with flows.database.begin() as arriving:
        record_events(arriving, flows.key_ring, [order(flows.now)])
        moving.start()
        wait_until(lambda: not moving.is_alive() or waits_for_a_lock(flows))
    moving.join()
    flows.send()

    assert len(flows.mails()) == (0 if paused else 1)


def test_verify_finds_every_invariant_kept(flows: Flows) -> None:
    now = flows.now
    flows.arrive(cart(now - 2 * HOUR, cart_id="a"), cart(now - 90 * MINUTE, "ben", "b"), cart(now, cart_id="c"))
    flows.arrive(order(now - HOUR, "ben"))
    flows.send()
    with flows.database.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        report = verify(connection, flows.key_ring, flows.home / "sandbox" / "outbox.jsonl")

    assert [(result.name, result.findings) for result in report.results if result.status == "broken"] == []
    assert flows.became() == {"sent": 2, "FLOW_EXIT": 1, "pending": 1}


def test_verify_finds_a_message_in_anothers_hands(flows: Flows) -> None:
    flows.arrive(cart(flows.now))
    with flows.database.connect() as connection:
        connection.execute(text("UPDATE message SET contact_id = (SELECT id FROM contact WHERE external_id = 'ben')"))
        report = verify(connection, flows.key_ring)

    [broken] = [result for result in report.results if result.status == "broken"]
    assert (broken.name, "another contact than the event" in str(broken.findings)) == ("INV-2", True)


def test_a_file_starts_what_is_news_and_nothing_that_is_history_or_made_up(flows: Flows, tmp_path: Path) -> None:
    now, path = flows.now, tmp_path / "orders.jsonl"
    whens = (now - timedelta(days=30), now - 2 * HOUR, now - MINUTE)
    path.write_text(
        "".join(
            f'{{"source_key": "o{n}", "contact": "ana", "name": "order.placed", "occurred_at": "{at.isoformat()}"}}\n'
            for n, at in enumerate(whens)
        )
    )

    import_events(flows.database, flows.key_ring, path, triggers=False)
    assert flows.messages() == []
    path.write_text(path.read_text().replace('key": "o', 'key": "p'))
    import_events(flows.database, flows.key_ring, path, rebase=now)
    assert flows.messages() == []
    path.write_text(path.read_text().replace('key": "p', 'key": "q'))
    report = import_events(flows.database, flows.key_ring, path)
    assert report.messages_started == len(flows.messages()) == 1


def test_the_command_line_lists_and_pauses_triggers(
    flows: Flows, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def transaction() -> Iterator[tuple[None, Connection]]:
        with flows.database.begin() as connection:
            yield None, connection

    monkeypatch.setattr(door, "transaction", transaction)
    flows.arrive(cart(flows.now))

    assert run_command(["trigger", "list"]) == 0
    assert "abandoned-cart" in (printed := capsys.readouterr().out)
    assert "1 pending" in printed
    assert run_command(["trigger", "pause", "abandoned-cart"]) == 0
    assert run_command(["trigger", "pause", "abandoned-cart"]) == 1
    capsys.readouterr()
    assert run_command(["trigger", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "paused"
    assert run_command(["trigger", "resume", "abandoned-cart"]) == 0


def test_a_contact_nobody_knows_yet_has_a_message_and_no_address_until_one_comes(flows: Flows) -> None:
    flows.arrive(order(flows.now, "stranger"))
    flows.send()

    assert flows.became() == {"NO_ADDRESS": 1}
    flows.arrive(cart(flows.now, "guest"))
    with flows.database.begin() as connection:
        save_contact(connection, flows.key_ring, Particulars("guest", email="guest@people.example"))
        guest = connection.scalar(text("SELECT id FROM contact WHERE external_id = 'guest'"))
        say(connection, flows.key_ring, guest, [("email", "offers", "granted")])
        connection.execute(text("UPDATE contact SET zone = 'Europe/London', country = 'GB'"))
    flows.wait(61 * MINUTE)
    flows.send()
    assert [mail["to"] for mail in flows.mails()] == ["guest@people.example"]
