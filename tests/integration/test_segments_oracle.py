"""The compiled SQL means what the language says: it agrees with a naive evaluator on generated shops and segments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import orjson
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from dispatcher import audience, db, interests
from dispatcher.tables import contact
from segments.definition import Segment, from_json, to_json
from tests import oracle_segments as oracle

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HALF_LIFE = timedelta(days=90)  # the usual one: no workspace is applied here
WINDOWS = ("1s", "12h", "7d", "90d", "26w")

# Few values, so that they meet: windows and instants share their borders, stored and asked-for values their spelling.
EVENTS = ("order.placed", "order.placed", "visit")
INTERESTS = ("tea", "cups", "bags")
NUMBERS = (0, 1, 2, 9.99, 10, 12.5, 100, -3)
SCALARS = (12, 12.0, 1.5, "12", "12.0", "012", "-1.5", "1e3", "abc", "ab", "É", "é", "", True, False, "TRUE")
STORED = (
    *SCALARS,
    None,
    0.1,
    [12, "ab"],
    ["12", True, None],
    [],
    {"a": 1},
    "false",
    "abcab",
    "1,5",
    "12.",
    " 12",
    "١٢",
    "0x1",
    "-",
)
INSTANTS = (
    *(NOW - oracle.length(window) + nudge * timedelta(microseconds=1) for window in WINDOWS for nudge in (-1, 0, 1)),
    *(NOW, NOW + timedelta(microseconds=1), NOW + timedelta(days=30), NOW - 2 * HALF_LIFE),
)


def make_shop(seed: int) -> list[dict[str, Any]]:
    """Contacts with their events, all different enough that a segment takes some and leaves some."""
    draw = Random(seed)

    def properties() -> dict[str, Any]:
        return {key: draw.choice(STORED) for key in ("x", "y") if draw.random() < 0.7}

    def item() -> dict[str, Any]:
        interests = draw.sample(INTERESTS, draw.randint(0, 2))
        return {
            "interests": interests, "quantity": draw.choice(NUMBERS), "value": draw.choice(NUMBERS),
            "properties": properties(),
        }  # fmt: skip

    def happened() -> dict[str, Any]:
        return {
            "name": draw.choice(EVENTS), "occurred_at": draw.choice(INSTANTS), "value": draw.choice(NUMBERS),
            "properties": properties(), "items": [item() for _ in range(draw.randint(0, 3))],
        }  # fmt: skip

    return [
        {
            "external_id": f"c{number}",
            "country": draw.choice([None, "GB", "US", "NO"]),
            "subdivision": draw.choice([None, "SCT"]),
            "locale": draw.choice([None, "en", "pt-BR"]),
            "zone": draw.choice([None, "Europe/London"]),
            "attributes": properties(),
            "events": [happened() for _ in range(draw.randint(0, 5))],
        }
        for number in range(1, 25)
    ]


numbers, scalars = st.sampled_from(NUMBERS), st.sampled_from(SCALARS)
interest_names = st.sampled_from(INTERESTS)
as_ofs = st.one_of(st.just(NOW), st.just(NOW), st.sampled_from(INSTANTS))  # NOW is where the windows' borders meet


def some_of(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.sets(st.sampled_from(sorted(fields)), min_size=1, max_size=2).flatmap(
        lambda names: st.fixed_dictionaries({name: fields[name] for name in sorted(names)})
    )


amounts = some_of(dict.fromkeys(("gte", "gt", "lte", "lt", "eq"), numbers))
counts = some_of(dict.fromkeys(("gte", "gt", "lte", "lt", "eq"), st.integers(0, 3)))
scores = some_of(dict.fromkeys(("gte", "gt", "lte", "lt"), st.sampled_from([0, 0.25, 0.5, 1, 1.5, 2])))
ordered = scalars.filter(lambda value: not isinstance(value, bool))
tests = some_of(
    {
        **dict.fromkeys(("eq", "ne", "contains"), scalars),
        **dict.fromkeys(("in", "not_in"), st.lists(scalars, min_size=1, max_size=3)),
        **dict.fromkeys(("gt", "gte", "lt", "lte"), ordered),
        "exists": st.booleans(),
    }
)
property_tests = st.dictionaries(st.sampled_from(["x", "y"]), st.one_of(scalars, tests), min_size=1, max_size=2)
wheres = some_of(
    {
        "interest": st.one_of(interest_names, st.lists(interest_names, min_size=1, max_size=2)),
        "item": some_of({"quantity": st.one_of(numbers, amounts), "value": amounts, "properties": property_tests}),
        "value": amounts,
        "properties": property_tests,
    }
)
windows = st.sampled_from(WINDOWS)
lasts = st.one_of(
    some_of({"within": windows}),
    some_of({"older_than": windows}),
    st.sampled_from([{"older_than": "12h", "within": "7d"}, {"older_than": "7d", "within": "90d"}]),
)
sums = st.builds(lambda field, asked: {"sum": field, **asked}, st.sampled_from(["value", "quantity"]), amounts)
event_conditions = st.builds(
    lambda name, optional, summed: {"event": name, **optional, **summed},
    st.sampled_from(EVENTS),
    st.fixed_dictionaries({}, optional={"where": wheres, "within": windows, "count": counts, "last": lasts}),
    st.one_of(st.just({}), sums),
)
attribute_conditions = st.builds(
    lambda name, asked: {"attribute": name, **asked},
    st.sampled_from(["country", "subdivision", "locale", "zone", "timezone", "external_id", "x", "y", "attr.x"]),
    st.one_of(tests, st.sampled_from([{"in": ["US", "NO"]}, {"eq": "GB"}, {"not_in": ["c1"]}, {"contains": "Europe"}])),
)
interest_conditions = st.builds(lambda name, score: {"interest": name, "score": score}, interest_names, scores)
conditions = st.recursive(
    st.one_of(event_conditions, event_conditions, attribute_conditions, interest_conditions),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=6,
)


@contextmanager
def stocked(connection: Connection, shop: list[dict[str, Any]]) -> Iterator[None]:
    """The shop's contacts and events in the ledger, for as long as the block runs; contact ids are 1, 2, 3 ..."""
    with connection.begin_nested() as savepoint:
        people = [
            (
                number,
                one["external_id"],
                one["country"],
                one["subdivision"],
                one["locale"],
                one["zone"],
                dump(one["attributes"]),
            )
            for number, one in enumerate(shop, 1)
        ]
        columns = ("id", "external_id", "country", "subdivision", "locale", "zone", "attributes")
        db.copy_rows(connection, "contact", columns, people)
        happened = list(enumerate(((number, one) for number, who in enumerate(shop, 1) for one in who["events"]), 1))
        db.copy_rows(
            connection, "event",
            ("id", "source_key", "body_hash", "contact_id", "name", "occurred_at", "value", "properties"),
            [(i, str(i), b"", who, one["name"], one["occurred_at"], one["value"], dump(one["properties"]))
             for i, (who, one) in happened],
        )  # fmt: skip
        db.copy_rows(
            connection, "event_item", ("event_id", "position", "interests", "quantity", "value", "properties"),
            [(i, position, item["interests"], item["quantity"], item["value"], dump(item["properties"]))
             for i, (_, one) in happened for position, item in enumerate(one["items"])],
        )  # fmt: skip
        interests.add(connection, [i for i, _ in happened])
        yield
        savepoint.rollback()


