"""Merging two contacts that are one person."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from ledger_rows import add_contact, add_message, add_run
from sqlalchemy import Connection, Engine, text

from dispatcher import clock, consent, interests, unsubscribe
from dispatcher.consent import ConsentChange
from dispatcher.contacts import find_contact, personal_of
from dispatcher.errors import NotFound, Refused
from dispatcher.events import Event, Item, record_events
from dispatcher.identity import merge
from dispatcher.keys import KeyRing
from dispatcher.tokens import WayOut

THEN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def two(connection: Connection, key_ring: KeyRing) -> tuple[int, int]:
    """The one who will survive, and the one who will not: with another address, as an operator merges them."""
    return (
        add_contact(connection, key_ring, "winner", email="winner@shop.example"),
        add_contact(connection, key_ring, "loser", email="loser@shop.example", phone="+447700900123"),
    )


def address(connection: Connection, contact_id: int, channel: str = "email") -> int:
    query = text(f"SELECT {channel}_address_id FROM contact WHERE id = :id")
    return int(connection.execute(query, {"id": contact_id}).scalar_one())


def say(
    connection: Connection, key_ring: KeyRing, contact_id: int, action: str, at: datetime, actor: str = "person"
) -> None:
    change = ConsentChange(
        contact_id, "email", "offers", action, actor, "form", at, address(connection, contact_id)  # type: ignore[arg-type]
    )  # fmt: skip
    consent.record(connection, key_ring, [change], now=clock.read_now(connection))


def state(connection: Connection, contact_id: int) -> str | None:
    return next((held.state for held in consent.state_of(connection, contact_id)), None)


def where(connection: Connection, message_id: UUID) -> tuple[int, str, str | None]:
    row = connection.execute(
        text("SELECT contact_id, status, reason, batch_id FROM message WHERE id = :id"), {"id": message_id}
    ).one()
    assert row.status != "skipped" or row.batch_id is None
    return row.contact_id, row.status, row.reason


def test_the_lower_id_survives_whatever_the_order(
    connection: Connection, key_ring: KeyRing, two: tuple[int, int]
) -> None:
    winner, loser = two

    assert merge(connection, key_ring, loser, winner) == winner
    assert merge(connection, key_ring, winner, loser) == winner  # twice: nothing more
    assert merge(connection, key_ring, winner, winner) == winner
    assert find_contact(connection, key_ring, "loser") == winner
    assert connection.scalars(text("SELECT action FROM audit")).all() == ["contact.merge"]
    with pytest.raises(NotFound):
        merge(connection, key_ring, winner, 999)


def test_blanks_are_filled_and_the_tombstone_keeps_nothing_personal(
    connection: Connection, key_ring: KeyRing, two: tuple[int, int]
) -> None:
    winner, loser = two
    change = text("UPDATE contact SET zone = :zone, attributes = CAST(:attributes AS jsonb) WHERE id = :id")
    connection.execute(change, {"id": loser, "zone": "Europe/Paris", "attributes": '{"a": 1, "b": 1}'})
    connection.execute(change, {"id": winner, "zone": None, "attributes": '{"b": 2}'})

    merge(connection, key_ring, winner, loser)

    personal = personal_of(connection, key_ring, winner)
    assert (personal.email, personal.phone) == ("winner@shop.example", "+447700900123")
    survivor, tombstone = connection.execute(text("SELECT * FROM contact ORDER BY id")).all()
    assert (survivor.zone, survivor.attributes, survivor.version) == ("Europe/Paris", {"a": 1, "b": 2}, 2)
    assert survivor.sms_address_id is not None
    assert (tombstone.merged_into, tombstone.sealed, tombstone.email_address_id, tombstone.attributes) == (
        winner,
        None,
        None,
        {},
    )


def test_the_wishes_of_both_are_kept(connection: Connection, key_ring: KeyRing, two: tuple[int, int]) -> None:
    """Silence is never loosened, and what was authorised before the merge did not know of the other's wish."""
    night, sunday = ({"hours": hours, "days": ["sun"]} for hours in ("22:00-08:00", "00:00-24:00"))
    wish = text("UPDATE contact SET paused_until = :until, quiet_hours = CAST(:hours AS jsonb) WHERE id = :id")
    connection.execute(wish, {"until": None, "hours": json.dumps([night]), "id": two[0]})
    connection.execute(wish, {"until": THEN, "hours": json.dumps([sunday]), "id": two[1]})
    merge(connection, key_ring, *two)
    kept = connection.execute(text("SELECT * FROM contact WHERE id = :id"), {"id": two[0]}).one()

    assert kept.quiet_hours == [night, sunday]
    assert kept.paused_until == THEN
    assert kept.paused_seq is not None
    assert kept.quiet_hours_seq is not None


