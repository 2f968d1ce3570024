"""Audiences against a real ledger: exact at the borders, frozen in pages, explained."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import Connection, select, text

from dispatcher import audience, interests
from dispatcher.errors import NotFound
from dispatcher.tables import contact
from segments.definition import Segment, to_json

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def days(number: float) -> timedelta:
    return timedelta(days=number)


def rule(match: dict[str, Any]) -> Segment:
    return Segment.model_validate({"name": "rule", "match": match})


def add_contact(
    connection: Connection, external_id: str, *, attributes: dict[str, Any] | None = None, **fields: Any
) -> int:
    columns = ["external_id", "attributes", *fields]
    return connection.execute(
        text(f"INSERT INTO contact ({', '.join(columns)}) VALUES (:external_id, CAST(:attributes AS jsonb)"
             f"{''.join(f', :{name}' for name in fields)}) RETURNING id"),
        {"external_id": external_id, "attributes": as_json(attributes or {}), **fields},
    ).scalar_one()  # fmt: skip


def add_event(
    connection: Connection, contact_id: int, at: datetime, *, name: str = "order.placed", value: float = 0,
    properties: dict[str, Any] | None = None, items: Sequence[dict[str, Any]] = (),
) -> int:  # fmt: skip
    event_id = connection.execute(
        text("INSERT INTO event (source_key, body_hash, contact_id, name, occurred_at, value, properties) VALUES "
             "(gen_random_uuid()::text, '', :contact, :name, :at, :value, CAST(:properties AS jsonb)) RETURNING id"),
        {"contact": contact_id, "name": name, "at": at, "value": value, "properties": as_json(properties or {})},
    ).scalar_one()  # fmt: skip
    for position, item in enumerate(items):
        connection.execute(
            text("INSERT INTO event_item (event_id, position, interests, quantity, value, properties) VALUES "
                 "(:event, :position, :interests, :quantity, :value, CAST(:properties AS jsonb))"),
            {
                "event": event_id, "position": position, "interests": item.get("interests", []),
                "quantity": item.get("quantity", 1), "value": item.get("value", 0),
                "properties": as_json(item.get("properties", {})),
            },
        )  # fmt: skip
    interests.add(connection, [event_id])
    return event_id


def as_json(value: dict[str, Any]) -> str:
    return orjson.dumps(value).decode()


def who(connection: Connection, match: dict[str, Any], as_of: datetime = NOW) -> set[str]:
    ids = audience.contact_ids(connection, rule(match), as_of)
    assert len(ids) == audience.count(connection, rule(match), as_of)
    return set(connection.scalars(text("SELECT external_id FROM contact WHERE id = ANY(:ids)"), {"ids": ids}))


def order_each(connection: Connection, **ats: datetime) -> None:
    for external_id, at in ats.items():
        add_event(connection, add_contact(connection, external_id), at)


def test_a_window_begins_after_its_first_instant_and_ends_with_as_of(connection: Connection) -> None:
    order_each(
        connection,
        at_the_start=NOW - days(90), just_after=NOW - days(90) + TICK, at_the_end=NOW, too_late=NOW + TICK,
    )  # fmt: skip

    assert who(connection, {"event": "order.placed", "within": "90d"}) == {"just_after", "at_the_end"}
    assert who(connection, {"event": "order.placed"}) == {"at_the_start", "just_after", "at_the_end"}


def test_older_than_is_everything_outside_the_window_but_needs_an_event(connection: Connection) -> None:
    order_each(connection, on_the_border=NOW - days(7), inside=NOW - days(7) + TICK, only_later=NOW + TICK)
    add_contact(connection, "never")

    older, newer = ({"event": "order.placed", "last": {key: "7d"}} for key in ("older_than", "within"))

    assert who(connection, older) == {"on_the_border"}
    assert who(connection, newer) == {"inside"}


def test_one_newer_event_spoils_older_than(connection: Connection) -> None:
    contact_id = add_contact(connection, "both")
    add_event(connection, contact_id, NOW - days(30))
    add_event(connection, contact_id, NOW - days(1))

    assert who(connection, {"event": "order.placed", "last": {"older_than": "7d"}}) == set()


@pytest.mark.parametrize("count", [{"lte": 0}, {"eq": 0}, {"lt": 1}])
def test_a_count_of_none_includes_those_without_any(connection: Connection, count: dict[str, int]) -> None:
    order_each(connection, one=NOW - days(1), only_later=NOW + days(1))
    add_contact(connection, "none")

    assert who(connection, {"event": "order.placed", "count": count}) == {"none", "only_later"}


def test_an_impossible_count_holds_for_nobody(connection: Connection) -> None:
    order_each(connection, one=NOW)

    assert who(connection, {"event": "order.placed", "count": {"gte": 2, "lte": 1}}) == set()
    assert who(connection, {"event": "order.placed", "count": {"lt": 0}}) == set()


def test_a_count_is_of_events_not_of_items(connection: Connection) -> None:
    contact_id = add_contact(connection, "one order, two items")
    add_event(connection, contact_id, NOW, items=[{"interests": ["tea"]}, {"interests": ["tea"]}])

    assert who(connection, {"event": "order.placed", "where": {"interest": "tea"}, "count": {"gte": 2}}) == set()


def test_all_conditions_of_a_where_hold_on_the_same_item(connection: Connection) -> None:
    split = add_contact(connection, "split")
    add_event(
        connection, split, NOW, items=[{"interests": ["tea"], "quantity": 1}, {"interests": ["cups"], "quantity": 9}]
    )
    whole = add_contact(connection, "whole")
    add_event(
        connection, whole, NOW, items=[{"interests": ["tea", "cups"], "quantity": 9, "properties": {"colour": "red"}}]
    )
    many_tea = {"interest": "tea", "item": {"quantity": {"gte": 9}}}

    assert who(connection, {"event": "order.placed", "where": many_tea}) == {"whole"}
    assert who(connection, {"event": "order.placed", "where": {"interest": ["x", "cups"]}}) == {"split", "whole"}
    assert who(connection, {"event": "order.placed", "where": {"item": {"properties": {"colour": ["red"]}}}}) == {
        "whole"
    }


def test_a_sum_is_of_the_matching_items_or_of_the_events(connection: Connection) -> None:
    items = [{"interests": ["tea"], "value": 10, "quantity": 2}, {"interests": ["cups"], "value": 30, "quantity": 5}]
    add_event(connection, add_contact(connection, "a"), NOW, value=45.5, properties={"shop": "web"}, items=items)
    total = {"event": "order.placed", "sum": "value"}

    assert who(connection, {**total, "eq": 45.5}) == {"a"}
    assert who(connection, {**total, "where": {"properties": {"shop": "web"}}, "eq": 45.5}) == {"a"}
    assert who(connection, {**total, "where": {"interest": "tea"}, "eq": 10}) == {"a"}
    assert who(connection, {**total, "sum": "quantity", "eq": 7}) == {"a"}
    assert who(connection, {**total, "where": {"interest": "bags"}, "lte": 0}) == {"a"}


def test_nobody_who_was_merged_or_erased_is_in_an_audience(connection: Connection) -> None:
    survivor = add_contact(connection, "survivor")
    add_contact(connection, "merged", merged_into=survivor)
    add_contact(connection, "erased", erased_at=NOW)

    assert who(connection, {"not": {"attribute": "country", "eq": "GB"}}) == {"survivor"}


def test_a_score_decays_and_is_summed_afresh_for_a_time_before_the_newest_order(connection: Connection) -> None:
    fan = add_contact(connection, "fan")
    for at in (NOW - days(90), NOW - days(90), NOW):
        add_event(connection, fan, at, items=[{"interests": ["tea"]}])
    at_least = {"interest": "tea", "score": {"gte": 2}}

    assert who(connection, at_least, NOW) == {"fan"}  # 1/2 + 1/2 + 1
    assert who(connection, at_least, NOW + TICK * 100_000) == set()
    assert who(connection, at_least, NOW - TICK) == set()
    assert who(connection, at_least, NOW - days(90)) == {"fan"}
    assert who(connection, {"interest": "tea", "score": {"gt": 2}}, NOW) == set()
    assert who(connection, {"interest": "tea", "score": {"lte": 0}}, NOW - days(91)) == {"fan"}


def test_a_score_of_a_very_long_time_ago_neither_overflows_nor_fails(connection: Connection) -> None:
    connection.execute(text("""UPDATE engine SET shop = '{"interests": {"half_life": "1h"}}'"""))
    long_ago = add_contact(connection, "long ago")
    add_event(connection, long_ago, datetime(2012, 1, 1, tzinfo=UTC), items=[{"interests": ["tea"]}])
    some = rule({"interest": "tea", "score": {"gt": 0}})

    for as_of in (
        NOW,
        datetime(2011, 1, 1, tzinfo=UTC),
        datetime(9999, 1, 1, tzinfo=UTC),
        datetime(1, 1, 2, tzinfo=UTC),
    ):
        audience.count(connection, some, as_of)
        audience.why_not(connection, some, as_of, long_ago)
    assert who(connection, {"interest": "tea", "score": {"gte": 1e-9}}) == set()


INJECTIONS = ["'; DROP TABLE contact; --", "%(x)s", ":name", "\\", '"', "{a,b}", "$1", "a'b\"c", "%", "ă 🎄"]


def test_names_and_values_are_only_ever_values(connection: Connection) -> None:
    add_contact(connection, "plain")
    for evil in INJECTIONS:
        contact_id = add_contact(connection, evil, attributes={evil: evil}, country=evil)
        item = {"interests": [evil], "properties": {evil: evil}}
        add_event(connection, contact_id, NOW, properties={evil: evil}, items=[item])
        add_event(connection, contact_id, NOW, name=evil)

    for evil in INJECTIONS:
        for match in (
            {"event": evil},
            {"event": "order.placed", "where": {"interest": evil}},
            {"event": "order.placed", "where": {"properties": {evil: evil}, "item": {"properties": {evil: [evil]}}}},
            {"attribute": evil, "eq": evil},
            {"attribute": evil, "contains": evil},
            {"attribute": "country", "in": [evil, "GB"]},
            {"attribute": "external_id", "eq": evil},
            {"interest": evil, "score": {"gte": 1}},
        ):
            assert who(connection, match) == {evil}


def test_text_from_a_file_is_compared_as_the_type_that_is_asked_for(connection: Connection) -> None:
    stored = {
        "n12": 12,
        "t12": "12",
        "t12.0": "12.0",
        "word": "twelve",
        "truth": True,
        "TRUE": "TRUE",
        "null": None,
        "list": [12],
    }
    for name, value in stored.items():
        add_contact(connection, name, attributes={"x": value})
    add_contact(connection, "none")
    everybody = {*stored, "none"}

    assert who(connection, {"attribute": "x", "eq": 12}) == {"n12", "t12", "t12.0"}
    assert who(connection, {"attribute": "x", "ne": 12}) == everybody - {"n12", "t12", "t12.0"}
    assert who(connection, {"attribute": "x", "eq": "12"}) == {"t12"}
    assert who(connection, {"attribute": "x", "gt": 11.5}) == {"n12", "t12", "t12.0"}
    assert who(connection, {"attribute": "x", "gte": "tw"}) == {"word"}
    assert who(connection, {"attribute": "x", "in": [True, "twelve"]}) == {"truth", "TRUE", "word"}
    assert who(connection, {"attribute": "x", "contains": 12}) == {"list"}
    assert who(connection, {"attribute": "x", "contains": "wel"}) == {"word"}
    assert who(connection, {"attribute": "x", "exists": False}) == {"null", "none"}


def test_an_unknown_country_is_not_in_any_list(connection: Connection) -> None:
    add_contact(connection, "unknown")
    add_contact(connection, "us", country="US", attributes={"country": "GB"})

    assert who(connection, {"not": {"attribute": "country", "in": ["US", "CA"]}}) == {"unknown"}
    assert who(connection, {"attribute": "country", "not_in": ["US", "CA"]}) == {"unknown"}
    assert who(connection, {"attribute": "attr.country", "eq": "GB"}) == {"us"}


def start_run(connection: Connection) -> UUID:
    run_id = uuid4()
    connection.execute(text("INSERT INTO template (hash, channel, name, files) VALUES ('h', 'email', 't', '{}')"))
    connection.execute(
        text("INSERT INTO run (id, name, occurrence_key, channel, class, lane, definition, template_hash, tzdata, "
             "nominal_at, as_of, state, created_at) VALUES (:id, 'r', 'k', 'email', 'marketing', 'email.marketing', "
             "'{}', 'h', '', :now, :now, 'planning', :now)"),
        {"id": run_id, "now": NOW},
    )  # fmt: skip
    return run_id


def test_an_audience_is_frozen_in_pages_of_ascending_contacts(connection: Connection) -> None:
    expected = [add_contact(connection, f"c{number}", country="GB") for number in range(11)]
    add_contact(connection, "other")
    run_id = start_run(connection)

    frozen = audience.freeze(connection, run_id, rule({"attribute": "country", "eq": "GB"}), NOW, page_size=4)

    rows = connection.execute(
        text("SELECT page, contact_ids FROM audience_page WHERE run_id = :run ORDER BY page"), {"run": run_id}
    )
    pages = [tuple(row) for row in rows]
    assert frozen == (11, 3)
    assert [page for page, _ in pages] == [0, 1, 2]
    assert [len(ids) for _, ids in pages] == [4, 4, 3]
    assert [contact_id for _, ids in pages for contact_id in ids] == expected


def test_an_empty_audience_has_no_pages(connection: Connection) -> None:
    assert audience.freeze(connection, start_run(connection), rule({"event": "x"}), NOW) == (0, 0)


def test_a_sample_is_the_same_every_time_and_part_of_the_audience(connection: Connection) -> None:
    for number in range(20):
        add_contact(connection, f"c{number:02}", country="GB" if number % 2 else "FR")
    british = rule({"attribute": "country", "eq": "GB"})

    first = audience.sample(connection, british, NOW, 5)

    assert first == audience.sample(connection, british, NOW, 5)
    assert first == audience.sample(connection, british, NOW, 10)[:5]
    assert len(first) == 5
    assert {contact_id for contact_id, _ in first} <= set(audience.contact_ids(connection, british, NOW))
    assert [external_id for _, external_id in first] != sorted(external_id for _, external_id in first)


def test_members_are_those_asked_for_that_the_segment_means(connection: Connection) -> None:
    british, french = add_contact(connection, "gb", country="GB"), add_contact(connection, "fr", country="FR")
    add_contact(connection, "not asked for", country="GB")

    asked = audience.members(connection, rule({"attribute": "country", "eq": "GB"}), NOW, [british, french, 10**12])

    assert asked == {british}
    assert audience.members(connection, rule({"event": "x", "count": {"eq": 0}}), NOW, []) == set()


def store(connection: Connection, name: str) -> Segment:
    segment = Segment.model_validate({"name": name, "match": {"attribute": "country", "in": ["GB"]}})
    connection.execute(
        text("INSERT INTO segment (name, definition) VALUES (:name, CAST(:definition AS jsonb))"),
        {"name": name, "definition": as_json(to_json(segment))},
    )
    return segment


def test_a_stored_segment_is_read_back_as_it_was(connection: Connection) -> None:
    stored = store(connection, "british")

    assert audience.load_segment(connection, "british") == stored


def test_an_unknown_segment_names_the_closest_or_all(connection: Connection) -> None:
    with pytest.raises(NotFound, match="there are none yet"):
        audience.load_segment(connection, "british")
    store(connection, "british")
    store(connection, "french")

    with pytest.raises(NotFound, match="did you mean british"):
        audience.load_segment(connection, "britsh")
    with pytest.raises(NotFound, match="there are british, french"):
        audience.load_segment(connection, "zzz")


def test_every_condition_says_what_it_found(connection: Connection) -> None:
    contact_id = add_contact(connection, "a", country="US", attributes={"tier": "gold"})
    add_event(connection, contact_id, NOW - days(90), value=20, items=[{"interests": ["tea"], "value": 12}])
    segment = rule(
        {
            "all": [
                {"event": "order.placed", "where": {"interest": "tea"}, "within": "91d", "count": {"gte": 2}},
                {"not": {"attribute": "country", "in": ["US"]}},
                {
                    "any": [
                        {"interest": "tea", "score": {"gte": 2}},
                        {"event": "order.placed", "sum": "value", "gte": 10},
                        {"event": "order.placed", "last": {"older_than": "7d"}},
                        {"attribute": "tier", "exists": True},
                    ]
                },
            ]
        }
    )

    answer = audience.why_not(connection, segment, NOW, contact_id)

    count, country, some = answer.parts
    score, total, last, tier = some.parts
    assert (answer.condition, answer.holds) == ("all", False)
    assert count.condition == "event: order.placed, where: {interest: [tea]}, within: 91d, count: {gte: 2}"
    assert (count.holds, count.found) == (False, {"count": 1})
    assert (country.holds, country.parts[0].holds, country.parts[0].found) == (False, True, {"value": "US"})
    assert (some.holds, score.holds, score.found) == (True, False, {"score": pytest.approx(0.5)})
    assert (total.holds, total.found) == (True, {"sum": 20})
    assert (last.holds, last.found) == (True, {"last": NOW - days(90)})
    assert (tier.holds, tier.found) == (True, {"value": "gold"})
    assert orjson.loads(orjson.dumps(answer.to_json()))["parts"][2]["parts"][2]["found"] == {
        "last": "2026-03-03T00:00:00.000000Z"
    }
    with pytest.raises(NotFound):
        audience.why_not(connection, segment, NOW, 10**12)


def test_every_condition_of_one_contact_can_be_looked_up_by_index(connection: Connection) -> None:
    order_each(connection, a=NOW)
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    tea = {"interest": "tea"}
    for match in (
        {"event": "order.placed", "where": tea, "within": "90d"},
        {"event": "order.placed", "where": tea, "count": {"gte": 2}},
        {"event": "order.placed", "where": tea, "sum": "value", "gte": 5},
        {"event": "order.placed", "last": {"older_than": "7d"}},
        {"interest": "tea", "score": {"gte": 2}},
    ):
        one = select(contact.c.id).where(
            contact.c.id == 1, audience.predicate(rule(match), as_of=NOW, half_life=days(90))
        )
        compiled = one.compile(dialect=connection.dialect)
        plan = connection.exec_driver_sql(f"EXPLAIN {compiled}", compiled.params)

        assert "Seq Scan" not in "\n".join(plan.scalars())
