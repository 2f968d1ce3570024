"""Reading segments: what the language takes, and what it says of what it does not take."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import orjson
import pytest
from pydantic import BaseModel, Field, ValidationError

from segments.definition import (
    All,
    AnyOf,
    AttributeCondition,
    EventCondition,
    InterestCondition,
    Not,
    Segment,
    from_json,
    parse_segment,
    to_json,
)
from segments.durations import Duration, format_duration, parse_duration
from segments.errors import InvalidDocument, InvalidSegment
from segments.yaml_lines import findings, load_document

EXAMPLE = """\
name: christmas-fans
match:                                   # all / any / not nest freely
  all:
    - event: order.placed                # count of distinct events
      where: {interest: christmas}
      within: 90d
      count: {gte: 1}
    - not: {attribute: country, in: [US, CA]}
    - any:
        - interest: christmas            # decayed score
          score: {gte: 2}
        - event: order.placed
          sum: value
          gte: 5000
    - event: order.placed
      last: {older_than: 7d}
"""


def test_the_example_of_the_contract_says_what_it_says() -> None:
    segment = parse_segment(EXAMPLE, "segments/christmas-fans.yaml")

    assert isinstance(segment.match, All)
    recent, elsewhere, fond, quiet = segment.match.conditions
    assert isinstance(recent, EventCondition)
    assert recent.where is not None
    assert (recent.where.interest, recent.within, recent.count and recent.count.least) == (
        ("christmas",),
        timedelta(days=90),
        1,
    )
    assert isinstance(elsewhere, Not)
    assert isinstance(elsewhere.condition, AttributeCondition)
    assert elsewhere.condition.in_ == ("US", "CA")
    assert isinstance(fond, AnyOf)
    score, total = fond.conditions
    assert isinstance(score, InterestCondition)
    assert isinstance(total, EventCondition)
    assert (score.score.gte, total.sum, total.gte) == (2, "value", 5000)
    assert isinstance(quiet, EventCondition)
    assert quiet.last is not None
    assert quiet.last.older_than == timedelta(days=7)


def test_a_definition_survives_json() -> None:
    segment = parse_segment(EXAMPLE, "x.yaml")

    assert from_json(orjson.loads(orjson.dumps(to_json(segment)))) == segment
    assert from_json(orjson.loads(segment.model_dump_json())) == segment


def test_norway_is_a_country_and_a_leading_zero_is_kept() -> None:
    segment = parse_segment(
        "name: x\nmatch: {attribute: country, in: [NO, on, 012, 1_000, 12:30, 2026-01-01]}", "x.yaml"
    )

    assert isinstance(segment.match, AttributeCondition)
    assert segment.match.in_ == ("NO", "on", "012", "1_000", "12:30", "2026-01-01")


def test_short_forms_mean_the_long_ones() -> None:
    short = "{event: a, where: {interest: tea, value: 5, properties: {x: red, y: [1, 2]}, item: {quantity: 2}}}"
    long = (
        "{event: a, where: {interest: [tea], value: {eq: 5}, properties: {x: {eq: red}, y: {in: [1, 2]}}, "
        "item: {quantity: {eq: 2}}}}"
    )

    assert parse_segment(f"name: x\nmatch: {short}", "x") == parse_segment(f"name: x\nmatch: {long}", "x")


WRONG = [  # name: x on line 1 and match: on line 2, where nothing else is said
    ("name: x", "1: match: is missing"),
    ("match: {event: a}", "1: name: is missing"),
    ("name: Big Spenders\nmatch: {event: a}", "1: name: must be a name of lower-case letters, digits, - and _"),
    ("name: x\nmatch: {event: a}\nnotes: y", "3: notes: is not known here; write one of name, match"),
    ("name: x\nmatch:", "2: match: has no value"),
    ("name: x\nmatch: []", "2: match: must be one condition"),
    ("name: x\nmatch:\n  evnt: a", "2: match: is no condition (it has evnt); it needs one of event"),
    ("name: x\nmatch: {event: a, attribute: b}", "2: match: is two conditions at once (event and attribute)"),
    ("name: x\nmatch:\n  all:\n    - event: a\n    - event: b\n      count:\n        gte: \"three\"",
     '7: match.all[1].count.gte: must be a whole number, got "three"'),
    ("name: x\nmatch:\n  all: []", "3: match.all: must have at least 1 of them, got 0"),
    ("name: x\nmatch:\n  any: {event: a}", "3: match.any: must be a list, got a mapping"),
    ("name: x\nmatch:\n  not: [{event: a}]", "2: match: not takes one condition"),
    ("name: x\nmatch:\n  not:\n    any:\n      - event: a\n      - 7", "6: match.not.any[1]: must be one condition"),
    ("name: x\nmatch: {event: 5}", "2: match.event: must be text, got 5; put it in quotes"),
    ("name: x\nmatch: {event: ''}", "2: match.event: must not be empty"),
    ("name: x\nmatch:\n  event: a\n  within: 3 months", "4: match.within: '3 months' is not a duration"),
    ("name: x\nmatch:\n  event: a\n  within: 0d", '4: match.within: must be more than 0s, got "0d"'),
    ("name: x\nmatch:\n  event: a\n  count: 3", "4: match.count: must be a mapping of fields, got 3"),
    ("name: x\nmatch:\n  event: a\n  count: {}", "4: match.count: compares with nothing; write for example {gte: 1}"),
    ("name: x\nmatch:\n  event: a\n  count: {gte: -1}", "4: match.count.gte: must be at least 0, got -1"),
    ("name: x\nmatch:\n  event: a\n  count: {gte: 1.5}", "4: match.count.gte: must be a whole number, got 1.5"),
    ("name: x\nmatch:\n  event: a\n  count: {gte: true}", "4: match.count.gte: must be a whole number, got true"),
    ("name: x\nmatch:\n  event: a\n  count: {at_least: 1}", "4: match.count.at_least: is not known here; write"),
    ("name: x\nmatch:\n  event: a\n  withn: 3d", "4: match.withn: is not known here; did you mean within?"),
    ("name: x\nmatch:\n  event: a\n  gte: 3", "2: match: gte stands alone; write count: {gte: ...}"),
    ("name: x\nmatch:\n  event: a\n  sum: value", "2: match: sum is compared with nothing"),
    ("name: x\nmatch:\n  event: a\n  sum: money\n  gte: 3", "4: match.sum: must be 'value' or 'quantity'"),
    ("name: x\nmatch:\n  event: a\n  sum: value\n  gte: lots", '5: match.gte: must be a number, got "lots"'),
    ("name: x\nmatch:\n  event: a\n  last: {}", "4: match.last: says no time"),
    ("name: x\nmatch:\n  event: a\n  last: {older_than: 7d, within: 3d}", "4: match.last: never holds"),
    ("name: x\nmatch:\n  event: a\n  where: {}", "4: match.where: names nothing"),
    ("name: x\nmatch:\n  event: a\n  where:\n    channel: web", "5: match.where.channel: is not known here"),
    ("name: x\nmatch:\n  event: a\n  where:\n    interest: [tea, 5]", "5: match.where.interest[1]: must be text"),
    ("name: x\nmatch:\n  event: a\n  where:\n    item:\n      quantity: many",
     '6: match.where.item.quantity: must be a number'),
    ("name: x\nmatch:\n  event: a\n  where:\n    properties:\n      x: {eq: [1]}",
     "6: match.where.properties.x.eq: must be"),
    ("name: x\nmatch:\n  event: a\n  where:\n    properties:\n      x:", "6: match.where.properties.x: has no value"),
    ("name: x\nmatch: {attribute: country}", "2: match: compares with nothing"),
    ("name: x\nmatch:\n  attribute: country\n  in: US", '4: match.in: must be a list, got "US"'),
    ("name: x\nmatch:\n  attribute: country\n  eq: ~", "4: match.eq: has no value"),
    ("name: x\nmatch:\n  attribute: vip\n  gt: true", "4: match.gt: must be a number or a text, got true"),
    ("name: x\nmatch:\n  attribute: vip\n  exists: 1", "4: match.exists: must be true or false, got 1"),
    ("name: x\nmatch:\n  attribute: vip\n  eq: 1e300", "4: match.eq: must be between -1e+15 and 1e+15"),
    ('name: x\nmatch:\n  attribute: vip\n  eq: "a\\0b"', "4: match.eq: holds a character that cannot be stored"),
    ('name: x\nmatch:\n  attribute: vip\n  "e\\ud800": 1', "4: match: holds a character that cannot be stored"),
    ("name: x\nmatch: {interest: tea}", "2: match.score: is missing"),
    ("name: x\nmatch:\n  interest: tea\n  score: {eq: 2}", "4: match.score.eq: is not known here; write one of gte"),
    ("name: x\nmatch:\n  interest: tea\n  score: {gte: -2}", "4: match.score.gte: must be at least 0, got -2"),
    ("name: x\nmatch: " + "{not: " * 12 + "{event: a}" + "}" * 12, "2: match: nests conditions more than 10 deep"),
    ("name: x\nmatch: {any: [" + "{event: a}," * 101 + "]}", "2: match: has more than 100 conditions"),
    ("name: x\nmatch: {attribute: a, in: [" + "1," * 1001 + "]}", "2: match.in: must have at most 1000"),
    ("name: x\nname: y\nmatch: {event: a}", "2: name: is there twice, first on line 1"),
    ("name: x\nmatch:\n\tevent: a", "3: a tab at the beginning of the line; indent with spaces"),
    ("name: x\nmatch: [1", "2: not YAML: "),
    ("name: x\nmatch: &m {event: a}\n", "2: match: anchors and aliases"),
    ("name: x\nmatch: *m\n", "2: match: anchors and aliases"),
    ("name: !!python/object/apply:os.system [id]\n", "1: name: tags (tag:yaml.org,2002:python/object/apply:os.system)"),
    ("name: x\n---\nname: y", "2: a second document"),
    ("name: x\n\x07", "2: a character that YAML does not allow (#x0007)"),
    ("? [a]\n: 1", "1: a key must be plain text"),
    ("", "1: the file is empty"),
    ("# only words\n", "1: the file is empty"),
    ("- name: x", "1: must be a mapping of fields (name: ...), got a list"),
    ("a: " + "[" * 5000, "1: nested more than 40 deep"),
    ("a: " + "x" * 100_000, "1: longer than 100000 characters"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "finding"), WRONG)
def test_a_mistake_is_one_line_with_file_line_and_field(text: str, finding: str) -> None:
    with pytest.raises(InvalidSegment) as caught:
        parse_segment(text, "segments/vip.yaml")

    assert len(caught.value.findings) == 1
    assert caught.value.findings[0].startswith(f"segments/vip.yaml:{finding}")
    assert "\n" not in caught.value.findings[0]


def test_every_mistake_of_a_file_is_named() -> None:
    with pytest.raises(InvalidSegment) as caught:
        parse_segment("name: X\nmatch:\n  any:\n    - event: a\n      count: {gte: x}\n    - interest: tea\n", "s.yaml")

    assert [finding.split(" ")[0] for finding in caught.value.findings] == [
        "s.yaml:1:",
        "s.yaml:5:",
        "s.yaml:6:",
    ]
    assert str(caught.value) == "\n".join(caught.value.findings)


def test_a_file_that_is_not_utf_8_says_where() -> None:
    with pytest.raises(InvalidSegment, match=r"^s.yaml:2: not UTF-8; save the file as UTF-8$"):
        parse_segment(b"name: x\nmatch: {event: caf\xe9}", "s.yaml")


def test_a_byte_order_mark_and_windows_line_ends_are_taken() -> None:
    assert parse_segment(b"\xef\xbb\xbfname: x\r\nmatch: {event: a}\r\n", "s.yaml").name == "x"


@pytest.mark.parametrize(
    "value", [{"name": "x", "match": {"event": "a\0"}}, {"name": "x", "match": {"event": "\ud800"}}]
)
def test_what_cannot_be_stored_is_refused_from_json_too(value: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        from_json(value)


class Sale(BaseModel):
    lasts: Annotated[Duration, Field(le=timedelta(days=7))]
    places: dict[str, int] = {}


def test_other_kinds_of_files_find_their_lines_the_same_way() -> None:
    document = load_document("places:\n  GB: 1\n  FR: one\nlasts: 8d\n", "campaigns/sale.yaml")

    with pytest.raises(ValidationError) as caught:
        Sale.model_validate(document.data)

    assert findings(caught.value, document, "campaigns/sale.yaml") == [
        'campaigns/sale.yaml:4: lasts: must be at most 7d, got "8d"',
        'campaigns/sale.yaml:3: places.FR: must be a whole number, got "one"',
    ]
    assert document.line_of(("places", "FR", "nothing here")) == 3
    with pytest.raises(InvalidDocument, match="the file is empty"):
        load_document("", "campaigns/sale.yaml")


@pytest.mark.parametrize("text", ["90d", "24h", "30m", "45s", "0s", "99999w", "99999d", "99999s", "14d", "36h", "1m"])
def test_a_duration_reads_back_as_itself(text: str) -> None:
    assert parse_duration(format_duration(parse_duration(text))) == parse_duration(text)


@pytest.mark.parametrize("text", ["", "d", "3", "3 months", "-3d", "1.5h", "100000d", "٣d", 3, None, True])
def test_what_is_no_duration_is_refused_with_an_example(text: Any) -> None:
    with pytest.raises(ValueError, match="like 90d, 24h, 30m or 2w"):
        parse_duration(text)


def test_a_python_made_definition_may_hold_ready_conditions() -> None:
    condition = parse_segment("name: x\nmatch: {event: a}", "x").match

    assert Segment(name="y", match=condition).match == condition