def test_chains_of_tombstones_lead_straight_to_the_survivor(
    connection: Connection, key_ring: KeyRing, two: tuple[int, int]
) -> None:
    winner, loser = two
    third = add_contact(connection, key_ring, "third", email="third@shop.example")

    merge(connection, key_ring, loser, third)
    merge(connection, key_ring, third, winner)

    assert connection.scalars(
        text("SELECT DISTINCT merged_into FROM contact WHERE id > :id"), {"id": winner}
    ).all() == [winner]
    assert {find_contact(connection, key_ring, name) for name in ("winner", "loser", "third")} == {winner}


@pytest.mark.parametrize("withdrawn_is", [0, 1])
@pytest.mark.parametrize("later", [-1, 1])
def test_withdrawal_wins_whoever_said_it_and_when(
    connection: Connection, key_ring: KeyRing, two: tuple[int, int], withdrawn_is: int, later: int
) -> None:
    say(connection, key_ring, two[withdrawn_is], "withdrawn", THEN)
    say(connection, key_ring, two[1 - withdrawn_is], "granted", THEN + timedelta(days=later))

    winner = merge(connection, key_ring, *two)

    assert state(connection, winner) == "withdrawn"
    assert state(connection, two[1]) is None
    say(connection, key_ring, winner, "granted", THEN + timedelta(days=2), actor="import")
    assert state(connection, winner) == "withdrawn"
    say(connection, key_ring, winner, "granted", clock.read_now(connection))
    assert state(connection, winner) == "granted"
    assert consent.verify_chain(connection) == []


def test_what_only_one_said_holds_for_its_address(
    connection: Connection, key_ring: KeyRing, two: tuple[int, int]
) -> None:
    say(connection, key_ring, two[0], "granted", THEN)
    winner = merge(connection, key_ring, *two)
    assert state(connection, winner) == "granted"

    third = add_contact(connection, key_ring, "third", email="third@shop.example")
    say(connection, key_ring, third, "granted", THEN)
    bare = add_contact(connection, key_ring, "fourth", email="fourth@shop.example")
    survivor = merge(connection, key_ring, third, bare)
    assert state(connection, survivor) == "granted"


def test_history_and_interests_are_added_up(connection: Connection, key_ring: KeyRing, two: tuple[int, int]) -> None:
    for contact, day in (("winner", 0), ("loser", 90), ("winner", 90)):
        key = f"{contact}{day}"
        event = Event(key, contact, "order.placed", THEN - timedelta(days=day), items=(Item(("tea",), Decimal(1)),))
        record_events(connection, key_ring, [event])

    winner = merge(connection, key_ring, *two)

    assert connection.scalar(text("SELECT count(*) FROM event WHERE contact_id = :id"), {"id": winner}) == 3
    [row] = connection.execute(text("SELECT * FROM interest")).all()
    score = interests.score(row.log2_mass, timedelta(days=row.half_life_days), THEN)
    assert (row.contact_id, score) == (winner, pytest.approx(1 + 0.5 + 0.5))


