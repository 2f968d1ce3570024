"""Map files: errors name file, line and field; rows are read the way the map says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from dispatcher.errors import InvalidDefinition, NotFound, Refused
from dispatcher.event_json import InvalidEvent
from dispatcher.events import Item
from dispatcher.imports.mapping import read_mapping
from dispatcher.imports.order_lines import LineReader, OrderLine

MAPS = Path(__file__).resolve().parents[2] / "examples" / "maps"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

PLAIN = """\
source_key: order
contact: customer
occurred_at: {column: at, zone: Europe/London}
name: order.placed
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "map.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def reader(path: Path, columns: list[str], data: Path | None = None) -> LineReader:
    return LineReader(read_mapping(path), columns, data or path.parent / "orders.csv", NOW)


RETAIL = {
    "InvoiceNo": "536365",
    "StockCode": "85123A",
    "Description": "White hanging heart T-light holder",
    "Quantity": "6",
    "InvoiceDate": "2010-12-01 08:26:00",
    "UnitPrice": "2.55",
    "CustomerID": "17850.0",
    "Country": "United Kingdom",
}


def read_retail(**changes: str) -> OrderLine | str:
    return reader(MAPS / "online-retail.yaml", list(RETAIL)).read(RETAIL | changes)


def test_a_line_of_an_order_is_read() -> None:
    assert read_retail() == OrderLine(
        source_key="536365",
        contact="17850",
        name="order.placed",
        occurred_at=datetime(2010, 12, 1, 8, 26, tzinfo=UTC),
        item=Item(("home_decor",), Decimal(6), Decimal("15.3"), {"product": "85123A"}),
    )


def test_a_cancellation_becomes_a_refund_with_positive_numbers() -> None:
    line = read_retail(InvoiceNo="C536379", Quantity="-2")

    assert isinstance(line, OrderLine)
    assert (line.name, line.item.quantity, line.item.value) == ("order.refunded", Decimal(2), Decimal("5.1"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"CustomerID": ""}, "guest"),
        ({"CustomerID": "  ", "Quantity": "nonsense"}, "guest"),
        ({"StockCode": "POST"}, "non_product"),
        ({"StockCode": "m"}, "non_product"),
        ({"StockCode": "gift_0001_20"}, "non_product"),
        ({"StockCode": "TEST002"}, "non_product"),
        ({"Quantity": "0"}, "not_positive"),
        ({"Quantity": "-1"}, "not_positive"),
        ({"InvoiceNo": "C1", "Quantity": "1"}, "not_positive"),
    ],
)
def test_what_the_map_leaves_out_has_its_reason(changes: dict[str, str], reason: str) -> None:
    assert read_retail(**changes) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"CustomerID": "17850.5"}, "'17850.5' is not a whole number"),
        ({"Quantity": "six"}, "quantity is not a number"),
        ({"UnitPrice": "nan"}, "value is not a number"),
        ({"InvoiceDate": "01.12.2010"}, "InvoiceDate is not of the form"),
        ({"InvoiceDate": "2999-12-01 08:26:00"}, "occurred_at is in the future"),
        ({"InvoiceNo": " "}, "InvoiceNo is empty"),
    ],
)
def test_what_cannot_be_read_has_its_reason(changes: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidEvent, match=reason):
        read_retail(**changes)


@pytest.mark.parametrize(
    ("description", "interest"),
    [("paper chain kit vintage christmas", "christmas"), ("JUMBO BAG STRAWBERRY", "bags_and_luggage"), ("?", "other")],
)
def test_the_first_rule_that_matches_wins(description: str, interest: str) -> None:
    line = read_retail(Description=description)

    assert isinstance(line, OrderLine)
    assert line.item.interests == (interest,)


def test_the_rules_we_ship_are_those_of_the_data(shared: Path) -> None:
    ours = read_mapping(MAPS / "online-retail.yaml").rules(shared / "data" / "online-retail" / "orders.csv")
    original = json.loads((shared / "data" / "online-retail" / "interest_rules.json").read_bytes())

    assert [rule.model_dump() for rule in ours] == original["rules"]


def test_interests_are_looked_up_in_a_table(tmp_path: Path) -> None:
    path = write(
        tmp_path, PLAIN + "item: {interests: {table: products.csv, key: product, columns: [department, kind]}}\n"
    )
    (tmp_path / "products.csv").write_text("product,kind,department\n1,CHEESE,DAIRY\n2,,FUEL\n3,,\n")
    rows = reader(path, ["order", "customer", "at", "product"])

    def interests(product: str) -> tuple[str, ...]:
        line = rows.read({"order": "1", "customer": "2", "at": "2025-07-01T10:00:00", "product": product})
        assert isinstance(line, OrderLine)
        return line.item.interests

    assert [interests(product) for product in "1239"] == [("DAIRY", "CHEESE"), ("FUEL",), (), ()]


