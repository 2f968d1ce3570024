"""Interest scores: however items arrive, the score is the direct sum; and time alone rewrites nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from dispatcher import interests
from dispatcher.events import Event, Item, record_events
from dispatcher.keys import KeyRing
from segments.durations import parse_duration

NINETY_DAYS = timedelta(days=90)
DATABASE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

_keys = (f"order-{number}" for number in count(1))


def order(at: datetime, *items: tuple[str, ...], contact: str = "1", name: str = "order.placed") -> Event:
    return Event(next(_keys), contact, name, at, items=tuple(Item(names, Decimal(6)) for names in items))


def stored(connection: Connection) -> dict[tuple[int, str], tuple[float, timedelta]]:
    rows = connection.execute(text("SELECT contact_id, name, log2_mass, half_life_days FROM interest"))
    return {(row.contact_id, row.name): (row.log2_mass, timedelta(days=row.half_life_days)) for row in rows}


def scores(connection: Connection, at: datetime) -> dict[str, float]:
    """The scores of the one contact there is."""
    return {name: interests.score(mass, half, at) for (_, name), (mass, half) in stored(connection).items()}


def direct_sums(events: Sequence[Event], half_life: timedelta, at: datetime) -> dict[str, float]:
    terms: dict[str, list[float]] = {}
    for event in events:
        for item in event.items:
            for name in item.interests:
                terms.setdefault(name, []).append(2 ** ((event.occurred_at - at) / half_life))
    return {name: math.fsum(found) for name, found in terms.items()}


def use_half_life(connection: Connection, length: str) -> None:
    shop = f'{{"interests": {{"half_life": "{length}"}}}}'
    connection.execute(text("UPDATE engine SET shop = CAST(:shop AS jsonb)"), {"shop": shop})


INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
NEAR = st.datetimes(datetime(2011, 1, 1), datetime(2012, 1, 1), timezones=st.just(UTC))
NAMES = st.sampled_from(["christmas", "garden", 'say "cheese"', "back\\slash, {comma}"])
ITEMS = st.lists(st.lists(NAMES, unique=True, max_size=3).map(tuple), max_size=4)


@given(
    orders=st.lists(st.tuples(NEAR, ITEMS), min_size=1, max_size=12), cuts=st.sets(st.integers(1, 11)), data=st.data()
)
@DATABASE
def test_in_whatever_order_items_arrive_the_score_is_the_direct_sum(
    connection: Connection, key_ring: KeyRing, orders: list, cuts: set[int], data: st.DataObject
) -> None:
    events = [order(at, *items) for at, items in orders]
    with connection.begin_nested() as example:
        start = 0
        arrival = data.draw(st.permutations(events))
        for end in [*sorted(cuts), len(events)]:
            record_events(connection, key_ring, arrival[start:end])
            start = max(start, end)

        at = max(event.occurred_at for event in events) + timedelta(days=3)
        expected = direct_sums(events, NINETY_DAYS, at)
        found = scores(connection, at)
        example.rollback()

    assert found.keys() == expected.keys()
    for name, score in expected.items():
        assert found[name] == pytest.approx(score, rel=1e-9)


@given(instants=st.lists(INSTANTS, min_size=1, max_size=6), length=st.sampled_from(["1h", "1d", "90d", "36500d"]))
@DATABASE
def test_no_time_and_no_half_life_is_too_extreme(
    connection: Connection, key_ring: KeyRing, instants: list[datetime], length: str
) -> None:
    events = [order(at, ("a",)) for at in instants]
    half_life = parse_duration(length)
    with connection.begin_nested() as example:
        use_half_life(connection, length)
        for event in events:
            record_events(connection, key_ring, [event])
        one_by_one = stored(connection)
        interests.recompute(connection, half_life)
        at_once = stored(connection)
        newest = max(instants)
        found = scores(connection, newest)["a"]
        example.rollback()

    assert found == pytest.approx(direct_sums(events, half_life, newest)["a"], rel=1e-9)
    assert at_once.keys() == one_by_one.keys()
    for key, (mass, half) in at_once.items():
        assert half == half_life
        assert mass == pytest.approx(one_by_one[key][0], rel=1e-12)


def test_an_item_counts_once_for_each_interest_whatever_its_quantity(connection: Connection, key_ring: KeyRing) -> None:
    at = datetime(2011, 12, 1, tzinfo=UTC)

    record_events(connection, key_ring, [order(at, ("GROCERY", "CHEESE"), ("GROCERY",), ())])

    assert scores(connection, at) == pytest.approx({"GROCERY": 2, "CHEESE": 1})


def test_only_orders_count_and_refunds_do_not_subtract(connection: Connection, key_ring: KeyRing) -> None:
    at = datetime(2011, 12, 1, tzinfo=UTC)

    record_events(connection, key_ring, [order(at, ("a",)), order(at, ("a",), name="order.refunded")])
    record_events(connection, key_ring, [order(at, ("b",), name="checkout.started")])

    assert scores(connection, at) == pytest.approx({"a": 1})


def test_a_score_halves_with_every_half_life_and_no_row_is_rewritten(connection: Connection, key_ring: KeyRing) -> None:
    at = datetime(2011, 12, 1, tzinfo=UTC)
    record_events(connection, key_ring, [order(at, ("a",), ("a",))])
    versions = text("SELECT contact_id, name, xmin::text, ctid::text FROM interest ORDER BY 1, 2")
    before = connection.execute(versions).all()

    later = [scores(connection, at + number * NINETY_DAYS)["a"] for number in range(4)]
    record_events(connection, key_ring, [order(at + NINETY_DAYS, ("b",))])

    assert later == pytest.approx([2, 1, 0.5, 0.25])
    assert [row for row in connection.execute(versions).all() if row.name == "a"] == before


def test_a_change_of_the_half_life_sums_up_afresh(connection: Connection, key_ring: KeyRing) -> None:
    at = datetime(2011, 12, 1, tzinfo=UTC)
    record_events(connection, key_ring, [order(at - timedelta(days=10), ("a",)), order(at, ("a",))])

    use_half_life(connection, "10d")
    interests.recompute(connection, timedelta(days=10))
    record_events(connection, key_ring, [order(at - timedelta(days=20), ("a",))])

    assert scores(connection, at) == pytest.approx({"a": 1.75})


def test_the_survivor_of_a_merge_has_both_scores(connection: Connection, key_ring: KeyRing) -> None:
    at = datetime(2011, 12, 1, tzinfo=UTC)
    record_events(connection, key_ring, [order(at, ("a",), ("b",), contact="1")])
    record_events(connection, key_ring, [order(at, ("a",), ("a",), ("c",), contact="2")])
    ids = connection.execute(text("SELECT contact_id FROM contact_alias ORDER BY external_id")).scalars().all()

    interests.combine(connection, survivor=ids[0], loser=ids[1])

    assert {contact_id for contact_id, _ in stored(connection)} == {ids[0]}
    assert scores(connection, at) == pytest.approx({"a": 3, "b": 1, "c": 1})


@pytest.mark.parametrize(("days", "expected"), [(-400_000, 0.0), (400_000, 2.0**1023)])
def test_a_score_at_a_far_instant_is_no_error(days: int, expected: float) -> None:
    mass = interests.exponent(datetime(2011, 1, 1, tzinfo=UTC), timedelta(days=1))

    assert interests.score(mass, timedelta(days=1), datetime(2011, 1, 1, tzinfo=UTC) - timedelta(days=days)) == expected