def dump(value: dict[str, Any]) -> str:
    return orjson.dumps(value).decode()


def generated(max_examples: int) -> Any:
    """Run a test with that many generated shops, segments and instants."""
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    limits = settings(max_examples=max_examples, deadline=None, suppress_health_check=quiet)
    return lambda test: limits(given(seed=st.integers(0, 2**32), match=conditions, as_of=as_ofs)(test))


def ids_that_hold(segment: Segment, shop: list[dict[str, Any]], as_of: datetime) -> list[int]:
    match = to_json(segment)["match"]
    return [number for number, one in enumerate(shop, 1) if oracle.holds(match, one, as_of, HALF_LIFE)]


@generated(200)
def test_the_sql_agrees_with_the_naive_evaluator(
    connection: Connection, seed: int, match: dict[str, Any], as_of: datetime
) -> None:
    shop = make_shop(seed)
    segment = Segment.model_validate({"name": "generated", "match": match})
    assert from_json(orjson.loads(orjson.dumps(to_json(segment)))) == segment
    expected = ids_that_hold(segment, shop, as_of)
    event("some in, some out" if 0 < len(expected) < len(shop) else "all or none")

    with stocked(connection, shop):
        assert audience.contact_ids(connection, segment, as_of) == expected
        if "score" in str(match):
            summed = audience.predicate(segment, as_of=as_of, half_life=HALF_LIFE, from_items=True)
            assert list(connection.scalars(select(contact.c.id).where(summed).order_by(contact.c.id))) == expected


@generated(25)
def test_a_few_contacts_are_judged_as_the_whole_audience_is(
    connection: Connection, seed: int, match: dict[str, Any], as_of: datetime
) -> None:
    shop = make_shop(seed)
    segment = Segment.model_validate({"name": "generated", "match": match})
    expected = set(ids_that_hold(segment, shop, as_of))

    with stocked(connection, shop):
        assert audience.members(connection, segment, as_of, range(1, 9)) == expected & set(range(1, 9))
        for contact_id in (1, 2, 3):
            assert audience.why_not(connection, segment, as_of, contact_id).holds == (contact_id in expected)


def test_every_comparison_agrees_for_every_stored_value(connection: Connection) -> None:
    plain = {"country": None, "subdivision": None, "locale": None, "zone": None, "events": []}
    shop = [{**plain, "external_id": f"c{n}", "attributes": {"x": value}} for n, value in enumerate(STORED)]
    shop.append({**plain, "external_id": "none", "attributes": {}})
    asked: list[dict[str, Any]] = [
        {"exists": True},
        {"exists": False},
        {"in": list(SCALARS)},
        {"not_in": list(SCALARS)},
    ]
    for value in SCALARS:
        asked += [{name: value} for name in ("eq", "ne", "contains")]
        asked += [{name: value} for name in ("gt", "gte", "lt", "lte") if not isinstance(value, bool)]

    with stocked(connection, shop):
        for test in asked:
            segment = Segment.model_validate({"name": "value", "match": {"attribute": "x", **test}})
            expected = [n for n, one in enumerate(shop, 1) if oracle.value_holds(test, one["attributes"].get("x"))]
            assert audience.contact_ids(connection, segment, NOW) == expected, test