def test_a_bad_row_in_a_table_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN + "item: {interests: {table: products.csv, key: product, columns: [kind]}}\n")
    (tmp_path / "products.csv").write_text("product,kind\n1,CHEESE\n2\n")

    with pytest.raises(Refused, match=r"products\.csv, line 3"):
        reader(path, ["order", "customer", "at", "product"])


def test_times_are_read_in_the_zone_of_the_map(tmp_path: Path) -> None:
    line = reader(write(tmp_path, PLAIN), ["order", "customer", "at"]).read(
        {"order": "1", "customer": "2", "at": "2025-07-01T10:00:00"}
    )

    assert isinstance(line, OrderLine)
    assert line.occurred_at == datetime(2025, 7, 1, 9, tzinfo=UTC)


def test_times_without_any_zone_are_refused(tmp_path: Path) -> None:
    rows = reader(write(tmp_path, PLAIN.replace(", zone: Europe/London", "")), ["order", "customer", "at"])

    with pytest.raises(InvalidEvent, match="at does not say its zone"):
        rows.read({"order": "1", "customer": "2", "at": "2025-07-01T10:00:00"})


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("", "map.yaml:1: the file is empty"),
        ("[]", "map.yaml:1: must be a mapping"),
        ("source_key: [", "map.yaml:1: not YAML"),
        (PLAIN.replace("contact: customer\n", ""), "map.yaml:1: contact: is missing"),
        (PLAIN + "colour: red\n", "map.yaml:5: colour: is not known here"),
        (
            PLAIN.replace("Europe/London", "Mars/Olympus"),
            "map.yaml:3: occurred_at.zone: 'Mars/Olympus' is not a time zone",
        ),
        (PLAIN + "leave_out:\n  - {reason: guest, column: c}\n", "map.yaml:6: leave_out[0]: a column is tested by"),
        (PLAIN + "leave_out:\n  - {reason: guest, field: value, like: x}\n", "map.yaml:6: leave_out[0]: quantity and"),
        (
            PLAIN + "leave_out:\n  - {reason: guest, like: x}\n",
            "map.yaml:6: leave_out[0]: write either column or field",
        ),
        (PLAIN + "item:\n  interests: {column: c}\n", "map.yaml:6: item.interests: write column with rules"),
        (PLAIN + "item:\n  interests: {table: t.csv, columns: [c]}\n", "map.yaml:6: item.interests: a look-up needs"),
        (PLAIN + "item:\n  value: {column: c, times: quantity}\n", "map.yaml:5: item: value is times quantity"),
        (
            PLAIN + "item:\n  interests:\n    column: c\n    rules:\n      - {interest: a, regex: '('}\n",
            "map.yaml:9: item.interests.rules[0]: regex of a",
        ),
        (
            PLAIN + "renamed:\n  - {name: x, when: {field: value, at_most: 0}}\n",
            "map.yaml:6: renamed[0]: an event is renamed by a column",
        ),
    ],
)
def test_a_wrong_map_is_told_by_file_line_and_field(tmp_path: Path, text: str, finding: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        read_mapping(write(tmp_path, text))

    assert finding in str(caught.value)


def test_a_rule_file_is_read_with_the_same_care(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN + "item: {interests: {column: what, rules_from: rules.json}}\n")
    (tmp_path / "rules.json").write_text('{"note": "ours",\n "rules": [\n {"interest": "a", "regex": "["}]}')

    with pytest.raises(InvalidDefinition, match=r"rules.json:3: rules\[0\]: regex of a is not one"):
        reader(path, ["order", "customer", "at", "what"])


def test_a_file_the_map_names_is_looked_for_beside_the_data_too(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN + "item: {interests: {column: what, rules_from: rules.yaml}}\n")
    data = tmp_path / "data"
    with pytest.raises(NotFound, match=r"the map names rules\.yaml"):
        reader(path, ["order", "customer", "at", "what"], data / "orders.csv")

    data.mkdir()
    (data / "rules.yaml").write_text("rules:\n  - {interest: a, regex: A}\n")

    assert reader(path, ["order", "customer", "at", "what"], data / "orders.csv")


def test_a_column_that_the_file_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidDefinition, match=r"the column customer, which orders.csv does not have; it has order, at"
    ):
        reader(write(tmp_path, PLAIN), ["order", "at"])
