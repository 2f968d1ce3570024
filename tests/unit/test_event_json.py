"""Events as JSON: what is read, and what is said about what cannot be."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.event_json import InvalidEvent, load_event
from dispatcher.events import Event, Item, body_hash

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def line(**changes: Any) -> str:
    event: dict[str, Any] = {
        "source_key": "536365",
        "contact": "17850",
        "name": "order.placed",
        "occurred_at": "2011-12-01T08:26:00Z",
    }
    return json.dumps({key: value for key, value in (event | changes).items() if value is not ...})


def load(text: str | bytes) -> Event:
    return load_event(text, now=NOW)


def test_the_contract_s_own_example_is_read() -> None:
    event = load(
        b'{"source_key": "536365", "contact": "17850", "name": "order.placed", "occurred_at": "2011-12-01T08:26:00Z", '
        b'"value": 139.1, "properties": {}, "items": [{"interest": "christmas", "quantity": 6, "value": 15.3, '
        b'"properties": {}}]}'
    )

    assert event == Event(
        source_key="536365",
        contact="17850",
        name="order.placed",
        occurred_at=datetime(2011, 12, 1, 8, 26, tzinfo=UTC),
        value=Decimal("139.1"),
        items=(Item(interests=("christmas",), quantity=Decimal(6), value=Decimal("15.3")),),
    )


def test_what_is_left_out_has_its_usual_value() -> None:
    event = load(line(items=[{"interest": ["GROCERY", "CHEESE", "CHEESE"], "value": 2.5}, {}]))

    assert event.source == "shop"
    assert event.value == Decimal("2.5")
    assert event.items == (Item(("GROCERY", "CHEESE"), Decimal(1), Decimal("2.5")), Item())


def test_numbers_of_orders_and_customers_are_taken_as_their_digits() -> None:
    event = load(line(source_key=536365, contact=17850))

    assert (event.source_key, event.contact) == ("536365", "17850")


def test_an_instant_with_an_offset_is_kept_in_utc() -> None:
    event = load(line(occurred_at="2011-12-01T10:26:00.25+02:00"))

    assert event.occurred_at == datetime(2011, 12, 1, 8, 26, 0, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('"order"', "not an object"),
        ("null", "not an object"),
        (b"\xff\xfe{}", "not UTF-8"),
        ('{"source_key": "1", "source_key": "2"}', "'source_key' is there twice"),
        (line(value=...)[:-1] + ', "value": NaN}', "NaN is not a number"),
        (line(value=...)[:-1] + ', "value": -Infinity}', "-Infinity is not a number"),
        (line(value=...)[:-1] + ', "value": 1e999999999}', "value is not a number below"),
        (line(value=...)[:-1] + ', "value": ' + "9" * 5000 + "}", "a number is too long"),
        (line(value=10**15), "value is not a number below"),
        (line(value=True), "value is not a number"),
        (line(value="a lot"), "value is not a number"),
        (line(source_key=...), "source_key is missing"),
        (line(source_key=" "), "source_key is empty"),
        (line(source_key=1.5), "source_key is not a text"),
        (line(source_key=True), "source_key is not a text"),
        (line(source_key="k" * 201), "source_key is longer than 200"),
        (line(contact=None), "contact is missing"),
        (line(contact={"id": 1}), "contact is not a text"),
        (line(contact="a\u0000b"), "contact has a character"),
        (line(contact="\ud800"), "contact has a character"),
        (line(name=""), "name is empty"),
        (line(occurred_at=...), "occurred_at is missing"),
        (line(occurred_at=1322727960), "occurred_at is not an instant"),
        (line(occurred_at="yesterday"), "occurred_at is not an instant"),
        (line(occurred_at="2011-02-29T00:00:00Z"), "occurred_at is not an instant"),
        (line(occurred_at="2011-12-01T08:26:00"), "occurred_at does not say its zone"),
        (line(occurred_at="0001-01-01T00:00:00+14:00"), "occurred_at is out of range"),
        (line(occurred_at="1901-01-01T00:00:00Z"), "occurred_at is before 1970"),
        (line(occurred_at=(NOW + timedelta(days=1, seconds=1)).isoformat()), "occurred_at is in the future"),
        (line(items={}), "items is not a list"),
        (line(items=[1]), "items[0] is not an object"),
        (line(items=[{}, {"interest": 5}]), "items[1].interest is not a text"),
        (line(items=[{"interest": ["a", ""]}]), "items[0].interest is empty"),
        (line(items=[{"quantity": "six"}]), "items[0].quantity is not a number"),
        (line(items=[{"intrest": "a"}]), "items[0].intrest is not a field of ours"),
        (line(itmes=[]), "itmes is not a field of ours"),
        (line(properties=[]), "properties is not an object"),
        (line(properties={"a": "\u0000"}), "properties has a character"),
        (line(properties={"\ud800": 1}), "properties has a character"),
        (line(properties=json.loads('{"a":' * 20 + "1" + "}" * 20)), "properties is nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_line_says_what_is_wrong(text: str | bytes, reason: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        load(text)

    assert reason in str(caught.value)
    assert len(str(caught.value)) <= 200


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_line_is_too_hostile_for_a_reason(text: str | bytes) -> None:
    with pytest.raises(InvalidEvent):
        load(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    st.sampled_from(["source", "source_key", "contact", "name", "occurred_at", "value", "properties", "items"]), JSON
)
def test_no_field_is_too_hostile_for_a_reason(field: str, value: Any) -> None:
    try:
        event = load(line(**{field: value}))
    except InvalidEvent:
        return

    assert body_hash(event) == body_hash(load(line(**{field: value})))


def test_spelling_makes_no_other_body() -> None:
    items = [{"interest": "a", "value": 1.50, "properties": {"x": 1, "y": 2}}, {"interest": ["b"], "quantity": 2}]
    event = load(line(value=5, items=items))
    spelled = load(
        line(
            value=5.000,
            properties={},
            occurred_at="2011-12-01T09:26:00+01:00",
            items=[
                {"interest": ["b"], "quantity": 2.0},
                {"properties": {"y": 2, "x": 1.0}, "interest": ["a"], "value": 1.5},
            ],
        )
    )

    assert body_hash(event) == body_hash(spelled)


@pytest.mark.parametrize(
    "change",
    [
        {"contact": "17851"},
        {"name": "order.refunded"},
        {"occurred_at": "2011-12-01T08:26:01Z"},
        {"value": 1},
        {"properties": {"a": 1}},
        {"items": []},
        {"items": [{"interest": "a"}, {"interest": "a"}]},
        {"items": [{"interest": "a", "quantity": 2}]},
    ],
)
def test_whatever_else_differs_makes_another_body(change: dict[str, Any]) -> None:
    first = {"items": [{"interest": "a"}]}

    assert body_hash(load(line(**first))) != body_hash(load(line(**(first | change))))