def test_messages_go_over_and_the_surplus_is_skipped(
    connection: Connection, key_ring: KeyRing, two: tuple[int, int]
) -> None:
    winner, loser = two
    mine, theirs = (address(connection, contact) for contact in two)
    runs = [add_run(connection) for _ in range(4)]
    alone = add_message(connection, loser, theirs, run_id=runs[0])
    kept, surplus = (
        add_message(connection, c, a, run_id=runs[1], batch_id=3) for c, a in ((winner, mine), (loser, theirs))
    )
    too_late = add_message(connection, winner, mine, run_id=runs[2], batch_id=4)
    left = add_message(connection, loser, theirs, run_id=runs[2], status="sending")
    mine_left = add_message(connection, winner, mine, run_id=runs[3], status="sent")
    theirs_left = add_message(connection, loser, theirs, run_id=runs[3], status="sent")
    history = add_message(connection, loser, theirs, status="delivered")

    merge(connection, key_ring, winner, loser)

    assert where(connection, alone) == (winner, "pending", None)
    assert connection.scalar(text("SELECT address_id FROM message WHERE id = :id"), {"id": alone}) == mine
    assert where(connection, kept) == (winner, "pending", None)
    assert where(connection, surplus) == (loser, "skipped", "DUPLICATE_ADDRESS")
    assert where(connection, too_late) == (winner, "skipped", "DUPLICATE_ADDRESS")
    assert where(connection, left) == (loser, "sending", None)
    assert [where(connection, m)[0] for m in (mine_left, theirs_left)] == [winner, loser]
    assert where(connection, history) == (winner, "delivered", None)


def test_a_run_that_will_still_plan_the_survivor_gets_no_second_message(
    connection: Connection, key_ring: KeyRing, two: tuple[int, int]
) -> None:
    winner, loser = two
    run = add_run(connection)
    connection.execute(
        text("INSERT INTO audience_page (run_id, page, contact_ids) VALUES (:run, 1, ARRAY[CAST(:id AS bigint)])"),
        {"run": run, "id": winner},
    )
    planned = add_message(connection, loser, address(connection, loser), run_id=run)

    merge(connection, key_ring, winner, loser)

    assert where(connection, planned) == (loser, "skipped", "DUPLICATE_ADDRESS")


def test_the_data_of_a_transactional_message_can_still_be_opened(
    connection: Connection, key_ring: KeyRing, two: tuple[int, int]
) -> None:
    winner, loser = two
    keys = dict(connection.execute(text("SELECT id, data_key FROM contact")).all())  # type: ignore[arg-type]
    message = add_message(connection, loser, address(connection, loser), class_="transactional", topic=None)
    connection.execute(
        text("UPDATE message SET sealed = :sealed, client = 'shop', idempotency_key = 'k' WHERE id = :id"),
        {"id": message, "sealed": key_ring.open_data_key(keys[loser]).seal({"order": "17"})},
    )

    merge(connection, key_ring, winner, loser)

    sealed = connection.scalar(text("SELECT sealed FROM message WHERE id = :id"), {"id": message})
    assert where(connection, message)[0] == winner
    assert key_ring.open_data_key(keys[winner]).open(sealed) == {"order": "17"}


def test_an_erased_contact_is_not_merged(connection: Connection, key_ring: KeyRing, two: tuple[int, int]) -> None:
    connection.execute(text("UPDATE contact SET erased_at = clock_timestamp() WHERE id = :id"), {"id": two[1]})

    with pytest.raises(Refused, match="erased"):
        merge(connection, key_ring, *two)


def test_an_unsubscribe_and_a_merge_at_once_both_hold(database: Engine, key_ring: KeyRing) -> None:
    pairs = []
    with database.begin() as connection:
        for number in range(12):
            pair = [
                add_contact(connection, key_ring, f"{n}{number}", email=f"{n}{number}@shop.example") for n in ("a", "b")
            ]
            for contact_id in pair:
                say(connection, key_ring, contact_id, "granted", THEN)
            pairs.append((*pair, address(connection, pair[1])))

    def merging(pair: tuple[int, int, int]) -> None:
        with database.begin() as connection:
            merge(connection, key_ring, pair[0], pair[1])

    def leaving(pair: tuple[int, int, int]) -> None:
        way_out = WayOut(pair[1], "email", "offers", pair[2])
        assert unsubscribe.withdraw(database, key_ring, way_out, source="link").status == unsubscribe.DONE

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, pair) for pair in pairs for work in (merging, leaving)]:
            future.result()

    with database.connect() as connection:
        assert [state(connection, winner) for winner, _, _ in pairs] == ["withdrawn"] * len(pairs)
        assert consent.verify_chain(connection) == []
